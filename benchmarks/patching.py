"""``python -m benchmarks.patching``: a patching sweep in JAX and in `transformer_lens.patching`.

Every layer and position of resid_pre, attn_out and mlp_out, and the output of every head, on all
pairs of a sequence of the tutorial's task and another one: clean run, cache and patched runs. Both
sides give the mean metric over all pairs, which is all that TransformerLens gives in one sweep.
For the metric of every pair it needs a sweep per pair (timed on a few, and multiplied). They are
timed in turn.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from transformer_lens import patching as reference

from benchmarks.comparison import Comparison
from benchmarks.interleaving import Timing, interleave
from benchmarks.stopwatch import seconds, with_threads
from jax_revinc import PRESETS, HookedTransformer
from jax_revinc.analysis.patching import patch_sweep
from jax_revinc.training import draw_weights
from parity import to_torch
from revinc.interrupts import run_to_exit

SITES = ("resid_pre", "attn_out", "mlp_out", "z")
OUR_SWEEPS = 50
"""Our sweeps per round: enough to drown the clock, and the caches that the others leave."""

PAIRS_TIMED = 2
"""Pairs that TransformerLens sweeps one by one in each round."""

SAME_NUMBERS_BOUND = 1e-4
"""Before they are timed, both sweeps must agree normwise, in float32."""


def metric_per_pair(logits):  # type: ignore[no-untyped-def]
    """The logit of token 0 minus that of token 1 at the last position, [pair]."""
    return logits[:, -1, 0] - logits[:, -1, 1]


def time_sweeps(rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds of our first sweep, compilation included, and of a sweep by program.

    Raises:
        AssertionError: if the numbers of the two sides differ.
    """
    cfg = PRESETS["tutorial"]
    ours = HookedTransformer(cfg.model, params=draw_weights(cfg))
    theirs: Any = to_torch(ours)
    clean = cfg.task.sequences()[:, :-1]
    corrupted = np.random.default_rng(0).permutation(clean)
    n_pairs = len(clean)
    reference.tqdm = lambda rows: rows  # type: ignore[attr-defined]  # no progress bars

    def our_sweep() -> dict[str, np.ndarray]:
        found = patch_sweep(ours, clean, corrupted, metric_per_pair, SITES)
        return jax.tree.map(np.asarray, found.patched)

    def their_sweep(pairs: slice) -> list[np.ndarray]:
        from_tokens = torch.tensor(clean[pairs], dtype=torch.long)
        into_tokens = torch.tensor(corrupted[pairs], dtype=torch.long)
        with torch.no_grad():
            _, cache = theirs.run_with_cache(from_tokens)
            given = (theirs, into_tokens, cache, lambda logits: metric_per_pair(logits).mean())
            by_block = reference.get_act_patch_block_every(*given)
            heads = reference.get_act_patch_attn_head_out_by_pos(*given)
        return [*by_block.numpy(), heads.numpy()]

    begin = time.perf_counter()
    found = our_sweep()
    first = time.perf_counter() - begin
    for name, expected in zip(SITES, their_sweep(slice(None)), strict=True):
        difference = np.abs(found[name].mean(-1) - expected).max()
        assert difference <= SAME_NUMBERS_BOUND * np.abs(expected).max(), name

    def one_by_one() -> float:
        sweeps = [seconds(partial(their_sweep, slice(i, i + 1))) for i in range(PAIRS_TIMED)]
        return float(np.mean(sweeps)) * n_pairs

    def ours_warm() -> float:
        return seconds(lambda: [our_sweep() for _ in range(OUR_SWEEPS)]) / OUR_SWEEPS

    contenders = {"JAX, every pair": ours_warm}
    for threads in sorted({1, torch.get_num_threads()}, reverse=True):
        batched = with_threads(threads, lambda: seconds(lambda: their_sweep(slice(None))))
        contenders[f"TransformerLens 3.9, mean over pairs, torch threads: {threads}"] = batched
    contenders["TransformerLens 3.9, every pair, torch threads: 1"] = with_threads(1, one_by_one)
    return first, interleave(contenders, rounds)


COMPARISON = Comparison(
    "benchmarks.patching", __doc__, time_sweeps, "patching sweep", "the first JAX sweep"
)

if __name__ == "__main__":
    run_to_exit(COMPARISON.main)
