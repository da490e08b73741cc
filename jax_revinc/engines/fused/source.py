"""The whole source of a fused program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jax_revinc.engines.fused.dag import Program
from jax_revinc.engines.fused.emit import kernel
from jax_revinc.engines.fused.special import complementary_error_function
from jax_revinc.engines.fused.units import units

FLAGS = (
    "-O3",
    "-ffp-contract=fast",  # products and sums become one instruction
    "-fno-math-errno",
    "-fno-trapping-math",
)
"""The compiler's flags: what IEEE 754 says about NaN and infinities stays true."""

C_TYPES = {"float32": "float", "float64": "double"}


def source(program: Program, leaf_sizes: Sequence[int], dtype: npt.DTypeLike, lanes: int) -> str:
    """C++ that computes a program's means over examples, for XLA to call as ``value_and_grad``.

    Args:
        program: of a loss, and its gradient by every parameter.
        leaf_sizes: numbers in each of the arrays that hold the parameters.
        dtype: float32 or float64.
        lanes: scalars of a vector, a power of two.
    """
    body, n_scratch = kernel(program, units(program))
    dtype = np.dtype(dtype)
    uses_erfc = any(node.op == "erfc" for node in program.nodes())
    sizes = ", ".join(map(str, leaf_sizes))
    return f"""\
typedef {C_TYPES[dtype.name]} F;
#define LANES {lanes}
{included("vectors")}
{complementary_error_function(dtype) if uses_erfc else ""}
constexpr int N_PARAMETERS = {program.n_parameters}, N_TOKENS = {program.n_tokens};
constexpr int N_OUTPUTS = {len(program.outputs)}, N_SCRATCH = {n_scratch + 1};
constexpr int N_LEAVES = {len(leaf_sizes)};
constexpr int64_t LEAF_SIZES[] = {{{sizes}}};

// Adds the outputs of the examples with tokens `t` to `g`, with room for intermediate numbers in `s`.
template <class P>
static __attribute__((noinline)) void example(
    const P *__restrict p, const I *__restrict t, V *__restrict g, V *__restrict s) {{
{body}
}}
{included("gradient")}
{included("value_and_grad")}
"""


def included(name: str) -> str:
    """The text of a C++ file beside this one."""
    return Path(__file__).with_name(f"{name}.hpp").read_text()
