"""Arithmetic on scalars that simplifies expressions while it makes the computation graph.

Constants are folded in float64, and expressions are rewritten as the comments ``before -> after``
say, so results differ from XLA's in rounding. Two rewrites ignore special values:

- zero times anything is 0, and an infinity plus or minus anything is that infinity, where zero and
  infinity are constants: a masked attention score leaves no trace;
- ``x != x`` is false: a NaN is never replaced, it spreads to the loss and to the gradient.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TypeGuard

import numpy as np

from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.graph import INT, MASK, Graph, Node, Scalar

COMPARISONS: dict[str, Callable[[Scalar, Scalar], bool]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "erfc": np.vectorize(math.erfc),
    "rcp": lambda x: np.divide(1.0, x),
}
"""Functions of one real number, to fold constants."""


def is_constant(x: Scalar, value: float) -> bool:
    return not isinstance(x, Node) and x == value


def is_infinite(x: Scalar) -> bool:
    return not isinstance(x, Node) and math.isinf(x)


def is_int(x: Scalar) -> bool:
    return x.kind == INT if isinstance(x, Node) else type(x) is int


def is_negation(x: Scalar) -> TypeGuard[Node]:
    return isinstance(x, Node) and x.op == "neg"


def factors(x: Scalar) -> tuple[float, Scalar]:
    """Split `x` into a constant and a scalar whose product is `x`: 2.0 * y into 2.0 and y."""
    if not isinstance(x, Node):
        return x, 1.0
    if x.op == "mul" and not isinstance(x.args[0], Node):
        return x.args[0], x.args[1]
    return (-1.0, x.args[0]) if x.op == "neg" else (1.0, x)


def bounds(x: Scalar) -> tuple[int, int]:
    """The least and the largest value that an integer scalar can have."""
    return x.bounds if isinstance(x, Node) else (int(x), int(x))


def in_order(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """Put the operands of a commutative operation in a fixed order: constants first, then nodes in
    order of creation.
    """
    if isinstance(a, Node) and (not isinstance(b, Node) or b.id < a.id):
        return b, a
    return a, b


class Algebra(Graph):
    """A computation graph whose methods are scalar operations that simplify: each returns a
    constant or a node.

    Truth values are bools or nodes of kind `MASK`; integers have bounds. In the comments ``c`` and
    ``d`` are constants, and ``inf`` is either infinity.
    """

    def neg(self, a: Scalar) -> Scalar:
        if not isinstance(a, Node):
            return -a
        if is_int(a):  # -i -> 0 - i
            return self.sub(0, a)
        if a.op == "neg":  # -(-x) -> x
            return a.args[0]
        if a.op == "sub":  # -(x - y) -> y - x
            return self.sub(a.args[1], a.args[0])
        if a.op == "mul" and not isinstance(a.args[0], Node):  # -(c * x) -> -c * x
            return self.mul(-a.args[0], a.args[1])
        return self.make("neg", a)

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a + b
        if is_constant(a, 0) or is_infinite(b):  # 0 + x -> x; x + inf -> inf
            return b
        if is_constant(b, 0) or is_infinite(a):  # x + 0 -> x; inf + x -> inf
            return a
        if is_int(a):
            return self._integer("add", operator.add, *in_order(a, b))
        if is_negation(b):  # x + -y -> x - y
            return self.sub(a, b.args[0])
        if is_negation(a):  # -x + y -> y - x
            return self.sub(b, a.args[0])
        return self.make("add", *in_order(a, b))

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a - b
        if is_constant(b, 0) or is_infinite(a):  # x - 0 -> x; inf - x -> inf
            return a
        if is_int(a):
            return self._integer("sub", operator.sub, a, b)
        if is_constant(a, 0) or is_infinite(b):  # 0 - x -> -x; x - inf -> -inf
            return self.neg(b)
        if is_negation(b):  # x - -y -> x + y
            return self.add(a, b.args[0])
        return self.make("sub", a, b)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return a * b
        if is_int(a):
            return self._integer("mul", operator.mul, *in_order(a, b))
        (of_a, a), (of_b, b) = factors(a), factors(b)  # (c * x) * (d * y) -> cd * (x * y)
        factor = of_a * of_b
        if factor == 0:  # 0 * x -> 0
            return 0.0
        a, b = in_order(a, b)
        product = b if is_constant(a, 1) else self.make("mul", a, b)  # 1 * x -> x
        if factor == 1:
            return product
        if factor == -1:  # -1 * x -> -x
            return self.neg(product)
        return self.make("mul", factor, product)

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        return self.mul(a, self.rcp(b))  # x / y -> x * (1 / y)

    def rcp(self, a: Scalar) -> Scalar:
        """One divided by `a`."""
        if isinstance(a, Node):
            factor, rest = factors(a)
            if factor != 1:  # 1 / (c * x) -> 1/c * (1 / x)
                return self.mul(1 / factor, self.rcp(rest))
            if a.op == "rcp":  # 1 / (1 / x) -> x
                return a.args[0]
            if a.op == "mul" and a.args[0] is a.args[1]:  # 1 / (x * x) -> (1 / x) * (1 / x)
                return self.square(self.rcp(a.args[0]))
        return self._function("rcp", a)

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
        return self._function("exp", a)

    def log(self, a: Scalar) -> Scalar:
        return self._function("log", a)

    def sqrt(self, a: Scalar) -> Scalar:
        return self._function("sqrt", a)

    def rsqrt(self, a: Scalar) -> Scalar:
        return self.rcp(self.sqrt(a))

    def tanh(self, a: Scalar) -> Scalar:
        return self._function("tanh", a)

    def erfc(self, a: Scalar) -> Scalar:
        return self._function("erfc", a)

    def logistic(self, a: Scalar) -> Scalar:
        return self.rcp(self.add(1.0, self.exp(self.neg(a))))

    def max(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) and not isinstance(b, Node):
            return type(a)(np.maximum(a, b))
        if is_int(a):
            raise NotFusible(
                "the fused engine takes maxima of floats only; this computation takes a maximum of "
                "integers"
            )
        a, b = in_order(a, b)
        if a is b or is_constant(a, -math.inf):  # max(x, x) -> x; max(-inf, x) -> x
            return b
        return self.make("max", a, b)

    def min(self, a: Scalar, b: Scalar) -> Scalar:
        return self.neg(self.max(self.neg(a), self.neg(b)))  # min(x, y) -> -max(-x, -y)

    def sign(self, a: Scalar) -> Scalar:
        """The sign of `a`: 1 or -1; zeros and NaN are returned as they are."""
        negative = self.select(self.compare("lt", a, 0.0), a, -1.0)
        return self.select(self.compare("gt", a, 0.0), negative, 1.0)

    def compare(self, op: str, a: Scalar, b: Scalar) -> Scalar:
        """The truth value of ``a op b`` as a scalar, for a comparison `op` such as ``lt``."""
        holds = COMPARISONS[op]
        if not isinstance(a, Node) and not isinstance(b, Node):
            return bool(holds(a, b))
        if a is b and op == "ne":  # x != x -> false
            return False
        if is_int(a):  # i < j -> true, if it holds for all values within the bounds; and so on
            ends = {holds(x, y) for x in bounds(a) for y in bounds(b)}
            overlap = bounds(a)[0] <= bounds(b)[1] and bounds(b)[0] <= bounds(a)[1]
            if len(ends) == 1 and not (overlap and op in ("eq", "ne")):
                return ends.pop()
        return self.make(op, a, b, kind=MASK)

    def select(self, which: Scalar, if_false: Scalar, if_true: Scalar) -> Scalar:
        """Choose one of two scalars: `if_true` where `which` is true, and `if_false` where not."""
        if not isinstance(which, Node):
            return if_true if which else if_false
        are_constants = not isinstance(if_true, Node) and not isinstance(if_false, Node)
        if if_true is if_false or (are_constants and if_true == if_false):  # m ? x : x -> x
            return if_true
        if isinstance(if_true, bool) and isinstance(if_false, bool):
            # m ? true : false -> m; m ? false : true -> not m
            return which if if_true else self.logical_not(which)
        if any(isinstance(x, Node) and x.kind == MASK for x in (if_true, if_false)):
            # m ? x : y -> (m and x) or (not m and y)
            chosen = self.logical_and(which, if_true)
            return self.logical_or(chosen, self.logical_and(self.logical_not(which), if_false))
        if is_int(if_true):
            least, most = zip(bounds(if_true), bounds(if_false), strict=True)
            return self.make(
                "select", which, if_false, if_true, kind=INT, bounds=(min(least), max(most))
            )
        return self.make("select", which, if_false, if_true)

    def add_where(self, total: Scalar, which: Scalar, term: Scalar) -> Scalar:
        """Return `total` plus `term` where `which` is true, and `total` where it is false."""
        if not isinstance(which, Node) or not isinstance(total, Node) or is_constant(term, 0):
            return self.add(total, self.select(which, 0.0, term))  # c + (m ? x : 0)
        return self.make("add_where", total, which, term)

    def logical_not(self, a: Scalar) -> Scalar:
        return self.make("not", a, kind=MASK) if isinstance(a, Node) else not a

    def logical_and(self, a: Scalar, b: Scalar) -> Scalar:
        if not isinstance(a, Node) or not isinstance(b, Node):
            constant, other = in_order(a, b)
            return other if constant else False  # true and m -> m; false and m -> false
        return self.make("and", a, b, kind=MASK)

    def logical_or(self, a: Scalar, b: Scalar) -> Scalar:
        # m or n -> not (not m and not n)
        return self.logical_not(self.logical_and(self.logical_not(a), self.logical_not(b)))

    def _function(self, op: str, a: Scalar) -> Scalar:
        if isinstance(a, Node):
            return self.make(op, a)
        with np.errstate(all="ignore"):
            return float(FUNCTIONS[op](float(a)))

    def _integer(self, op: str, combine: Callable[[int, int], int], a: Scalar, b: Scalar) -> Scalar:
        ends = [combine(x, y) for x in bounds(a) for y in bounds(b)]
        return self.make(op, a, b, kind=INT, bounds=(min(ends), max(ends)))
