"""``--version`` of every command."""

from __future__ import annotations

import importlib
from importlib import metadata

import pytest


@pytest.mark.parametrize("module", ["jax_revinc", "parity", "torch_reference", "benchmarks"])
def test_every_command_tells_its_version(module, capsys):
    parser = importlib.import_module(f"{module}.__main__").make_parser()
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--version"])
    assert capsys.readouterr().out == f"jax-revinc {metadata.version('jax-revinc')}\n"
