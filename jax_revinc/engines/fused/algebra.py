"""Scalar arithmetic that simplifies as it goes.

What is known is computed (in float64), and what follows from algebra is rewritten: constants are drawn out of
products, negations into differences, quotients become products with a reciprocal that others may share. So
results differ from XLA's in rounding. Beyond that:

- zero times anything is 0, and an infinity plus or minus anything is that infinity, where zero and infinity are
  constants: a masked attention score leaves no trace;
- ``x != x`` is false: a NaN is never replaced, it spreads to the loss and to the gradient.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TypeGuard

import numpy as np

from jax_revinc.engines.fused.dag import INT, MASK, Graph, Node, Scalar
from jax_revinc.engines.fused.errors import NotFusible

COMPARISONS: dict[str, Callable[[Scalar, Scalar], bool]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}

KNOWN: dict[str, Callable[[float], float]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "erfc": np.vectorize(math.erfc),
    "rcp": lambda x: np.divide(1.0, x),
}
"""The functions of one real number, where that is known."""


def is_constant(x: Scalar, value: float) -> bool:
    return not isinstance(x, Node) and x == value


def is_infinite(x: Scalar) -> bool:
    return not isinstance(x, Node) and math.isinf(x)


def is_int(x: Scalar) -> bool:
    return x.kind == INT if isinstance(x, Node) else type(x) is int


def is_negation(x: Scalar) -> TypeGuard[Node]:
    return isinstance(x, Node) and x.op == "neg"


def factors(x: Scalar) -> tuple[float, Scalar]:
    """A number and what is left, whose product is `x`."""
    if not isinstance(x, Node):
        return x, 1.0
    if x.op == "mul" and not isinstance(x.args[0], Node):
        return x.args[0], x.args[1]
    return (-1.0, x.args[0]) if x.op == "neg" else (1.0, x)


def bounds(x: Scalar) -> tuple[int, int]:
    """The least and the largest value of an integer."""
    return x.bounds if isinstance(x, Node) else (int(x), int(x))


def in_order(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """Operands whose order does not matter: a number first, then by creation."""
    if isinstance(a, Node) and (not isinstance(b, Node) or b.id < a.id):
        return b, a
    return a, b


class Algebra(Graph):
    """The operations on scalars. Truth values are bools or nodes of their own kind, integers have bounds."""

    def neg(self, a: Scalar) -> Scalar:
        if not isinstance(a, Node):
            return -a
        if is_int(a):
            return self.sub(0, a)
        if a.op == "neg":
            return a.args[0]
        if a.op == "sub":
            return self.sub(a.args[1], a.args[0])
        if a.op == "mul" and not isinstance(a.args[0], Node):
            return self.mul(-a.args[0], a.args[1])
        return self.make("neg", a)

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a + b
        if is_constant(a, 0) or is_infinite(b):
            return b
        if is_constant(b, 0) or is_infinite(a):
            return a
        if is_int(a):
            return self._on_ints("add", operator.add, *in_order(a, b))
        if is_negation(b):
            return self.sub(a, b.args[0])
        if is_negation(a):
            return self.sub(b, a.args[0])
        return self.make("add", *in_order(a, b))

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a - b
        if is_constant(b, 0) or is_infinite(a):
            return a
        if is_int(a):
            return self._on_ints("sub", operator.sub, a, b)
        if is_constant(a, 0) or is_infinite(b):
            return self.neg(b)
        if is_negation(b):
            return self.add(a, b.args[0])
        return self.make("sub", a, b)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a * b
        if is_int(a):
            return self._on_ints("mul", operator.mul, *in_order(a, b))
        (of_a, a), (of_b, b) = factors(a), factors(b)
        factor = of_a * of_b
        if factor == 0:
            return 0.0
        a, b = in_order(a, b)
        rest = b if is_constant(a, 1) else self.make("mul", a, b)
        if factor == 1:
            return rest
        return self.neg(rest) if factor == -1 else self.make("mul", factor, rest)

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        return self.mul(a, self.rcp(b))

    def rcp(self, a: Scalar) -> Scalar:
        """One divided by `a`."""
        if isinstance(a, Node):
            factor, rest = factors(a)
            if factor != 1:
                return self.mul(1 / factor, self.rcp(rest))
            if a.op == "rcp":
                return a.args[0]
            if a.op == "mul" and a.args[0] is a.args[1]:
                return self.square(self.rcp(a.args[0]))
        return self._of_one("rcp", a)

    def square(self, a: Scalar) -> Scalar:
        return self.mul(a, a)

    def integer_pow(self, a: Scalar, y: int) -> Scalar:
        """`a` to the power of `y`, by repeated squaring."""
        if y < 0:
            return self.integer_pow(self.rcp(a), -y)
        if y == 0:
            return 1.0
        if y == 1:
            return a
        half = self.integer_pow(a, y // 2)
        return self.mul(self.square(half), a) if y % 2 else self.square(half)

    def exp(self, a: Scalar) -> Scalar:
        return self._of_one("exp", a)

    def log(self, a: Scalar) -> Scalar:
        return self._of_one("log", a)

    def sqrt(self, a: Scalar) -> Scalar:
        return self._of_one("sqrt", a)

    def rsqrt(self, a: Scalar) -> Scalar:
        return self.rcp(self.sqrt(a))

    def tanh(self, a: Scalar) -> Scalar:
        return self._of_one("tanh", a)

    def erfc(self, a: Scalar) -> Scalar:
        return self._of_one("erfc", a)

    def logistic(self, a: Scalar) -> Scalar:
        return self.rcp(self.add(1.0, self.exp(self.neg(a))))

    def max(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return type(a)(np.maximum(a, b))
        if is_int(a):
            raise NotFusible("it takes the maximum of integers")
        a, b = in_order(a, b)
        return b if a is b or is_constant(a, -math.inf) else self.make("max", a, b)

    def min(self, a: Scalar, b: Scalar) -> Scalar:
        return self.neg(self.max(self.neg(a), self.neg(b)))

    def sign(self, a: Scalar) -> Scalar:
        """1 or -1, and zeros and NaN as they are."""
        negative = self.select(self.compare("lt", a, 0.0), a, -1.0)
        return self.select(self.compare("gt", a, 0.0), negative, 1.0)

    def compare(self, op: str, a: Scalar, b: Scalar) -> Scalar:
        """Whether `a` is less than `b`, and so on (see `COMPARISONS`)."""
        holds = COMPARISONS[op]
        if not isinstance(a, Node) and not isinstance(b, Node):
            return bool(holds(a, b))
        if a is b and op == "ne":
            return False
        if is_int(a):
            ends = {holds(x, y) for x in bounds(a) for y in bounds(b)}
            overlap = bounds(a)[0] <= bounds(b)[1] and bounds(b)[0] <= bounds(a)[1]
            if len(ends) == 1 and not (overlap and op in ("eq", "ne")):
                return ends.pop()
        return self.make(op, a, b, kind=MASK)

    def select(self, which: Scalar, if_false: Scalar, if_true: Scalar) -> Scalar:
        """One of two scalars of the same kind."""
        if not isinstance(which, Node):
            return if_true if which else if_false
        if if_true is if_false or (
            not isinstance(if_true, Node) and not isinstance(if_false, Node) and if_true == if_false
        ):
            return if_true
        if isinstance(if_true, bool) and isinstance(if_false, bool):
            return which if if_true else self.logical_not(which)
        if any(isinstance(x, Node) and x.kind == MASK for x in (if_true, if_false)):
            chosen = self.logical_and(which, if_true)
            return self.logical_or(chosen, self.logical_and(self.logical_not(which), if_false))
        if is_int(if_true):
            least, most = zip(bounds(if_true), bounds(if_false), strict=True)
            return self.make(
                "select", which, if_false, if_true, kind=INT, bounds=(min(least), max(most))
            )
        return self.make("select", which, if_false, if_true)

    def add_where(self, total: Scalar, which: Scalar, term: Scalar) -> Scalar:
        """`total`, and `term` more where `which` holds."""
        if not isinstance(which, Node) or not isinstance(total, Node) or is_constant(term, 0):
            return self.add(total, self.select(which, 0.0, term))
        return self.make("add_where", total, which, term)

    def logical_not(self, a: Scalar) -> Scalar:
        return self.make("not", a, kind=MASK) if isinstance(a, Node) else not a

    def logical_and(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) or not isinstance(b, Node):
            known, other = in_order(a, b)
            return other if known else False
        return self.make("and", a, b, kind=MASK)

    def logical_or(self, a: Scalar, b: Scalar) -> Scalar:
        return self.logical_not(self.logical_and(self.logical_not(a), self.logical_not(b)))

    def _of_one(self, op: str, a: Scalar) -> Scalar:
        if isinstance(a, Node):
            return self.make(op, a)
        with np.errstate(all="ignore"):
            return float(KNOWN[op](float(a)))

    def _on_ints(self, op: str, combine: Callable[[int, int], int], a: Scalar, b: Scalar) -> Scalar:
        ends = [combine(x, y) for x in bounds(a) for y in bounds(b)]
        return self.make(op, a, b, kind=INT, bounds=(min(ends), max(ends)))
