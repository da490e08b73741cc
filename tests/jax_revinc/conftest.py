"""Models set by hand, for the tests of the analysis."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def hand_built():
    """`hand_built` of ``tests/hand_built.py``; each model is made once."""
    path = Path(__file__).parents[1] / "hand_built.py"
    spec = importlib.util.spec_from_file_location("hand_built", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return functools.cache(module.hand_built)
