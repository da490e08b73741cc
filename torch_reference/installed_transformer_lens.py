"""The installed TransformerLens, version 3.9 or 4.x, and the adapter that hides the difference.

3.9 is the last version with `HookedTransformer`, whose names and layouts we use; 4.x has
`TransformerBridge`.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import cast

from torch_reference.adapter import Adapter

MODULES = {
    "3.9": "torch_reference.transformer_lens_3",
    "4.x": "torch_reference.transformer_lens_4",
}
"""The module of the adapter, by version."""

VERSION = metadata.version("transformer_lens")
"""The installed version of TransformerLens."""

WORLD = "3.9" if int(VERSION.split(".")[0]) < 4 else "4.x"
"""The key in `MODULES` of the installed version."""

adapter = cast(Adapter, importlib.import_module(MODULES[WORLD]))
"""The adapter of the installed version."""
