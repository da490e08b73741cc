"""The judge, looking through the fused engine."""

from __future__ import annotations

import dataclasses

import pytest

from jax_revinc import PRESETS, UserError
from jax_revinc.engines.fused.errors import CannotBuild
from jax_revinc.engines.fused.toolchain import find_compiler
from parity import fused_side, training_levels
from parity.check import check
from parity.inputs import UNLIKELY_LOSSES

RECIPE = dataclasses.replace(
    PRESETS["tutorial"],
    model=PRESETS["tutorial"].model.replace(n_layers=1, attn_only=True),
    steps=60,
)


@pytest.fixture(autouse=True)
def _compiler():
    try:
        find_compiler()
    except CannotBuild as why:
        pytest.skip(str(why))


def failures(levels, dtypes):
    report = check(RECIPE, levels, dtypes, engine="fused")
    return {(level.name, level.dtype): level.failures for level in report.levels}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_gradients_and_updates_are_torchs(dtype):
    found = failures(["L1", "L2", "L4"], [dtype])
    assert len(found) == 3
    assert not any(found.values())


@pytest.mark.slow
def test_every_step_of_a_run_is_torchs():
    assert not any(failures(["L5"], ["float64"]).values())


def test_losses_and_gradients_are_the_fused_engines_own(monkeypatch):
    """A fault in what it computes is found where it is."""

    def off(function):
        return lambda *args, **kwargs: lambda *more: function(*args, **kwargs)(*more) + 1e-9

    monkeypatch.setattr(fused_side, "fused_outputs", off(fused_side.fused_outputs))
    (failed,) = failures(["L1"], ["float64"]).values()
    assert [row.name for row in failed] == ["losses", UNLIKELY_LOSSES]


def test_updates_are_the_fused_engines_own(monkeypatch):
    class Off(training_levels.FusedTraining):
        def advance(self, *args):
            state, losses = super().advance(*args)
            return state._replace(params=state.params + 1e-9), losses

    # The engine verifies a program before its first use, and would find the fault itself.
    assert not any(failures(["L4"], ["float64"]).values())
    monkeypatch.setattr(training_levels, "FusedTraining", Off)
    (failed,) = failures(["L4"], ["float64"]).values()
    assert {row.name.rpartition(": ")[2] for row in failed} == {"param"}


def test_a_model_that_can_not_be_fused_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    other = dataclasses.replace(RECIPE, model=RECIPE.model.replace(d_vocab_out=6))
    said = r"the fused engine can't run this model \(use --engine xla\): .* has CXX"
    with pytest.raises(UserError, match=said):
        check(other, ["L1"], ["float64"], engine="fused")


def test_an_engine_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="choose from xla, fused"):
        check(RECIPE, ["L0"], engine="fast")
