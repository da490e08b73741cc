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
    SCHEDULES,
    Hyperparameters,
    make_optimizer,
    optimizer_settings,
    scheduled,
)
from revinc import optimizer_fields
from revinc.sweep import SWEPT, is_numeric

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
    {"lr_schedule": "cosine", "lr_end": 0.03},
    {"lr_schedule": "linear", "lr_end": 2e-3, "clip_grad_norm": 0.5},
    {"optimizer": "adam", "b1": 0.8, **NO_DECAY},
    {"optimizer": "rmsprop", "b2": 0.9, "adam_eps": 1e-3, **NO_DECAY},
    {"optimizer": "rmsprop", "lr_schedule": "linear", **NO_DECAY},
    {"optimizer": "sgd", "clip_grad_norm": 1.0, **NO_DECAY},
    {"optimizer": "sgd", "momentum": 0.9, "lr_schedule": "cosine", **NO_DECAY},
]


def lion(cfg):
    """Lion by hand (Chen et al. 2023, arXiv:2302.06675, algorithm 2): a function from a rate, weight and gradient to the weight."""
    moment = 0.0

    def update(rate, weight, grad):
        nonlocal moment
        direction = np.sign(cfg.b1 * moment + (1 - cfg.b1) * grad)
        moment = cfg.b2 * moment + (1 - cfg.b2) * grad
        return weight - rate * (direction + cfg.weight_decay * weight)

    return update


def nadamw(cfg):
    """Nadam by hand (Dozat 2016, algorithm 2, whose momentum is constant here), with decoupled weight decay: see `lion`."""
    step, first, second = 0, 0.0, 0.0

    def update(rate, weight, grad):
        nonlocal step, first, second
        step += 1
        first = cfg.b1 * first + (1 - cfg.b1) * grad
        second = cfg.b2 * second + (1 - cfg.b2) * grad**2
        ahead = cfg.b1 * first / (1 - cfg.b1 ** (step + 1))
        now = (1 - cfg.b1) * grad / (1 - cfg.b1**step)
        root = np.sqrt(second / (1 - cfg.b2**step))
        return weight - rate * ((ahead + now) / (root + cfg.adam_eps) + cfg.weight_decay * weight)

    return update


BY_HAND = {"lion": lion, "nadamw": nadamw}
"""The optimizers that torch lacks, in plain numpy."""

RECIPES_BY_HAND = [
    {},
    {"lr": 0.3, "weight_decay": 0.5},
    {"b1": 0.5, "b2": 0.7, "weight_decay": 0.0},
    {"b1": 0.8, "b2": 0.6, "lr_schedule": "cosine", "lr_end": 0.03},
    {"lr_schedule": "linear", "clip_grad_norm": 0.5, "warmup_steps": 7},
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
        fixed, rates = optimizer_settings(cfg)
        ours = jax.jit(trajectory, static_argnums=0)(fixed, rates, start, grads)

    weight = torch.nn.Parameter(torch.tensor(start))
    name, arguments = THEIRS[cfg.optimizer]
    optimizer = getattr(torch.optim, name)([weight], lr=cfg.lr, **arguments(cfg))
    schedules = torch.optim.lr_scheduler
    schedule = {
        "constant": lambda: schedules.ConstantLR(optimizer, 1.0),
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, N_STEPS, cfg.lr_end),
        "linear": lambda: schedules.LinearLR(optimizer, 1.0, cfg.lr_end / cfg.lr, N_STEPS),
    }[cfg.lr_schedule]()
    for grad, our_weight in zip(grads, ours, strict=True):
        if cfg.clip_grad_norm is not None:
            grad = grad * min(1, cfg.clip_grad_norm / np.linalg.norm(grad))
        weight.grad = torch.tensor(grad)
        optimizer.step()
        schedule.step()
        np.testing.assert_allclose(our_weight, weight.detach().numpy(), rtol=0, atol=1e-12)
    assert not np.allclose(ours[-1], start)


@pytest.mark.parametrize("changes", [*RECIPES_BY_HAND, {"adam_eps": 1e-2}], ids=str)
@pytest.mark.parametrize("optimizer", BY_HAND)
def test_updates_that_torch_lacks_are_those_by_hand(optimizer, changes):
    if "adam_eps" in changes and "adam_eps" not in optimizer_fields.OPTIMIZERS[optimizer]:
        pytest.skip("it has no epsilon")
    cfg = recipe(optimizer=optimizer, **changes)
    weight, grads = np.random.default_rng(1).normal(size=(4, 3)), gradients()
    with numerics(cfg.model):
        fixed, rates = optimizer_settings(cfg)
        ours = jax.jit(trajectory, static_argnums=0)(fixed, rates, weight, grads)

    update = BY_HAND[optimizer](cfg)
    for step, (grad, our_weight) in enumerate(zip(grads, ours, strict=True)):
        if cfg.clip_grad_norm is not None:
            grad = grad * min(1, cfg.clip_grad_norm / np.linalg.norm(grad))
        weight = update(rate_by_hand(cfg, step), weight, grad)
        np.testing.assert_allclose(our_weight, weight, rtol=0, atol=1e-12)


