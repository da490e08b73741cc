"""What takes long to import is imported when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {"pandas", "scipy.stats", "plotly", "jinja2", "torch", "matplotlib"}
"""Modules that no run needs before its weights are on disk."""


def modules_after(statement, *argv):
    """The modules that a new process has imported after a statement."""
    code = f"import sys\ntry:\n    {statement}\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    finished = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True
    )
    return set(finished.stderr.split())


def test_the_help_does_not_import_jax():
    imported = modules_after("from jax_revinc.__main__ import main; main()", "--help")
    assert "revinc" in imported
    assert imported.isdisjoint({"jax", "flax", "optax", *SLOW})


@pytest.mark.parametrize(
    "flags", [["--help"], ["--steps", "20", "--out"]], ids=["help", "training"]
)
def test_training_imports_nothing_slow(flags, tmp_path):
    words = ["train", *flags, *([str(tmp_path / "run")] if "--out" in flags else [])]
    stop = "import jax_revinc.training as t; t.Run.load = lambda *_: sys.exit()"  # once the weights are on disk
    statement = f"{stop}; from jax_revinc.__main__ import main; main()"
    imported = modules_after(statement, *words)
    assert "jax" in imported
    assert imported.isdisjoint(SLOW)
    assert (tmp_path / "run/weights.safetensors").exists() == ("--out" in flags)


def test_every_public_name_is_there():
    import jax_revinc

    for name in jax_revinc.__all__:
        assert name == "PRESETS" or getattr(jax_revinc, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        jax_revinc.trian  # noqa: B018


def test_tools_are_told_of_the_same_names_and_modules():
    import jax_revinc

    stub = ast.parse(Path(jax_revinc.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    told = {alias.name: node.module for node in imports for alias in node.names}
    expected = {name: f"jax_revinc.{module}" for name, module in jax_revinc.MODULES.items()}
    assert told.pop("plots") == "jax_revinc"
    assert {name: told[name] for name in expected} == expected
    assert set(told) == set(jax_revinc.__all__)
