"""What all numbers of a model share, told apart from what becomes of every single one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jax_revinc.engines.fused.algebra import Algebra
from jax_revinc.engines.fused.dag import PARAMETER, Graph, Node, Program, Scalar
from jax_revinc.engines.fused.errors import UpdateNotFusible
from jax_revinc.engines.fused.front import results_of
from jax_revinc.engines.fused.indexing import Scalars
from jax_revinc.engines.fused.primitives import as_scalars


class Apart:
    """Tells equations of what is common from those of single numbers, and turns these into scalars.

    Args:
        values: known scalars, by variable.
        common: variables that are common.
        n_before: the index of the first shared number.
    """

    def __init__(
        self,
        algebra: Algebra,
        values: dict[core.Var, Scalars],
        common: set[core.Var],
        n_before: int,
        dtype: np.dtype,
    ) -> None:
        self.equations: list[core.JaxprEqn] = []
        self.shared: dict[core.Var, Scalars] = {}
        self.n_before = n_before
        self._copied: dict[core.Var, Any] = {}
        self._algebra, self._values, self._common, self._dtype = algebra, values, common, dtype

    def take(self, equation: core.JaxprEqn) -> None:
        """Do what one equation says."""
        are_scalars = not any(var.aval.shape for var in equation.outvars)  # type: ignore[attr-defined]
        if are_scalars and all(map(self.is_common, equation.invars)):
            self.equations.append(equation)
            self._common.update(equation.outvars)
            if (
                equation.primitive.name == "copy"
            ):  # as some of optax' schedules make for every array
                self._copied[equation.outvars[0]] = equation.invars[0]
        else:
            operands = [self.scalars(atom) for atom in equation.invars]
            results = results_of(self._algebra, equation, operands)
            self._values.update(zip(equation.outvars, results, strict=True))

    def is_common(self, atom: Any) -> bool:
        return isinstance(atom, core.Literal) or atom in self._common

    def scalars(self, atom: Any) -> Scalars:
        """The scalars of a variable; those of a common one are shared numbers."""
        atom = self._copied.get(atom, atom) if isinstance(atom, core.Var) else atom
        if isinstance(atom, core.Literal):
            return as_scalars(atom.val)
        if atom not in self._common:
            return self._values[atom]
        if atom.aval.shape or atom.aval.dtype != self._dtype:
            raise UpdateNotFusible(f"its optimizer applies {atom.aval.str_short()} to parameters")
        if atom not in self.shared:
            node = self._algebra.make(PARAMETER, self.n_before + len(self.shared))
            self.shared[atom] = np.array(node, object)
        return self.shared[atom]


def of_one_number(outputs: Sequence[Scalar], own: range, n_before: int) -> Program:
    """A program whose parameters are numbered anew: those in `own` from 0 on, and behind them what is shared.

    Raises:
        UpdateNotFusible: if it depends on anything else.
    """
    graph = Graph()
    copies: dict[int, Node] = {}

    def copied(scalar: Scalar) -> Scalar:
        return copies[scalar.id] if isinstance(scalar, Node) else scalar

    n_shared = 0
    for node in Program(tuple(outputs), 0, 0).nodes():
        if node.op != PARAMETER:
            args = map(copied, node.args)
            copies[node.id] = graph.make(node.op, *args, kind=node.kind, bounds=node.bounds)
            continue
        (index,) = node.args
        assert isinstance(index, int)
        if index in own:
            copies[node.id] = graph.make(PARAMETER, index - own.start)
        elif index >= n_before:
            n_shared = max(n_shared, index - n_before + 1)
            copies[node.id] = graph.make(PARAMETER, len(own) + index - n_before)
        else:
            raise UpdateNotFusible("its optimizer looks at all parameters together")
    return Program(tuple(map(copied, outputs)), len(own) + n_shared, 0)
