"""Generate C++ source from a computation graph: straight-line code on SIMD vectors, joined with the
hand-written headers of the folder ``runtime``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy.polynomial import Chebyshev, Polynomial

from jax_revinc.engines.fused.graph import PARAMETER, TOKEN, Node, Program, Scalar
from jax_revinc.engines.fused.schedule import STATEMENTS, Schedule, Slots
from jax_revinc.engines.fused.spec import Spec

PATTERNS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "neg": "-{}",
    "not": "~{}",
    "rcp": "F(1) / {}",
    "max": "larger({}, {})",
    "exp": "exponential({})",
    "log": "logarithm({})",
    "tanh": "hyperbolic_tangent({})",
    "erfc": "complementary_error_function({})",
    "sqrt": "square_root({})",
    "select": "{0} ? {2} : {1}",
    "add_where": "{1} ? {0} + {2} : {0}",
    "to_float": "__builtin_convertvector({}, V)",
}
"""The C++ expression of every operation. The functions are those of ``vectors.hpp``."""

C_TYPES = {"float32": "float", "float64": "double"}

ERFC_DEGREES = {"float32": 11, "float64": 27}
"""Degrees of the polynomial for erfc: its error is below 2e-8 and 4e-15."""


class UpdateRules(NamedTuple):
    """An optimizer's update as rules for ranges of parameters. Each rule is a computation graph
    that updates one parameter.

    Attributes:
        programs: the different rules. The inputs of a rule are a parameter, its moments, its
            gradient and the scalars of the update; its outputs are the new parameter and moments.
        ranges: ``(begin, end, rule)``: the rule of the parameters from `begin` to `end`, exclusive.
        n_moments: numbers that the optimizer keeps for every parameter.
        n_scalars: numbers of an update that all parameters of a model share.
    """

    programs: tuple[Program, ...]
    ranges: tuple[tuple[int, int, int], ...]
    n_moments: int
    n_scalars: int


def gradient_source(program: Program, spec: Spec) -> str:
    """Generate the C++ source of a function ``value_and_grad``, which XLA can call, from the
    computation graph of a loss and its gradient.
    """
    return f"{examples_source(program, spec)}{runtime('value_and_grad')}"


def outputs_source(program: Program, spec: Spec) -> str:
    """Generate the C++ source of a function ``outputs``, which XLA can call: it evaluates a
    computation graph on each example.
    """
    return f"{examples_source(program, spec)}{runtime('outputs')}"


def training_source(program: Program, rules: UpdateRules, spec: Spec) -> str:
    """Generate the C++ source of two functions that XLA can call: ``value_and_grad`` returns a loss
    and its gradient, and ``train`` makes updates.
    """
    functions = "\n".join(
        f"INLINE void rule_{k}(const V *p, V *g) {{\n{rule_text(rule)}\n}}"
        for k, rule in enumerate(rules.programs)
    )
    calls = "\n".join(
        f"  update_range(rule_{rule}, {begin}, {end}, state, gradient, scalars);"
        for begin, end, rule in rules.ranges
    )
    return f"""\
{gradient_source(program, spec)}
constexpr int N_MOMENTS = {rules.n_moments}, N_SCALARS = {rules.n_scalars};
{functions}
{runtime("training")}
static void update(P *state, const P *gradient, const V *scalars) {{
{calls}
}}
"""


def examples_source(program: Program, spec: Spec) -> str:
    """Generate the C++ that evaluates the computation graph of one example on many examples; every
    generated program contains it.
    """
    kernel = Kernel(program, "+=")
    functions = "\n".join(
        f"SEGMENT({k})\n{text}\nEND_OF_SEGMENT" for k, text in enumerate(kernel.segments)
    )
    calls = "\n".join(
        f"  segment_{k}(p, tokens, outputs, to_next, example_slots, n);"
        for k in range(len(kernel.segments))
    )
    uses_erfc = any(node.op == "erfc" for node in program.nodes())
    sizes = [leaf.size for leaf in jax.tree.leaves(spec.params)]
    return f"""\
typedef {C_TYPES[spec.dtype.name]} F;
#define LANES {spec.n_lanes}
{runtime("vectors")}
{complementary_error_function(spec.dtype) if uses_erfc else ""}
typedef {"V" if spec.many else "F"} P;  // a parameter
constexpr int N_PARAMETERS = {program.n_parameters}, N_TOKENS = {program.n_tokens};
constexpr int N_OUTPUTS = {len(program.outputs)}, N_SLOTS = {kernel.n_slots + 1};
constexpr int N_LEAVES = {len(sizes)};
constexpr int64_t LEAF_SIZES[] = {{{", ".join(map(str, sizes))}}};

