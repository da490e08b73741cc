"""Faults planted in the port are caught: by the level of the judge, and in the place, that they should be.

A fault is a piece of source that reads otherwise, in a copy of its module that stands in for the module
wherever it is imported. ``docs/mutants.md`` is the table of what was found; after a change to it:

    WRITE_DOCS=1 python -m pytest -m slow tests/parity/test_mutants.py
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import jax
import pytest
from mutants import of_family, of_model, of_training
from mutants.planting import RECIPE, planted

from jax_revinc import HookedTransformer
from parity import bridge, training_levels
from parity.check import OF_MODELS
from parity.inputs import Inputs
from parity.levels import TITLES
from parity.model_levels import check_level, check_names
from parity.model_pair import Pair
from revinc import TrainConfig
from revinc.tasks import eval_positions
from torch_reference.installed_transformer_lens import WORLD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WORLD != "3.9", reason="the table is of TransformerLens 3.9"),
]

MUTANTS = [*of_model.MUTANTS, *of_family.MUTANTS, *of_training.MUTANTS]
INPUTS = Inputs(RECIPE.task.sequences()[3::16], eval_positions(RECIPE.task))

PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"


@dataclass(frozen=True)
class Found:
    """What the judge said of a mutant: the first level that failed, and where the failure begins."""

    level: str
    place: str


@pytest.fixture(scope="module")
def judging(random_weights):
    """A function from a recipe to one that judges our side as it is now: the first level that fails, or None.

    Torch's run is made once, before any fault, unless it is asked for `fresh`.
    """

    def reference(cfg):
        weights = random_weights(cfg)
        for name in weights:  # a neuron that is always at the kink of its ReLU
            if name.endswith((".mlp.W_in", ".mlp.b_in")):
                weights[name][..., 0] = 0
        return bridge.to_torch(HookedTransformer(cfg, params=weights))

    def checks(recipe, theirs):
        pair = Pair(bridge.from_torch(theirs), theirs, INPUTS)
        return {
            "L0": partial(check_names, pair),
            **{name: partial(check_level, name, pair, "float64") for name in OF_MODELS[1:]},
            "L4": partial(training_levels.check_optimizer, recipe, "float64"),
            "L5": partial(training_levels.check_every_step, recipe),
        }

    @cache
    def judging(recipe):
        theirs, trajectory = reference(recipe.model), training_levels.torch_trajectory(recipe)

        def judge(last="L5", fresh=False):
            with pytest.MonkeyPatch.context() as patch:
                if not fresh:
                    patch.setattr(training_levels, "torch_trajectory", lambda _: trajectory)
                for name in (name for name in TITLES if name <= last):
                    # A program that runs once costs more to compile than to interpret; L3 and L5 hold loops.
                    with jax.disable_jit(name in ("L0", "L1", "L2")):
                        level = checks(recipe, theirs)[name]()
                    if not level.passed:
                        return Found(name, where(level))
            return None

        return judge

    return judging


@pytest.fixture(scope="module")
def find(judging):
    """A function from a mutant to what is found of it; None if it survives. Each is judged once."""

    @cache
    def find(mutant):
        judge = judging(mutant.recipe)
        with planted(mutant):
            return judge(fresh=is_shared(mutant))

    return find


def is_shared(mutant):
    """Whether torch's side runs the module too: then it must run with the fault, as in a check of a user's."""
    return any(module.__name__.split(".")[0] == "revinc" for module in mutant.modules)


def where(level):
    """The tensor that the level blames: its diagnosis' if it makes one, else the first that failed."""
    blamed = [re.match(r"first divergence: ([\w.]+)", remark) for remark in level.remarks]
    names = [match[1] for match in blamed if match]
    return (names or [level.failures[0].name.split(": ")[-1]])[0]


LAST_LEVELS: dict[TrainConfig, str] = {}
"""The last level that a recipe's faults are judged by."""
for each in MUTANTS:
    LAST_LEVELS[each.recipe] = max(each.level, LAST_LEVELS.get(each.recipe, ""))


@pytest.mark.parametrize(("recipe", "last"), LAST_LEVELS.items())
def test_there_is_no_difference_where_no_fault_is_planted(recipe, last, judging):
    assert judging(recipe)(last) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_the_fault_is_caught_by_its_level_in_its_place(mutant, find):
    found = find(mutant)
    assert found is not None, "the mutant survives"
    assert (found.level, found.place) == (mutant.level, mutant.place)


def test_the_table_in_the_docs_is_what_was_found(find):
    rows = [
        f"| {mutant.fault} | {mutant.kind} | {found.level} | `{found.place}` |"
        for mutant in MUTANTS
        if (found := find(mutant))
    ]
    text = HEAD.format(n=len(rows), levels=levels_in_words()) + "\n".join(rows) + "\n"
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def levels_in_words():
    counted = {name: sum(mutant.level == name for mutant in MUTANTS) for name in TITLES}
    return ", ".join(f"{name} {count}" for name, count in counted.items() if count)


HEAD = """\
# Planted faults

{n} faults, each planted in a copy of the port, its optimizer, its training or the conversion of weights, and the result
of the parity check in float64: the first level that fails, and the tensor at which it says that the difference begins.
Caught by level: {levels}.
A fault in a part that only some models have is planted in such a model.

A test makes this table. It fails if a fault is not caught, or is caught by another level or at another tensor:
`WRITE_DOCS=1 python -m pytest -m slow tests/parity/test_mutants.py`.

A fault in the schedule of batches, in the data set or in the random numbers is planted in code that both frameworks run. L5 finds it
in any check, because torch then trains on examples that the reference draws a second time, by itself (`torch_reference/batches.py`).

The parity check can't find these faults, so other tests look for them:

- in a query all of whose scores a hook made infinite (interventions skip infinite scores);
- in the loss over all positions that `return_type="loss"` gives;
- in code that both frameworks share: the sequences of a task, its eval positions and train positions, and the reading of
  a config. For the tutorial's training config, L7 compares with outcomes that were stored before.

| fault | planted in | first seen by | where it begins |
|---|---|---|---|
"""
