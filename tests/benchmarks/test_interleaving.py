import pytest

from benchmarks.interleaving import Timing, interleave


def test_contenders_take_turns():
    asked = []
    seconds = iter(range(1, 7))

    def contender(name):
        def run():
            asked.append(name)
            return next(seconds)

        return run

    timings = interleave({"a": contender("a"), "b": contender("b")}, 3, lambda name: None)
    assert asked == ["a", "b"] * 3
    assert timings == {"a": Timing("a", (1, 3, 5)), "b": Timing("b", (2, 4, 6))}


def test_whoever_follows_is_told_whose_turn_it_is():
    told = []
    interleave({"a": lambda: 1.0, "b": lambda: 2.0}, 2, told.append)
    assert told == ["a", "b", "a", "b"]


def test_ratios_are_taken_within_a_round():
    # The machine was ten times slower in the second round, and in the third for one of them alone.
    slow, fast = Timing("slow", (2.0, 20.0, 2.0)), Timing("fast", (1.0, 10.0, 10.0))
    assert slow.ratios_to(fast).seconds == (2.0, 2.0, 0.2)
    assert slow.ratio_to(fast) == 2.0
    assert slow.median / fast.median == pytest.approx(0.2)


def test_median_and_range():
    timing = Timing("x", (3.0, 1.0, 2.0))
    assert timing.median == 2.0
    assert timing.range == (1.0, 3.0)


def test_rounds_of_different_number_have_no_ratio():
    with pytest.raises(ValueError, match="longer"):
        Timing("a", (1.0,)).ratio_to(Timing("b", (1.0, 2.0)))