{runtime("segments")}
{functions}
static void all_segments(SEGMENT_ARGUMENTS) {{
{calls}
}}
{runtime("examples")}
{runtime("many_models" if spec.many else "one_model")}
{runtime("blocks")}
"""


def runtime(name: str) -> str:
    """Read a hand-written C++ header in the folder ``runtime``, to paste into a program."""
    return (Path(__file__).with_name("runtime") / f"{name}.hpp").read_text()


class Kernel:
    """The C++ text of a computation graph, cut into segments: functions that are run one after
    another.

    They read parameters ``p``, tokens ``t`` and ``slots``, and write ``slots`` and outputs ``g``.

    Args:
        program: what is computed.
        assign: ``=`` or ``+=``, for the outputs.
        longest: the most statements of a segment.

    Attributes:
        segments: the text of each.
        n_slots: values that are stored between segments at one time.
    """

    def __init__(self, program: Program, assign: str, longest: int = STATEMENTS) -> None:
        self._schedule, self._slots = Schedule(program, longest), Slots()
        self._assign, self._outputs = assign, program.outputs
        self._outputs_of: dict[int, list[int]] = {}
        for i, output in enumerate(program.outputs):
            if isinstance(output, Node):
                self._outputs_of.setdefault(output.id, []).append(i)
        segments = [self._segment(k) for k in range(len(self._schedule.segments))]
        self.segments = [*segments, self._other_outputs()]
        self.n_slots = self._slots.size

    def _segment(self, k: int) -> str:
        """The C++ text of the segment numbered `k`. It loads or recomputes the values that it needs
        from earlier segments, and then computes its own.
        """
        schedule, slots = self._schedule, self._slots
        lines: list[str] = []
        declared: set[int] = set()

        def declare(node: Node) -> None:
            """Add, if missing, C++ that loads or recomputes a node of an earlier segment."""
            if node.is_leaf or node.id in declared:
                return
            declared.add(node.id)
            if node.id in schedule.recomputed:
                for operand in schedule.statements[node.id].reads:
                    declare(operand)
                lines.append(f"const V v{node.id} = {self._expression(node)};")
            else:
                lines.append(f"const V v{node.id} = slots[{slots.of[node.id]}];")

        for node, reads in schedule.segments[k]:
            for operand in reads:
                declare(operand)
            lines.append(f"const V v{node.id} = {self._expression(node)};")
            declared.add(node.id)
            outputs = self._outputs_of.get(node.id, ())
            lines += [f"g[{i}] {self._assign} v{node.id};" for i in outputs]
            if schedule.is_stored(node.id, k):
                lines.append(f"slots[{slots.store(node.id)}] = v{node.id};")
        slots.free(id for id in slots.of if schedule.last_read[id] == k)
        return "\n".join(lines)

    def _other_outputs(self) -> str:
        """The C++ text that writes outputs which no statement computes: constants, inputs and
        inlined expressions.
        """
        return "\n".join(
            f"g[{i}] {self._assign} {self._operand(output)};"
            for i, output in enumerate(self._outputs)
            if not isinstance(output, Node) or output.id not in self._schedule.statements
        )

    def _expression(self, node: Node) -> str:
        return PATTERNS[node.op].format(*map(self._operand, node.args))

    def _operand(self, scalar: Scalar) -> str:
        """The C++ text that stands for a node or a constant as an operand of an expression."""
        if isinstance(scalar, float):
            return f"every({literal(scalar)})"
        if not isinstance(scalar, Node):
            return f"(I{{}} + {scalar})"
        if scalar.op == PARAMETER:
            return f"every(p[{scalar.args[0]}])"
        if scalar.op == TOKEN:
            return f"t[{scalar.args[0]}]"
        has_statement = scalar.id in self._schedule.statements
        return f"v{scalar.id}" if has_statement else f"({self._expression(scalar)})"


def rule_text(rule: Program) -> str:
    """The C++ statements that update one parameter, generated from the computation graph `rule`."""
    kernel = Kernel(rule, "=", longest=sys.maxsize)
    assert not kernel.n_slots
    return "\n".join(kernel.segments)


def literal(number: float) -> str:
    if math.isnan(number):
        return "F(NAN)"
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    return f"F({number!r})"


def complementary_error_function(dtype: np.dtype) -> str:
    """The C++ source of a function that computes erfc by a polynomial.

    Its relative error is that of the polynomial, and of rounding z^2.
    """
    series = Chebyshev.interpolate(smooth_part_of_erfc, ERFC_DEGREES[dtype.name])
    coefficients = ", ".join(f"F({c!r})" for c in series.convert(kind=Polynomial).coef.tolist())
    return f"""\
INLINE V complementary_error_function(V x) {{
  constexpr F COEFFICIENTS[] = {{{coefficients}}};
  constexpr int LAST = {ERFC_DEGREES[dtype.name]};
  const V z = x < F(0) ? -x : x, t = F(2) / (z + F(2)), u = t * F(2) - F(1);
  V series = every(COEFFICIENTS[LAST]);
#pragma GCC unroll 32
  for (int i = LAST - 1; i >= 0; i--) series = series * u + COEFFICIENTS[i];
  const V tail = t * exponential(series - z * z);
  return x < F(0) ? F(2) - tail : tail;
}}"""


def smooth_part_of_erfc(u: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """Compute log(erfc(z) exp(z^2) / t), where t = 2 / (2 + z) = (1 + u) / 2 and z >= 0. This
    function of u is smooth on -1 < u <= 1, so that a polynomial approximates it well.

    The form is that of Press et al., Numerical Recipes (3rd ed.), section 6.2.2.
    """
    from scipy import special  # slow to import, and rarely needed

    t = (1 + u) / 2
    return np.log(special.erfcx(2 / t - 2) / t)
