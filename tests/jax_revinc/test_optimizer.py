from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jax_revinc import numerics
from jax_revinc.optimizer import make_optimizer, optimizer_numbers

N_STEPS = 5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lr": 0.3, "weight_decay": 0.5},
        {"weight_decay": 0.0, "b1": 0.0, "b2": 0.5},
        {"adam_eps": 1e-2, "b1": 0.5},
        {"lr_schedule": "cosine", "steps": N_STEPS},
    ],
)
def test_updates_are_those_of_torch(tutorial, changes):
    torch = pytest.importorskip("torch")
    cfg = dataclasses.replace(tutorial, **changes)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3))
    grads = rng.normal(size=(N_STEPS, 4, 3))
    grads[:, 0] = 0  # weight decay alone
    grads[:, 1] *= 1e-9  # where epsilon counts

    theirs = torch.nn.Parameter(torch.tensor(start))
    torch_optimizer = torch.optim.AdamW(
        [theirs], cfg.lr, (cfg.b1, cfg.b2), cfg.adam_eps, cfg.weight_decay
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(torch_optimizer, N_STEPS)
    with numerics(tutorial.model.replace(dtype="float64")):
        optimizer = make_optimizer(*optimizer_numbers(cfg))
        ours = {"w": jax.numpy.asarray(start)}
        state = optimizer.init(ours)
        for grad in grads:
            updates, state = optimizer.update({"w": jax.numpy.asarray(grad)}, state, ours)
            ours = optax.apply_updates(ours, updates)
            theirs.grad = torch.tensor(grad)
            torch_optimizer.step()
            if cfg.lr_schedule == "cosine":
                cosine.step()
            np.testing.assert_allclose(ours["w"], theirs.detach().numpy(), rtol=0, atol=1e-12)
    assert not np.allclose(ours["w"], start)


def test_the_tutorials_defaults_are_torchs(tutorial):
    torch = pytest.importorskip("torch")
    defaults = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert (tutorial.b1, tutorial.b2) == defaults["betas"]
    assert tutorial.adam_eps == defaults["eps"]
    assert tutorial.weight_decay == defaults["weight_decay"]
