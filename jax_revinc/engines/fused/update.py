"""Split an optimizer's update in two: XLA computes the numbers that all parameters share, such as
the learning rate, and compiled C++ updates each parameter with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.extend import core
from jaxtyping import Float, Int

from jax_revinc.compilation.jaxprs import inline_calls
from jax_revinc.engines.fused.emit import UpdateRules, rule_text
from jax_revinc.engines.fused.errors import NotFusible, UpdateNotFusible
from jax_revinc.engines.fused.graph import PARAMETER, Graph, Node, Program, Scalar, Scalars
from jax_revinc.engines.fused.primitives import as_scalars
from jax_revinc.engines.fused.simplify import Algebra
from jax_revinc.engines.fused.trace import apply_equation, jaxpr_text

MakeOptimizer = Callable[[Any], optax.GradientTransformation]
"""From rates, any pytree of scalars such as a learning rate, to an optimizer."""

Common = list[Array]
"""The arrays of an optimizer's state that belong to no parameter, such as a count of updates."""


class Update(NamedTuple):
    """An optimizer's update in two parts: a function that computes the numbers that all parameters
    share, such as the learning rate, and rules that update single parameters.

    Attributes:
        rules: the update of single parameters.
        advance: from the rates and the common state to the new common state and the scalars of the
            update.
        owners: for every array of the optimizer's state, the number of the parameters' array that
            it belongs to, or -1 for the common state.
        origin: the jaxpr that it was traced from, as text.
    """

    rules: UpdateRules
    advance: Callable[[Any, Common], tuple[Common, Float[Array, " n_scalars"]]]
    owners: tuple[int, ...]
    origin: str

    def split(self, opt_state: Any) -> tuple[list[Array], Common]:
        """Split an optimizer's state into moments (arrays of one number per parameter, such as
        running averages) and the common state (other arrays, such as a count of updates).
        """
        leaves = jax.tree.leaves(opt_state)
        common = [leaf for leaf, owner in zip(leaves, self.owners, strict=True) if owner < 0]
        return [leaves[i] for i in moment_order(self.owners)], common

    def scalars(
        self, rates: Any, common: Common, *, capacity: int, n_steps: Int[Array, ""]
    ) -> tuple[Common, Float[Array, "capacity n_scalars"]]:
        """Compute the numbers that all parameters share, such as the learning rate, for each of the
        next `capacity` updates. Return the optimizer's common state (such as a count of updates)
        after `n_steps` of them, and these numbers.

        Args:
            rates: the argument of the optimizer's constructor.
            common: before the updates.
            capacity: for how many updates scalars are computed, so that shapes don't vary.
            n_steps: how many updates are made.
        """

        def step(common: Common, _: None) -> tuple[Common, Common]:
            return self.advance(rates, common)[0], common

        # The loop has little to compute; the scalars follow for all updates at once. The common
        # state may have no arrays, so the axis of updates is that of their numbers.
        last, before = jax.lax.scan(step, common, length=capacity)
        _, scalars = jax.vmap(lambda _, common: self.advance(rates, common))(
            jnp.arange(capacity), before
        )
        after = jax.tree.map(
            lambda each, end: jnp.concatenate([each, end[None]])[n_steps], before, last
        )
        return after, scalars


def moment_order(owners: tuple[int, ...]) -> list[int]:
    """The indices of an optimizer's moments (such as running averages) among the arrays of its
    state: the first moments of all parameters, then their second moments, and so on.
    """
    positions = [i for i, owner in enumerate(owners) if owner >= 0]
    return sorted(positions, key=lambda i: (owners[:i].count(owners[i]), owners[i]))


