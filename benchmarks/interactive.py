"""Times what a person waits for who explores one model: calls, caches and hooks, outside ``jit``.

Each call is timed in turn with TransformerLens' on the same weights and tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from jax_revinc import HookedTransformer
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.weights.init import make_key
from parity import to_torch
from revinc import TrainConfig

BATCH, CALLS = 16, 20
"""Sequences of a call, and calls of a turn."""

N_CALLS = 8
"""How many kinds of calls are timed."""

JAX, TORCH = "jax", "torch"

Turn = Callable[[], float]
"""Returns the seconds of one call."""


def zero(activation: Any, hook: Any) -> Any:  # noqa: ARG001
    """A hook function that removes an activation."""
    return activation * 0


def calls(cfg: TrainConfig) -> dict[str, dict[str, Turn]]:
    """What is timed: by its title, a turn of each framework that can do it.

    Args:
        cfg: the training config, of which the model is used, on random tokens.
    """
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    sizes = cfg.model
    with numerics(sizes):
        ours = HookedTransformer(sizes, rngs=nnx.Rngs(make_key(0)))
        params = ours.params
    theirs: Any = to_torch(ours)
    rows = np.random.default_rng(0).integers(0, sizes.d_vocab, (512, sizes.n_ctx - 1))
    tokens = rows[:BATCH]
    their_tokens = torch.tensor(tokens).long()
    last = sizes.n_layers - 1
    one = [("blocks.0.hook_attn_out", zero)]
    three = [
        ("blocks.0.attn.hook_pattern", zero),
        (f"blocks.{last}.attn.hook_v", zero),
        (f"blocks.{last}.hook_resid_post", zero),
    ]
    jitted = jax.jit(lambda model, tokens: model(tokens))
    of_params = jax.jit(lambda params, tokens: HookedTransformer(sizes, params=params)(tokens))
    new_shapes = iter(range(BATCH + 1, len(rows)))
    return {
        "model(tokens)": both(lambda: ours(tokens), lambda: theirs(their_tokens)),
        "run_with_cache(tokens)": both(
            lambda: ours.run_with_cache(tokens), lambda: theirs.run_with_cache(their_tokens)
        ),
        "run_with_hooks, 1 hook": both(
            lambda: ours.run_with_hooks(tokens, fwd_hooks=one),
            lambda: theirs.run_with_hooks(their_tokens, fwd_hooks=one),
        ),
        "run_with_hooks, 3 hooks": both(
            lambda: ours.run_with_hooks(tokens, fwd_hooks=three),
            lambda: theirs.run_with_hooks(their_tokens, fwd_hooks=three),
        ),
        "a jitted function of the model": {JAX: turn(lambda: jitted(ours, tokens), sizes)},
        "a jitted function of parameters": {JAX: turn(lambda: of_params(params, tokens), sizes)},
        "the first call with a new shape": {JAX: first_call(ours, rows, new_shapes)},
        "making the model": {
            JAX: turn(lambda: HookedTransformer(sizes, params=params).params, sizes, n=3)
        },
    }


def both(ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Turn]:
    """The turns of a call of both frameworks."""
    return {JAX: turn(ours), TORCH: turn(theirs)}


def turn(call: Callable[[], Any], sizes: Any = None, n: int = CALLS) -> Turn:
    """A turn of `n` calls; with `sizes`, a model config, in its precision."""

    def timed() -> float:
        begin = time.perf_counter()
        for _ in range(n):
            jax.block_until_ready(call())
        return (time.perf_counter() - begin) / n

    def in_precision() -> float:
        with numerics(sizes):
            return timed()

    return timed if sizes is None else in_precision


def first_call(model: HookedTransformer, rows: np.ndarray, sizes: Iterator[int]) -> Turn:
    """A turn that calls a model with a batch size that it has not seen."""

    def timed() -> float:
        tokens = rows[: next(sizes)]
        begin = time.perf_counter()
        jax.block_until_ready(model(tokens))
        return time.perf_counter() - begin

    return timed


def time_calls(
    cfg: TrainConfig, rounds: int, follow: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of a call, per round, by title and framework; a round before these is not counted.

    Args:
        cfg: the training config.
        rounds: how often each call has its turn.
        follow: called with the title of each turn.
    """
    timed = calls(cfg)
    seconds: dict[str, dict[str, list[float]]] = {
        title: {framework: [] for framework in turns} for title, turns in timed.items()
    }
    for counted in [False] + [True] * rounds:
        for title, turns in timed.items():
            follow(title)
            for framework, run in turns.items():
                spent = run()
                if counted:
                    seconds[title][framework].append(spent)
    return seconds