def rate_by_hand(cfg, step):
    """The learning rate of an update, written out."""
    if step < cfg.warmup_steps:
        return cfg.lr * step / cfg.warmup_steps
    done = (step - cfg.warmup_steps) / (N_STEPS - cfg.warmup_steps)
    left = {"constant": 1, "cosine": (1 + np.cos(np.pi * done)) / 2, "linear": 1 - done}
    share = left[cfg.lr_schedule]
    return cfg.lr * share + cfg.lr_end * (1 - share)


def test_every_optimizer_is_compared_with_another_program():
    assert sorted([*THEIRS, *BY_HAND]) == sorted(OPTIMIZERS)


def test_the_tutorials_defaults_are_torchs(tutorial):
    torch = pytest.importorskip("torch")
    defaults = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert (tutorial.b1, tutorial.b2) == defaults["betas"]
    assert tutorial.adam_eps == defaults["eps"]
    assert tutorial.weight_decay == defaults["weight_decay"]


def test_both_sides_know_the_same_names():
    assert OPTIMIZERS.keys() == optimizer_fields.OPTIMIZERS.keys()
    assert optimizer_fields.MOMENTS.keys() == optimizer_fields.OPTIMIZERS.keys()
    assert SCHEDULES.keys() == optimizer_fields.LR_SCHEDULES.keys()


def test_every_swept_number_of_the_optimizer_is_traced():
    assert Hyperparameters._fields == tuple(name for name in SWEPT if is_numeric(name))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_may_have_an_axis_and_each_field_that_is_taken_matters(optimizer):
    taken = optimizer_fields.OPTIMIZERS[optimizer]
    others = {"b1": 0.5, "b2": 0.9, "adam_eps": 1e-2, "momentum": 0.5}
    decays = (0.0, 0.3) if "weight_decay" in taken else (0.0, 0.0)
    cfg = recipe(optimizer=optimizer, weight_decay=decays[0])
    start, grads = np.random.default_rng(1).normal(size=(4, 3)), gradients()[:20]
    with numerics(cfg.model):
        fixed, _ = optimizer_settings(cfg)
        each = Hyperparameters(np.array([0.1, 0.01]), np.array(decays), np.zeros(2))
        over = jax.jit(jax.vmap(trajectory, in_axes=(None, 0, None, None)), static_argnums=0)
        together = over(fixed, each, start, grads)
        for i, alone in enumerate(zip(*each, strict=True)):
            expected = trajectory(fixed, Hyperparameters(*alone), start, grads)
            np.testing.assert_allclose(together[i], expected, rtol=1e-14)
        for field, value in others.items():
            if field in taken:
                other, _ = optimizer_settings(dataclasses.replace(cfg, **{field: value}))
                changed = trajectory(other, Hyperparameters(0.1, 0.0, 0.0), start, grads)
                assert not np.allclose(changed, together[0]), field


@settings(max_examples=30)
@given(
    name=st.sampled_from(list(optimizer_fields.LR_SCHEDULES)),
    steps=st.integers(2, 50),
    warmup=st.integers(0, 49),
    lr=st.just(0.0) | st.floats(1e-6, 10),
    lr_end=st.just(0.0) | st.floats(1e-6, 10),
)
def test_the_rate_of_the_engine_is_that_of_the_config(name, steps, warmup, lr, lr_end):
    lr_end = 0.0 if name == "constant" else lr_end
    cfg = recipe(lr=lr, lr_schedule=name, lr_end=lr_end, warmup_steps=min(warmup, steps - 1))
    cfg = dataclasses.replace(cfg, steps=steps)
    counts = np.arange(60, dtype=np.int32)
    with numerics(cfg.model):
        schedule = optimizer_settings(cfg)[0].schedule
        rate = scheduled(jnp.asarray(lr), jnp.asarray(lr_end), schedule)
        ours = rate(counts) if callable(rate) else np.full(len(counts), rate)
    expected = [cfg.learning_rate(int(count)) for count in counts]
    np.testing.assert_allclose(ours, expected, rtol=1e-14, atol=max(lr, lr_end) * 1e-15)


def test_what_has_no_effect_is_left_alone():
    fixed, rates = optimizer_settings(recipe(weight_decay=0.5))
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
