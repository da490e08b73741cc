from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_revinc import TrainConfig, numerics
from jax_revinc.optimizer import (
    OPTIMIZERS,
    Rates,
    make_optimizer,
    optimizer_numbers,
    scheduled,
)
from revinc import optimization

N_STEPS = 60
FLOAT64 = TrainConfig().model.replace(dtype="float64")
NO_DECAY = {"weight_decay": 0.0}


def recipe(**changes):
    return TrainConfig(model=FLOAT64, steps=N_STEPS, **changes)


def of_adam(cfg):
    return {"betas": (cfg.b1, cfg.b2), "eps": cfg.adam_eps}


THEIRS = {
    "adamw": ("AdamW", lambda cfg: of_adam(cfg) | {"weight_decay": cfg.weight_decay}),
    "adam": ("Adam", of_adam),
    "rmsprop": ("RMSprop", lambda cfg: {"alpha": cfg.b2, "eps": cfg.adam_eps}),
    "sgd": ("SGD", lambda cfg: {"momentum": cfg.momentum}),
}
"""torch's optimizer for each of optax's that it has, and its arguments."""

RECIPES = [
    {},
    {"lr": 0.3, "weight_decay": 0.5},
    {"weight_decay": 0.0, "b1": 0.0, "b2": 0.5},
    {"adam_eps": 1e-2, "b1": 0.5},
    {"lr_schedule": "cosine"},
    {"lr_schedule": "linear", "clip_grad_norm": 0.5},
    {"optimizer": "adam", "b1": 0.8, **NO_DECAY},
    {"optimizer": "rmsprop", "b2": 0.9, "adam_eps": 1e-3, **NO_DECAY},
    {"optimizer": "rmsprop", "lr_schedule": "linear", **NO_DECAY},
    {"optimizer": "sgd", "clip_grad_norm": 1.0, **NO_DECAY},
    {"optimizer": "sgd", "momentum": 0.9, "lr_schedule": "cosine", **NO_DECAY},
]


def gradients():
    grads = np.random.default_rng(0).normal(size=(N_STEPS, 4, 3))
    grads[:, 0] = 0  # weight decay alone
    grads[:, 1] *= 1e-9  # where epsilon counts
    return grads


def trajectory(fixed, rates, start, grads):
    """The parameter after every step."""

    def step(carry, grad):
        params, state = carry
        updates, state = make_optimizer(fixed, rates).update({"w": grad}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    params = {"w": jnp.asarray(start)}
    return jax.lax.scan(step, (params, make_optimizer(fixed, rates).init(params)), grads)[1]


@pytest.mark.parametrize("changes", RECIPES, ids=str)
def test_updates_are_those_of_torch(changes):
    torch = pytest.importorskip("torch")
    cfg = recipe(**changes)
    start, grads = np.random.default_rng(1).normal(size=(4, 3)), gradients()
    with numerics(cfg.model):
        fixed, rates = optimizer_numbers(cfg)
        ours = jax.jit(trajectory, static_argnums=0)(fixed, rates, start, grads)

    weight = torch.nn.Parameter(torch.tensor(start))
    name, arguments = THEIRS[cfg.optimizer]
    optimizer = getattr(torch.optim, name)([weight], lr=cfg.lr, **arguments(cfg))
    schedules = torch.optim.lr_scheduler
    schedule = {
        "constant": lambda: schedules.ConstantLR(optimizer, 1.0),
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, N_STEPS),
        "linear": lambda: schedules.LinearLR(optimizer, 1.0, 0.0, N_STEPS),
    }[cfg.lr_schedule]()
    for grad, our_weight in zip(grads, ours, strict=True):
        if cfg.clip_grad_norm is not None:
            grad = grad * min(1, cfg.clip_grad_norm / np.linalg.norm(grad))
        weight.grad = torch.tensor(grad)
        optimizer.step()
        schedule.step()
        np.testing.assert_allclose(our_weight, weight.detach().numpy(), rtol=0, atol=1e-12)
    assert not np.allclose(ours[-1], start)


def test_the_tutorials_defaults_are_torchs(tutorial):
    torch = pytest.importorskip("torch")
    defaults = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert (tutorial.b1, tutorial.b2) == defaults["betas"]
    assert tutorial.adam_eps == defaults["eps"]
    assert tutorial.weight_decay == defaults["weight_decay"]


def test_both_sides_know_the_same_names():
    assert OPTIMIZERS.keys() == optimization.OPTIMIZERS.keys()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_may_have_an_axis_and_each_field_that_is_taken_matters(optimizer):
    taken = optimization.OPTIMIZERS[optimizer]
    others = {"b1": 0.5, "b2": 0.9, "adam_eps": 1e-2, "momentum": 0.5}
    decays = (0.0, 0.3) if "weight_decay" in taken else (0.0, 0.0)
    cfg = recipe(optimizer=optimizer, weight_decay=decays[0])
    start, grads = np.random.default_rng(1).normal(size=(4, 3)), gradients()[:20]
    with numerics(cfg.model):
        fixed, _ = optimizer_numbers(cfg)
        each = Rates(np.array([0.1, 0.01]), np.array(decays))
        over = jax.jit(jax.vmap(trajectory, in_axes=(None, 0, None, None)), static_argnums=0)
        together = over(fixed, each, start, grads)
        for i, alone in enumerate(zip(*each, strict=True)):
            expected = trajectory(fixed, Rates(*alone), start, grads)
            np.testing.assert_allclose(together[i], expected, rtol=1e-14)
        for field, value in others.items():
            if field in taken:
                other, _ = optimizer_numbers(dataclasses.replace(cfg, **{field: value}))
                changed = trajectory(other, Rates(0.1, 0.0), start, grads)
                assert not np.allclose(changed, together[0]), field


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(list(optimization.LR_SCHEDULES)),
    steps=st.integers(2, 50),
    warmup=st.integers(0, 49),
    lr=st.floats(1e-6, 10),
)
def test_the_rate_of_the_engine_is_that_of_the_config(name, steps, warmup, lr):
    cfg = recipe(lr=lr, lr_schedule=name, warmup_steps=min(warmup, steps - 1))
    cfg = dataclasses.replace(cfg, steps=steps)
    counts = np.arange(60, dtype=np.int32)
    with numerics(cfg.model):
        rate = scheduled(jnp.asarray(lr), optimizer_numbers(cfg)[0].schedule)
        ours = rate(counts) if callable(rate) else np.full(len(counts), rate)
    expected = [cfg.learning_rate(int(count)) for count in counts]
    np.testing.assert_allclose(ours, expected, rtol=1e-14, atol=lr * 1e-15)


def test_what_has_no_effect_is_left_alone():
    fixed, rates = optimizer_numbers(recipe(weight_decay=0.5))
    params = {"w": jnp.ones(3), "unread": jnp.ones(3)}
    optimizer = make_optimizer(fixed._replace(without_effect=frozenset({"unread"})), rates)
    grads = {"w": jnp.arange(3.0), "unread": jnp.zeros(3)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert not np.asarray(updates["unread"]).any()
    assert np.asarray(updates["w"]).all()


def test_a_warmup_is_optaxs_own():
    cfg = recipe(lr_schedule="cosine", warmup_steps=7)
    theirs = optax.warmup_cosine_decay_schedule(0.0, cfg.lr, 7, N_STEPS)
    rates = [cfg.learning_rate(step) for step in range(N_STEPS)]
    np.testing.assert_allclose(rates, [float(theirs(s)) for s in range(N_STEPS)], rtol=2e-5)
    assert rates[0] == 0
    assert rates[7] == max(rates) == cfg.lr
