"""The judges of the optimizer and of every step pass ours, and fail what is not AdamW."""

from dataclasses import replace

import numpy as np
import optax
import pytest

from jax_revinc import TrainConfig, UserError
from parity import training_levels
from parity.check import applicable_levels
from parity.training_levels import check_every_step, check_optimizer
from revinc.dataset import ListedDataset
from revinc.objective import Objective
from revinc.optimizer_fields import MOMENTS, OPTIMIZERS
from revinc.tasks import Copy
from revinc.trainer import Diverged
from torch_reference.installed_transformer_lens import WORLD
from torch_reference.optimizer import COUNTERPARTS

CFG = TrainConfig(steps=40)


NO_DECAY = {"weight_decay": 0.0}

RECIPES = [
    {},
    {"lr": 0.3, "weight_decay": 0.5},
    {"b1": 0.5, "b2": 0.9, "adam_eps": 1e-3},
    {"lr_schedule": "cosine", "warmup_steps": 10},
    {
        "lr_schedule": "linear",
        "lr_end": 0.02,
        "clip_grad_norm": 0.5,
        "loss_on": "all",
        "label_smoothing": 0.1,
    },
    {"optimizer": "adam", "clip_grad_norm": 0.1, **NO_DECAY},
    {"optimizer": "rmsprop", "b2": 0.9, "label_smoothing": 0.2, **NO_DECAY},
    {"optimizer": "sgd", "lr": 0.1, "loss_on": "all", **NO_DECAY},
    {"optimizer": "sgd", "momentum": 0.9, "warmup_steps": 10, **NO_DECAY},
]
KEPT = {"adamw": 2, "adam": 2, "rmsprop": 1, "sgd": 0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_one_step_of_the_optimizer_passes(dtype, changes):
    cfg = replace(CFG, **changes)
    level = check_optimizer(cfg, dtype)
    assert level.passed, level.failures
    n_moments = 1 if cfg.momentum else KEPT[cfg.optimizer]
    assert len(level.rows) == 4 * (1 + n_moments)


@pytest.mark.skipif(WORLD != "3.9", reason="rotary models are 3.9's")
@pytest.mark.slow
def test_every_step_passes_where_a_gradient_is_zero_in_a_part_of_a_tensor():
    partly_rotated = {"positional_embedding_type": "rotary", "d_head": 4, "rotary_dim": 2}
    model = CFG.model.replace(n_layers=1, **partly_rotated)
    level = check_every_step(replace(CFG, model=model))
    assert level.passed, level.failures


@pytest.mark.parametrize(
    "changes",
    [
        changes if fast else pytest.param(changes, marks=pytest.mark.slow)
        for changes, fast in zip(RECIPES[3:], (0, 1, 0, 0, 0, 0), strict=True)
    ],
    ids=str,
)
def test_every_step_of_a_run_passes_with_other_recipes(changes):
    if WORLD != "3.9" and "clip_grad_norm" in changes:
        pytest.skip(
            "the norm that is clipped lacks the gradient of 4.x's b_U, which is not trained"
        )
    model = CFG.model.replace(n_layers=1)
    level = check_every_step(replace(CFG, model=model, **changes))
    assert level.passed, level.failures


@pytest.mark.slow
def test_every_step_leaves_alone_what_has_no_effect():
    model = CFG.model.replace(positional_embedding_type="alibi", n_layers=1)
    cfg = replace(CFG, model=model, weight_decay=0.5)
    level = check_every_step(cfg)
    assert level.passed, level.failures
    (row,) = [row for row in level.rows if row.name == "pos_embed.W_pos"]
    assert row.error == 0


def test_an_optimizer_that_torch_lacks_is_named():
    cfg = replace(CFG, optimizer="lion")
    for judge in (check_every_step, lambda cfg: check_optimizer(cfg, "float64")):
        with pytest.raises(UserError, match="optimizer='lion' has no counterpart in torch"):
            judge(cfg)
    assert applicable_levels(cfg) == ["L0", "L1", "L2", "L3"]
    assert applicable_levels(CFG)[:7] == [f"L{level}" for level in range(7)]


def adamw(**changes):
    """Our optimizer with something else in place of what torch does."""
    return lambda fixed, rates: optax.adamw(
        **{
            "learning_rate": rates.lr,
            "b1": fixed.b1,
            "b2": fixed.b2,
            "eps": fixed.eps,
            "weight_decay": rates.weight_decay,
        }
        | changes
    )


def coupled(fixed, rates):
    """Weight decay as part of the gradient: Adam with an L2 penalty."""
    inner = optax.adamw(rates.lr, fixed.b1, fixed.b2, fixed.eps, weight_decay=0.0)

    def update(gradient, state, param):
        return inner.update(optax.tree.add_scale(gradient, rates.weight_decay, param), state, param)

    return optax.GradientTransformation(inner.init, update)


MUTANTS = {
    "optax's default weight decay": adamw(weight_decay=1e-4),
    "no weight decay": lambda fixed, rates: optax.adam(rates.lr, fixed.b1, fixed.b2, fixed.eps),
    "coupled weight decay": coupled,
    "epsilon inside the root": lambda fixed, rates: optax.adamw(
        rates.lr, fixed.b1, fixed.b2, 0.0, fixed.eps, weight_decay=rates.weight_decay
    ),
    "another b2": adamw(b2=0.99),
    "Nesterov momentum": adamw(nesterov=True),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_another_optimizer_fails_in_float64(monkeypatch, mutant):
    monkeypatch.setattr(training_levels, "make_optimizer", MUTANTS[mutant])
    assert not check_optimizer(CFG, "float64").passed


@pytest.fixture(scope="module")
def trajectory():
    cfg = training_levels.in_float64(CFG)
    return training_levels.torch_trajectory(cfg)


@pytest.fixture
def walk(monkeypatch, trajectory):
    """A function that judges every step of one torch run, walked only once."""
    monkeypatch.setattr(training_levels, "torch_trajectory", lambda cfg: trajectory)
    return lambda: check_every_step(CFG)


def test_every_step_of_a_run_passes(walk):
    level = walk()
    assert level.passed, level.failures
    assert len(level.rows) == 3 * 38
    zero = [row.name for row in level.rows if "zero gradient" in row.note]
    untrained = {row.name.split("/")[-1] for row in level.rows if row.known}
    b_K = {f"blocks.{layer}.attn.b_K" for layer in (0, 1)}
    assert {name.split("/")[-1] for name in zero} - untrained == b_K
    assert untrained == (set() if WORLD == "3.9" else {"unembed.b_U"})


@pytest.mark.slow
def test_every_step_agrees_on_a_task_that_is_drawn():
    model = CFG.model.replace(n_layers=1, n_ctx=16, d_vocab=9)
    level = check_every_step(replace(CFG, steps=20, task=Copy(length=8), model=model))
    assert level.passed, level.failures


def test_a_schedule_off_by_one_on_both_sides_fails_at_every_step(monkeypatch):
    rows = ListedDataset.rows
    monkeypatch.setattr(
        ListedDataset, "rows", lambda data, start, stop: rows(data, start + 1, stop + 1)
    )
    assert len(check_every_step(CFG).failures) > 90


def test_nothing_is_said_of_a_torch_run_that_diverges():
    wild = replace(CFG, lr=1e200, optimizer="sgd", weight_decay=0.0)
    with pytest.raises(Diverged, match="torch's loss became NaN or infinite at step 1,"):
        check_every_step(wild)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_step_of_ours_to_no_number_fails_whatever_torchs_is(walk, trajectory, monkeypatch, wrong):
    spoiled = trajectory | {"unembed.W_U": trajectory["unembed.W_U"].copy()}
    spoiled["unembed.W_U"][9, 2, 3] = wrong
    monkeypatch.setattr(training_levels, "torch_trajectory", lambda cfg: spoiled)
    assert "unembed.W_U" in {row.name for row in check_every_step(CFG).failures}


def test_a_loss_on_all_positions_fails(walk, monkeypatch):
    update = training_levels.update

    def on_all_positions(cfg, fixed, objective, *rest):
        return update(cfg, fixed, Objective(tuple(range(1, 9))), *rest)

    monkeypatch.setattr(training_levels, "update", on_all_positions)
    assert len(walk().failures) > 90


def test_one_wrong_step_is_named(walk, trajectory):
    wrong = {name: array.copy() for name, array in trajectory.items()}
    wrong["unembed.W_U"][17, 2, 3] += 1e-9
    trajectory_before = trajectory["unembed.W_U"]
    trajectory["unembed.W_U"] = wrong["unembed.W_U"]
    try:
        failed = {row.name: row for row in walk().failures}
    finally:
        trajectory["unembed.W_U"] = trajectory_before
    assert failed["unembed.W_U"].note == "worst at step 16"
    assert np.isclose(failed["unembed.W_U"].error, 1e-9, rtol=0.1)


def test_the_tables_of_optimizers_agree():
    """All of ours but two have a counterpart, and each of those the moments that are compared."""
    assert OPTIMIZERS.keys() - COUNTERPARTS.keys() == {"nadamw", "lion"}
    assert COUNTERPARTS.keys() <= OPTIMIZERS.keys()
    assert training_levels.MOMENTS.keys() == COUNTERPARTS.keys()
    for name, moments in training_levels.MOMENTS.items():
        assert len(moments) == MOMENTS[name] + (name == "sgd")  # which keeps one with momentum
