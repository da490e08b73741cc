"""Which TransformerLens is installed, and its adapter: found at run time, so either can be the reference.

3.9 is the last with `HookedTransformer`, whose names and layouts are ours; 4.x has `TransformerBridge`.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import cast

from torch_reference.adapter import Adapter

MODULES = {
    "3.9": "torch_reference.hooked_transformer",
    "4.x": "torch_reference.transformer_bridge",
}
"""Where each world's adapter lives."""

VERSION = metadata.version("transformer_lens")
"""The installed version of TransformerLens."""

WORLD = "3.9" if int(VERSION.split(".")[0]) < 4 else "4.x"
"""The installed world."""

adapter = cast(Adapter, importlib.import_module(MODULES[WORLD]))
"""The installed world's adapter."""
