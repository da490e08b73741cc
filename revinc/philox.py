"""Counter-based random numbers: the same on every machine, readable from any point of the stream."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt64

WORDS_PER_COUNT = 4  # Philox 4x64 yields four words for each value of its counter


def philox_words(
    seed: int, stream: str, start: int, n_words: int
) -> UInt64[np.ndarray, " n_words"]:
    """`n_words` uniform 64-bit words, beginning at counter `start` of a named stream of `seed`.

    Raw Philox output (Salmon et al. 2011) is fixed by its specification, while the methods of
    `numpy.random.Generator` may change between numpy releases (NEP 19).
    """
    entropy = (seed, *stream.encode())
    key = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
    counter = np.array([start, 0, 0, 0], dtype=np.uint64)
    words: np.ndarray = np.random.Philox(key=key, counter=counter).random_raw(n_words)
    return words


def unit_interval(words: UInt64[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """float64 in [0, 1) from the high 53 bits of each word."""
    return (words >> np.uint64(11)) * 2.0**-53
