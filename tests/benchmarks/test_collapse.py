"""What is told of each update is what the engine did."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.collapse import Update, draw, follow, norm, sheet
from jax_revinc import PRESETS
from jax_revinc.engines import make_engine
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.objective import mean_loss
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset

CFG = dataclasses.replace(PRESETS["tutorial"], steps=12, eval_every=4)
BEGIN = 6


@pytest.fixture(scope="module")
def updates():
    return list(follow(CFG, BEGIN))


@pytest.fixture(scope="module")
def engine():
    return make_engine(CFG, "fused")


def test_the_updates_are_those_of_the_run(updates, engine):
    data, losses = make_dataset(CFG), []
    state = engine.start(draw_weights(CFG))
    for start in range(0, CFG.steps, 4):
        state, of_chunk = engine.advance(state, data.rows(start, start + 4))
        losses.extend(of_chunk.tolist())
    assert [update.step for update in updates] == list(range(BEGIN + 1, CFG.steps + 1))
    assert [update.loss for update in updates] == losses[BEGIN:]
    assert updates[-1].holdout_accuracy == engine.evaluate(state)["holdout_accuracy"]


def test_the_gradient_is_that_of_the_batch(updates, engine):
    data, key = make_dataset(CFG), make_program_key(CFG)
    state, _ = engine.advance(engine.start(draw_weights(CFG)), data.rows(0, 4))
    state, _ = engine.advance(state, data.rows(4, BEGIN))
    tokens, rows = data.examples(data.rows(BEGIN, BEGIN + 1))
    gradient = jax.grad(lambda p: mean_loss(CFG.model, p, tokens[rows[0]], key.objective))(
        engine.weights(state)
    )
    whole = np.concatenate([np.ravel(array) for array in gradient.values()])
    assert updates[0].gradient == pytest.approx(norm(whole), rel=1e-4)


def test_a_change_is_what_the_ratio_to_the_second_moments_allows(updates):
    """No update of Adam moves a parameter by more than lr (1 - b1) / sqrt(1 - b2), apart from its decay."""
    for update in updates:
        assert 0 < update.change < 1.1 * CFG.lr * 0.1 / np.sqrt(1e-3) * np.sqrt(285)
        assert update.surprise > 0
        assert update.memory > 0


def test_a_table_has_a_line_for_each_update():
    lines = sheet([Update(3860, 0.1234, 10.9, 0.57, 193.3, 0.233, 0.71)]).as_markdown().splitlines()
    assert lines[2:] == ["| 3,860 | 0.12 | 10.9 | 0.57 | 193 | 0.23 | 71.0% |"]
    assert len({line.count("|") for line in lines}) == 1


def test_the_picture_is_the_same_for_the_same_updates(updates, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        draw(updates, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
