from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from revinc import UserError
from revinc.errors import near_names, shown
from revinc.validation import (
    plain,
    require_bool,
    require_choice,
    require_index,
    require_int,
    require_ints,
    require_number,
)

torch = pytest.importorskip("torch")

INTEGERS = {
    "python": 3,
    **{name: np.dtype(name).type(3) for name in ("int8", "uint16", "int32", "uint64")},
    "numpy array": np.array(3),
    "jax": jnp.int32(3),
    "jax array": jnp.asarray(3),
    "torch": torch.tensor(3),
}

NUMBERS = {
    "python": 1.5,
    **{name: np.dtype(name).type(1.5) for name in ("float16", "float32", "float64", "longdouble")},
    "bfloat16": ml_dtypes.bfloat16(1.5),
    "numpy array": np.array(1.5, np.float32),
    "jax": jnp.asarray(1.5),
    "jax bfloat16": jnp.bfloat16(1.5),
    "torch": torch.tensor(1.5),
    "torch bfloat16": torch.tensor(1.5, dtype=torch.bfloat16),
}

BOOLS = {"numpy": np.True_, "array": np.array(True), "jax": jnp.array(True), "torch": torch.tensor(True)}  # fmt: skip

ODD = {
    "None": None,
    "text": "3",
    "list": [3],
    "array": np.array([3]),
    "jax array": jnp.array([3]),
    "torch array": torch.tensor([3]),
    "complex": 3j,
    "numpy complex": np.complex64(3),
    "date": np.datetime64("2020-01-01"),
    "type": int,
    "dict": {},
    "bool": True,
    **BOOLS,
}


@pytest.mark.parametrize("value", INTEGERS.values(), ids=INTEGERS)
def test_integers_of_all_kinds_become_pythons(value):
    for number in (require_int("n", value), require_index("n", value, 4)):
        assert number == 3
        assert type(number) is int
    assert require_number("x", value) == 3.0
    assert type(require_number("x", value)) is float


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_all_kinds_become_pythons_and_are_no_integers(value):
    assert require_number("x", value) == 1.5
    assert type(require_number("x", value)) is float
    with pytest.raises(UserError, match="n must be an integer"):
        require_int("n", value)


@pytest.mark.parametrize("value", BOOLS.values(), ids=BOOLS)
def test_bools_of_all_kinds_become_pythons(value):
    assert require_bool("b", value) is True


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_what_is_no_number_is_refused_on_one_line(value):
    for require in (require_int, require_number):
        with pytest.raises(UserError, match=r"^n must be an? .*, not .") as caught:
            require("n", value)
        assert "\n" not in str(caught.value)


def test_a_traced_value_is_no_number():
    with pytest.raises(UserError, match="must be an integer"):
        jax.jit(lambda n: require_int("n", n))(3)


def test_4_0_is_no_integer():
    with pytest.raises(UserError, match=r"n must be an integer, not 4\.0"):
        require_int("n", 4.0)


@pytest.mark.parametrize("digits", [400, 5000])
def test_integers_with_many_digits_are_refused_and_shown_shortened(digits):
    for require, bounds in [(require_int, {"below": 2**31}), (require_number, {})]:
        with pytest.raises(UserError) as caught:
            require("n", 10**digits, **bounds)
        assert len(str(caught.value)) < 150


def test_bounds_are_named():
    for bounds, value, said in [
        ({"at_least": 1}, 0, "n must be at least 1, not 0"),
        ({"below": 2**32}, 2**32, "n must be below 2**32, not 4294967296"),
        ({"below": 1024}, 1024, "n must be below 1024, not 1024"),
    ]:
        with pytest.raises(UserError) as caught:
            require_int("n", value, **bounds)
        assert str(caught.value) == said
    for bounds, value, said in [
        ({"above": 0}, 0.0, "x must be a finite number above 0, not 0.0"),
        ({"at_least": 0, "below": 1}, 1, "x must be a finite number at least 0 and below 1, not 1"),
        ({}, float("nan"), "x must be a finite number, not nan"),
    ]:
        with pytest.raises(UserError) as caught:
            require_number("x", value, **bounds)
        assert str(caught.value) == said


@pytest.mark.parametrize(
    "dtype", [np.float32, np.dtype("float32"), jnp.float32, torch.float32, "float32"]
)
def test_a_dtype_is_its_name(dtype):
    assert require_choice("dtype", dtype, ("float32", "float64")) == "float32"
    assert type(plain(np.str_("float32"))) is str


@pytest.mark.parametrize(
    "value", [float, np.float16, np.zeros(3, np.float32), np.float32(1), [], {}, 5, None]
)
def test_what_names_nothing_is_no_choice(value):
    with pytest.raises(UserError, match=r"^unknown dtype .*; choose from "):
        require_choice("dtype", value, ("float32", "float64"))


@pytest.mark.parametrize(
    "values", [(1, 2), [1, np.int8(2)], range(1, 3), np.array([1, 2]), jnp.array([1, 2])]
)
def test_several_integers_become_a_tuple(values):
    assert require_ints("n", values) == (1, 2)
    assert {type(n) for n in require_ints("n", values)} == {int}


def test_near_names_mind_no_case():
    known = ("relu", "LN", "LNPre", "L0H0")
    assert near_names("ReLU", known) == "; did you mean relu?"
    assert near_names("ln", known) == "; did you mean LN?"
    assert near_names("l0h0", known) == "; did you mean L0H0?"
    assert near_names("x" * 10**6, known) == ""


def test_what_is_shown_is_short_and_on_one_line():
    class Bad:
        def __repr__(self):
            raise RuntimeError

    assert shown("text") == "'text'"
    assert len(shown("x" * 10**6)) == 75
    assert shown(10**5000) == "a int too long to show"
    assert shown(Bad()) == "a Bad too long to show"
    assert "\n" not in shown(np.zeros((5, 5)))
