from __future__ import annotations

import numpy as np

from revinc.philox import WORDS_PER_COUNT, philox_words, unit_interval


def test_a_stream_can_be_entered_at_any_count():
    whole = philox_words(3, "batches", 0, 40)
    for count in (1, 2, 7):
        rest = philox_words(3, "batches", count, 40 - count * WORDS_PER_COUNT)
        assert np.array_equal(whole[count * WORDS_PER_COUNT :], rest)


def test_seeds_and_streams_are_apart():
    streams = [philox_words(seed, name, 0, 8) for seed in (0, 1) for name in ("batches", "split")]
    assert len({words.tobytes() for words in streams}) == 4


def test_the_words_are_the_same_on_every_machine():
    # As computed by a pure-Python Philox 4x64-10, written from the paper.
    assert philox_words(0, "batches", 0, 3).tolist() == [
        15637557636326637794,
        16119746048472173500,
        16342682993513340132,
    ]


def test_unit_interval_never_reaches_one():
    extremes = unit_interval(np.array([0, 2**64 - 1], np.uint64))
    assert extremes.tolist() == [0.0, 1 - 2.0**-53]
