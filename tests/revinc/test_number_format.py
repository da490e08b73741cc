"""The words for shares: nothing is called whole that is not."""

import math

import pytest

from revinc.number_format import percent, percentage


@pytest.mark.parametrize(
    ("solved", "said"),
    [(1, "100%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999999, "99.99999%"), (0.07, "7%")],
)
def test_the_share_that_solves_a_task_is_not_rounded(solved, said):
    assert percent(solved) == said


@pytest.mark.parametrize(
    ("share", "decimals", "said"),
    [
        (1.0, 2, "100%"),
        (0.999, 2, "99.90%"),
        (0.99999, 2, "99.99%"),
        (0.99999, 1, "99.9%"),
        (0.9996, 0, "99%"),
        (0.12345, 2, "12.35%"),
        (0.0, 1, "0.0%"),
        (-0.0001, 0, "0%"),
        (1.123, 0, "112%"),
        (-0.25, 1, "-25.0%"),
        (math.nan, 1, "nan%"),
    ],
)
def test_a_share_is_rounded_and_100_only_if_it_is_a_whole(share, decimals, said):
    assert percentage(share, decimals) == said
