"""The whole source of a fused program: what is generated, and the runtime's C++ around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_revinc.engines.fused.cpu import lane_width
from jax_revinc.engines.fused.dag import Program
from jax_revinc.engines.fused.emit import kernel, rule_text
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.special import complementary_error_function
from jax_revinc.engines.fused.update import Update

FLAGS = (
    "-O3",
    "-ffp-contract=fast",  # products and sums become one instruction
    "-fno-math-errno",
    "-fno-trapping-math",
)
"""The compiler's flags: what IEEE 754 says about NaN and infinities stays true."""

C_TYPES = {"float32": "float", "float64": "double"}


class Layout(NamedTuple):
    """How a program's numbers lie in vectors.

    Attributes:
        leaf_sizes: numbers in each of the arrays that hold the parameters.
        dtype: ``float32`` or ``float64``.
        lanes: scalars of a vector, a power of two.
        many: whether lanes are models; else they are examples of one.
    """

    leaf_sizes: Sequence[int]
    dtype: str
    lanes: int
    many: bool


def layout_of(params: Any, lanes: int | None, many: bool) -> Layout:
    """The layout of parameters (any pytree of arrays, or their shapes and types).

    Args:
        lanes: scalars of a vector; by default what suits this CPU.
        many: whether lanes are models.

    Raises:
        NotFusible: where there is no program for parameters of their type, or on JAX's device.
    """
    if jax.default_backend() != "cpu":
        raise NotFusible(f"JAX runs on {jax.default_backend()}, and fused programs on the CPU")
    leaves = jax.tree.leaves(params)
    dtypes = {leaf.dtype.name for leaf in leaves}
    if len(dtypes) != 1 or not dtypes <= C_TYPES.keys():
        raise NotFusible(f"its parameters are {' and '.join(sorted(dtypes))}")
    (dtype,) = dtypes
    lanes = lane_width(dtype) if lanes is None else lanes
    return Layout([leaf.size for leaf in leaves], dtype, lanes, many)


def gradient_source(program: Program, layout: Layout) -> str:
    """C++ of the handler ``value_and_grad``, for a program of a loss and its gradient by every parameter."""
    return f"{of_examples(program, layout)}{included('value_and_grad')}"


def training_source(program: Program, update: Update, layout: Layout) -> str:
    """C++ of the handlers ``train`` and ``value_and_grad``: the same, and updates by its means."""
    rules = [
        f"INLINE void rule_{k}(const V *p, V *g) {{\n{rule_text(rule)}\n}}"
        for k, rule in enumerate(update.rules)
    ]
    applied = [
        f"  update_range(rule_{rule}, {begin}, {end}, numbers, gradient, shared);"
        for begin, end, rule in update.ranges
    ]
    newline = "\n"
    return f"""\
{gradient_source(program, layout)}
constexpr int N_KEPT = {update.n_kept}, N_SHARED = {update.n_shared};
{newline.join(rules)}
{included("training")}
static void update(P *numbers, const P *gradient, const V *shared) {{
{newline.join(applied)}
}}
"""


def outputs_source(program: Program, layout: Layout) -> str:
    """C++ of the handler ``outputs``: what a program computes from each example."""
    return f"{of_examples(program, layout)}{included('outputs')}"


def of_examples(program: Program, layout: Layout) -> str:
    """What all handlers build upon: the program of one example, applied to many."""
    parts, n_kept = kernel(program, "+=")
    functions = "\n".join(f"PART({k})\n{part}\nEND_OF_PART" for k, part in enumerate(parts))
    calls = "\n".join(
        f"  part_{k}(p, tokens, outputs, to_next, kept, n);" for k in range(len(parts))
    )
    uses_erfc = any(node.op == "erfc" for node in program.nodes())
    sizes = ", ".join(map(str, layout.leaf_sizes))
    return f"""\
typedef {C_TYPES[layout.dtype]} F;
#define LANES {layout.lanes}
{included("vectors")}
{complementary_error_function(np.dtype(layout.dtype)) if uses_erfc else ""}
typedef {"V" if layout.many else "F"} P;  // a parameter
constexpr int N_PARAMETERS = {program.n_parameters}, N_TOKENS = {program.n_tokens};
constexpr int N_OUTPUTS = {len(program.outputs)}, N_MEANWHILE = {n_kept + 1};
constexpr int N_LEAVES = {len(layout.leaf_sizes)};
constexpr int64_t LEAF_SIZES[] = {{{sizes}}};

{included("parts")}
{functions}
static void all_parts(PART_ARGUMENTS) {{
{calls}
}}
{included("examples")}
{included("many_models" if layout.many else "one_model")}
{included("blocks")}
"""


def included(name: str) -> str:
    """The text of one of the runtime's files."""
    return (Path(__file__).with_name("runtime") / f"{name}.hpp").read_text()