def apply_update(
    make_optimizer: MakeOptimizer, rates: Any, opt_state: Any, params: Any, grads: Any
) -> tuple[Any, Any]:
    """Update the parameters by an Optax optimizer; return them and the optimizer's new state."""
    updates, opt_state = make_optimizer(rates).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def trace_update(make_optimizer: MakeOptimizer, rates: Any, params: Any) -> Update:
    """Trace an Optax optimizer's update into rules that each update a single parameter.

    The update is traced for arrays of two elements each, whose updates must be the same function of
    the element, its moments, its gradient and the scalars.

    Args:
        make_optimizer: from rates to the optimizer.
        rates: its argument, a pytree of scalars, or of their shapes and types.
        params: the parameters, or their shapes and types.

    Raises:
        UpdateNotFusible: if parameters depend on each other, as by a norm over all gradients, or
            if it applies a primitive to them that is not supported.
    """
    leaves, structure = jax.tree.flatten(params)
    n, dtype = len(leaves), np.dtype(leaves[0].dtype)
    pairs = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct((2,), dtype)] * n)
    rates = jax.tree.map(lambda rate: jax.ShapeDtypeStruct((), rate.dtype), rates)
    opt_state = jax.eval_shape(lambda r, p: make_optimizer(r).init(p), rates, pairs)
    owners = owners_of(make_optimizer(jax.tree.map(lambda _: 0.0, rates)), opt_state, structure)
    order = moment_order(owners)
    n_moments, remainder = divmod(len(order), n)
    if remainder:
        raise UpdateNotFusible(
            "the fused engine can't compile this optimizer: it keeps moments, such as running "
            "averages, for some parameters and not for others"
        )

    update = jax.make_jaxpr(partial(apply_update, make_optimizer))(rates, opt_state, pairs, pairs)
    closed = inline_calls(update)  # a call may mix what parameters share with what they don't
    jaxpr = closed.jaxpr
    params_in, grads_in = jaxpr.invars[-2 * n : -n], jaxpr.invars[-n:]
    state_in = jaxpr.invars[-2 * n - len(owners) : -2 * n]
    params_out, state_out = jaxpr.outvars[:n], jaxpr.outvars[n:]
    own_in = [*params_in, *(state_in[i] for i in order), *grads_in]
    own_out = [*params_out, *(state_out[i] for i in order)]
    common_in = [var for var in jaxpr.invars if var not in own_in]
    common_out = [var for var, owner in zip(state_out, owners, strict=True) if owner < 0]

    # Inputs are numbered element by element: the parameter, its moments, its gradient.
    algebra, n_own = Algebra(), 2 + n_moments
    first_scalar = 2 * n * n_own
    values: dict[core.Var, Scalars] = dict(
        zip(jaxpr.constvars, map(as_scalars, closed.consts), strict=True)
    )
    for i, var in enumerate(own_in):
        slot, leaf = divmod(i, n)
        inputs = [(2 * leaf + element) * n_own + slot for element in (0, 1)]
        values[var] = np.array([algebra.make(PARAMETER, index) for index in inputs], object)
    partition = Partition(algebra, values, set(common_in), first_scalar, dtype)
    try:
        for equation in jaxpr.eqns:
            partition.add(equation)
    except NotFusible as why:
        raise UpdateNotFusible(f"the fused engine can't compile this optimizer: {why}") from why
    if not all(map(partition.is_common, common_out)):
        raise UpdateNotFusible(
            "the fused engine can't compile this optimizer: its state holds a number that depends "
            "on all parameters"
        )

    after = [
        [partition.read(own_out[slot * n + leaf]) for slot in range(1 + n_moments)]
        for leaf in range(n)
    ]
    programs, rule_of_leaf = rules_of(after, n_own, first_scalar)
    common_jaxpr = jaxpr.replace(
        invars=common_in, outvars=[*common_out, *partition.scalars], eqns=partition.equations
    )
    evaluate = core.jaxpr_as_fun(core.ClosedJaxpr(common_jaxpr, closed.consts))

    def advance(rates: Any, common: Common) -> tuple[Common, Array]:
        results = evaluate(*jax.tree.leaves(rates), *common)
        return results[: len(common)], jnp.array(results[len(common) :], dtype)

    sizes = [leaf.size for leaf in leaves]
    ranges = tuple(ranges_of(rule_of_leaf, sizes))
    rules = UpdateRules(programs, ranges, n_moments, len(partition.scalars))
    return Update(rules, advance, owners, jaxpr_text(closed))


class Partition:
    """A split of the jaxpr equations of an optimizer's update into those of numbers that all
    parameters share, and those of single parameters.

    Args:
        algebra: makes the nodes.
        values: the scalars of variables that are known.
        common: the variables of rates and of the common state.
        first_scalar: the index of the input that is the first scalar of the update.
        dtype: the parameters' type.

    Attributes:
        equations: those of the common state.
        scalars: the variables of the scalars of the update, and the scalars' inputs.
    """

    def __init__(
        self,
        algebra: Algebra,
        values: dict[core.Var, Scalars],
        common: set[core.Var],
        first_scalar: int,
        dtype: np.dtype,
    ) -> None:
        self.equations: list[core.JaxprEqn] = []
        self.scalars: dict[core.Var, Scalars] = {}
        self._source_of_copy: dict[core.Var, Any] = {}
        self._algebra, self._values, self._common = algebra, values, common
        self._first_scalar, self._dtype = first_scalar, dtype

    def add(self, equation: core.JaxprEqn) -> None:
        """Add the next jaxpr equation of the update to the shared ones, or else apply it to the
        nodes of single parameters.
        """
        results: list[Any] = equation.outvars
        are_scalars = not any(var.aval.shape for var in results)
        if are_scalars and all(map(self.is_common, equation.invars)):
            self.equations.append(equation)
            self._common.update(results)
            if equation.primitive.name == "copy":  # some of optax' schedules copy for every array
                self._source_of_copy[results[0]] = equation.invars[0]
        else:
            operands = [self.read(atom) for atom in equation.invars]
            values = apply_equation(self._algebra, equation, operands)
            self._values.update(zip(results, values, strict=True))

    def is_common(self, atom: Any) -> bool:
        return isinstance(atom, core.Literal) or atom in self._common

    def read(self, atom: Any) -> Scalars:
        """The value of a jaxpr variable as an array of graph nodes and constants. A number that all
        parameters share becomes an input of the graph.

        Raises:
            UpdateNotFusible: if a common variable has another type than the parameters.
        """
        if isinstance(atom, core.Var):
            atom = self._source_of_copy.get(atom, atom)
        if isinstance(atom, core.Literal):
            return as_scalars(atom.val)
        if atom not in self._common:
            return self._values[atom]
        if atom.aval.shape or atom.aval.dtype != self._dtype:
            raise UpdateNotFusible(
                "the fused engine combines parameters only with scalars of their own type; this "
                f"optimizer combines a {atom.aval.str_short()} with parameters of {self._dtype}"
            )
        if atom not in self.scalars:
            node = self._algebra.make(PARAMETER, self._first_scalar + len(self.scalars))
            self.scalars[atom] = np.array(node, object)
        return self.scalars[atom]


