"""How many threads torch computes in: tiny tensors take longer in several than in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from revinc import HookedTransformerConfig

TINY = 2**20
"""The numbers in a model's largest activation up to which one thread is faster.

The tutorial's model has 16 thousand, and trains nine times as fast in one thread as in two. Its
bits are the same. Several threads may round a larger model otherwise.
"""


def fitting_threads(cfg: HookedTransformerConfig, batch_size: int) -> int:
    """The number of threads for batches of a model: one if it is tiny, else torch's own choice."""
    widest = max(cfg.d_model, cfg.d_mlp or 0, cfg.n_heads * cfg.n_ctx, cfg.d_vocab_out)
    return 1 if batch_size * cfg.n_ctx * widest <= TINY else torch.get_num_threads()


@contextmanager
def threads(n: int) -> Iterator[None]:
    """A context manager in which torch computes in `n` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
