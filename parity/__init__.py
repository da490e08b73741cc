"""Compares JAX models with TransformerLens models (the parity check), and converts both ways."""

from parity.bridge import from_torch, to_torch
from parity.check import assert_parity, check, compare
from parity.report import Report
from parity.torch_files import load_torch

__all__ = ["Report", "assert_parity", "check", "compare", "from_torch", "load_torch", "to_torch"]