def rules_of(
    after: Sequence[Sequence[Scalars]], n_own: int, first_scalar: int
) -> tuple[tuple[Program, ...], list[int]]:
    """The different rules that update single parameters, and for each parameter array the index of
    its rule in them.

    Args:
        after: for every array, its two elements and their moments after the update.
        n_own: inputs of each element.
        first_scalar: the index of the input that is the first scalar.

    Raises:
        UpdateNotFusible: if an element depends on another, or has another rule.
    """
    rules: dict[str, Program] = {}
    rule_of_leaf = []
    for leaf, slots in enumerate(after):
        first, second = (
            rule_of(
                [pair[element] for pair in slots], (2 * leaf + element) * n_own, n_own, first_scalar
            )
            for element in (0, 1)
        )
        text = rule_text(first)
        if rule_text(second) != text:
            raise UpdateNotFusible(
                "the fused engine can't compile this optimizer: it updates two elements of one "
                "parameter array by different rules"
            )
        rules.setdefault(text, first)
        rule_of_leaf.append(list(rules).index(text))
    return tuple(rules.values()), rule_of_leaf


def rule_of(outputs: Sequence[Scalar], first_own: int, n_own: int, first_scalar: int) -> Program:
    """The update of one parameter as a computation graph. Its inputs are the parameter, its
    moments, its gradient and the numbers that all parameters share.

    Args:
        outputs: the element and its moments after the update.
        first_own: the index of the element's first input.
        n_own: inputs of each element.
        first_scalar: the index of the input that is the first scalar.

    Raises:
        UpdateNotFusible: if it depends on another element.
    """
    graph = Graph()
    copies: dict[int, Node] = {}

    def copy(scalar: Scalar) -> Scalar:
        return copies[scalar.id] if isinstance(scalar, Node) else scalar

    n_inputs = n_own
    for node in Program(tuple(outputs), 0, 0).nodes():
        if node.op != PARAMETER:
            args = map(copy, node.args)
            copies[node.id] = graph.make(node.op, *args, kind=node.kind, bounds=node.bounds)
            continue
        (index,) = node.args
        assert isinstance(index, int)
        if first_own <= index < first_own + n_own:
            new_index = index - first_own
        elif index >= first_scalar:
            new_index = n_own + index - first_scalar
        else:
            raise UpdateNotFusible(
                "the fused engine can't compile this optimizer: it updates parameters together (as "
                "a norm of all gradients does), not each by itself"
            )
        n_inputs = max(n_inputs, new_index + 1)
        copies[node.id] = graph.make(PARAMETER, new_index)
    return Program(tuple(map(copy, outputs)), n_inputs, 0)


def owners_of(
    optimizer: optax.GradientTransformation, opt_state: Any, structure: Any
) -> tuple[int, ...]:
    """For every array of an optimizer's state, the index of the parameter array that it belongs to;
    -1 if it belongs to none.
    """
    numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
    owners = optax.tree_utils.tree_map_params(
        optimizer, lambda _, leaf: leaf, opt_state, numbered, transform_non_params=lambda _: -1
    )
    return tuple(jax.tree.leaves(owners))


def ranges_of(rules: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The ranges ``(begin, end, rule)`` of consecutive parameters that have the same update rule.

    Args:
        rules: of every array.
        sizes: elements of every array.
    """
    begin = 0
    for rule, leaves in groupby(zip(rules, sizes, strict=True), key=lambda leaf: leaf[0]):
        end = begin + sum(size for _, size in leaves)
        yield begin, end, rule
        begin = end
