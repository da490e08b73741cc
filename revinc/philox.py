"""Random numbers by Philox: the same on every machine, from any point of a random stream."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt64

WORDS_PER_COUNT = 4  # Philox 4x64 yields four words for each value of its counter


def philox_words(
    seed: int, stream: str, start: int, n_words: int
) -> UInt64[np.ndarray, " n_words"]:
    """Draw uniform random 64-bit integers (words). A seed has many independent, named streams.

    Raw Philox output (Salmon et al. 2011) is fixed by its specification, while the methods of
    `numpy.random.Generator` may change between numpy releases (NEP 19).

    Args:
        seed: the seed.
        stream: the name of one of the seed's independent streams.
        start: the counter at which to begin; each counter gives `WORDS_PER_COUNT` words.
        n_words: the number of words.
    """
    entropy = (seed, *stream.encode())
    key = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
    counter = np.array([start, 0, 0, 0], dtype=np.uint64)
    words: np.ndarray = np.random.Philox(key=key, counter=counter).random_raw(n_words)
    return words


def unit_interval(words: UInt64[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Convert random 64-bit words to uniform float64 numbers in [0, 1), by their high 53 bits."""
    return (words >> np.uint64(11)) * 2.0**-53
