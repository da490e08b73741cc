"""An optimizer, taken apart: what it does to one number, and what all numbers of a model share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array
from jax.extend import core
from jaxtyping import Float, Int

from jax_revinc.engines.fused.algebra import Algebra
from jax_revinc.engines.fused.apart import Apart, of_one_number
from jax_revinc.engines.fused.dag import PARAMETER, Program
from jax_revinc.engines.fused.emit import rule_text
from jax_revinc.engines.fused.errors import NotFusible, UpdateNotFusible
from jax_revinc.engines.fused.front import text_of
from jax_revinc.engines.fused.indexing import Scalars
from jax_revinc.engines.fused.primitives import as_scalars

MakeOptimizer = Callable[[Any], optax.GradientTransformation]
"""From what is traced, such as a learning rate (any pytree of scalars), to an optimizer."""

Common = list[Array]
"""The numbers of an optimizer's state that are no parameter's own, such as a count."""


class Update(NamedTuple):
    """An optimizer's update.

    Attributes:
        rules: what becomes of one number. The parameters of such a program are the number, what the optimizer keeps of
            it, its gradient, and what all share; its outputs, the first two after the update.
        ranges: which numbers (begin, end) follow which rule.
        n_kept: how many numbers are kept of each.
        n_shared: how many are shared.
        share: from rates and what is common to what is common after an update, and what is shared during it.
        owners: for every array of the optimizer's state, the parameters' array that it belongs to, or -1.
        origin: the text of what it was made from.
    """

    rules: tuple[Program, ...]
    ranges: tuple[tuple[int, int, int], ...]
    n_kept: int
    n_shared: int
    share: Callable[[Any, Common], tuple[Common, Float[Array, " n_shared"]]]
    owners: tuple[int, ...]
    origin: str

    def split(self, opt_state: Any) -> tuple[list[Array], Common]:
        """What is kept of the parameters: the first of all their arrays, then the second; and what is common."""
        leaves = jax.tree.leaves(opt_state)
        common = [leaf for leaf, owner in zip(leaves, self.owners, strict=True) if owner < 0]
        return [leaves[at] for at in places(self.owners)], common

    def shared(
        self, rates: Any, common: Common, *, capacity: int, n_steps: Int[Array, ""]
    ) -> tuple[Common, Float[Array, "capacity n_shared"]]:
        """What is common after the first `n_steps` of `capacity` updates, and what is shared during each."""

        def step(common: Common, _: None) -> tuple[Common, Common]:
            return self.share(rates, common)[0], common

        # A loop over counts alone, which is short work; what follows from them, for all updates at once.
        last, before = jax.lax.scan(step, common, length=capacity)
        _, shared = jax.vmap(lambda _, common: self.share(rates, common))(
            jnp.arange(capacity), before
        )
        reached = jax.tree.map(
            lambda each, end: jnp.concatenate([each, end[None]])[n_steps], before, last
        )
        return reached, shared


def places(owners: Sequence[int]) -> list[int]:
    """The places of the arrays that have owners: every owner's first, then every owner's second, and so on."""
    turns: dict[int, int] = {}
    found = []
    for place, owner in enumerate(owners):
        if owner >= 0:
            turns[owner] = turns.get(owner, -1) + 1
            found.append((turns[owner], owner, place))
    return [place for _, _, place in sorted(found)]


def updated(
    make_optimizer: MakeOptimizer, rates: Any, opt_state: Any, params: Any, grads: Any
) -> tuple[Any, Any]:
    """Parameters and the optimizer's state after an update, as optax has it."""
    changes, opt_state = make_optimizer(rates).update(grads, opt_state, params)
    return optax.apply_updates(params, changes), opt_state


def trace_update(
    make_optimizer: MakeOptimizer, rates: Any, params: Any, dtype: npt.DTypeLike
) -> Update:
    """An optimizer's update, from its own code.

    Every array is taken to have two numbers, each of which must become the same function of what is its own.

    Args:
        make_optimizer: the optimizer's constructor.
        rates: what it is given, or the shapes and types of that.
        params: the parameters, or their shapes and types.
        dtype: theirs.

    Raises:
        UpdateNotFusible: if numbers depend on each other, as with a norm over all gradients, or if a primitive that is
            applied to them is not supported.
    """
    leaves, structure = jax.tree.flatten(params)
    n = len(leaves)
    pairs = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct((2,), dtype)] * n)
    rates = jax.tree.map(lambda rate: jax.ShapeDtypeStruct((), rate.dtype), rates)
    opt_state = jax.eval_shape(lambda r, p: make_optimizer(r).init(p), rates, pairs)
    owners = owners_of(make_optimizer(jax.tree.map(lambda _: 0.0, rates)), opt_state, structure)
    at = places(owners)
    n_kept, more = divmod(len(at), n)
    if more:
        raise UpdateNotFusible("its optimizer does not keep the same of all parameters")

    closed = jax.make_jaxpr(partial(updated, make_optimizer))(rates, opt_state, pairs, pairs)
    jaxpr = closed.jaxpr
    state, rest = jaxpr.invars[-2 * n - len(owners) : -2 * n], jaxpr.invars[-2 * n :]
    state_after, numbers_after = jaxpr.outvars[n:], jaxpr.outvars[:n]
    own = [*rest[:n], *(state[i] for i in at), *rest[n:]]
    own_after = [*numbers_after, *(state_after[i] for i in at)]
    common = [var for var in jaxpr.invars if var not in set(own)]
    common_after = [var for var, owner in zip(state_after, owners, strict=True) if owner < 0]

    algebra, width = Algebra(), 2 + n_kept
    values: dict[core.Var, Scalars] = dict(
        zip(jaxpr.constvars, map(as_scalars, closed.consts), strict=True)
    )
    for k, var in enumerate(own):
        slot, leaf = divmod(k, n)
        first = [2 * leaf * width + slot, (2 * leaf + 1) * width + slot]
        values[var] = np.array([algebra.make(PARAMETER, index) for index in first], object)
    apart = Apart(algebra, values, set(common), n_before=2 * n * width, dtype=np.dtype(dtype))
    try:
        for equation in jaxpr.eqns:
            apart.take(equation)
    except NotFusible as why:
        raise UpdateNotFusible(str(why)) from why
    if not all(map(apart.is_common, common_after)):
        raise UpdateNotFusible("its optimizer keeps a number that depends on all parameters")

    after = [
        [apart.scalars(own_after[slot * n + leaf]) for slot in range(1 + n_kept)]
        for leaf in range(n)
    ]
    rules, rule_of_leaf = rules_of(after, width, apart.n_before)
    shares = jaxpr.replace(
        invars=common, outvars=[*common_after, *apart.shared], eqns=apart.equations
    )
    run = core.jaxpr_as_fun(core.ClosedJaxpr(shares, closed.consts))

    def share(rates: Any, common: Common) -> tuple[Common, Array]:
        results = run(*jax.tree.leaves(rates), *common)
        common, shared = results[: len(common)], results[len(common) :]
        return common, jnp.array(shared, np.dtype(dtype))

    return Update(
        rules=rules,
        ranges=tuple(ranges(rule_of_leaf, [leaf.size for leaf in leaves])),
        n_kept=n_kept,
        n_shared=len(apart.shared),
        share=share,
        owners=owners,
        origin=text_of(closed),
    )


def rules_of(
    after: Sequence[Sequence[Scalars]], width: int, n_before: int
) -> tuple[tuple[Program, ...], list[int]]:
    """The different rules by which numbers become what they are after an update, and which of them each array follows.

    Args:
        after: by array, what its two numbers are afterwards, and what is kept of them.
        width: the parameters that are a number's own.
        n_before: the index of the first shared number.
    """
    found: dict[str, Program] = {}
    followed = []
    for leaf, slots in enumerate(after):
        one, other = (
            of_one_number(
                [both[e] for both in slots],
                range((2 * leaf + e) * width, (2 * leaf + e + 1) * width),
                n_before,
            )
            for e in (0, 1)
        )
        text = rule_text(one)
        if rule_text(other) != text:
            raise UpdateNotFusible("its optimizer does not treat all numbers of an array alike")
        found.setdefault(text, one)
        followed.append(list(found).index(text))
    return tuple(found.values()), followed


def owners_of(
    optimizer: optax.GradientTransformation, opt_state: Any, structure: Any
) -> tuple[int, ...]:
    """For every array of an optimizer's state the parameters' array that it belongs to, or -1."""
    numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
    owners = optax.tree_utils.tree_map_params(
        optimizer, lambda _, leaf: leaf, opt_state, numbered, transform_non_params=lambda _: -1
    )
    return tuple(jax.tree.leaves(owners))


def ranges(rules: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The numbers (begin, end) that follow one rule in a row, and that rule."""
    begin = 0
    for rule, leaves in groupby(zip(rules, sizes, strict=True), key=lambda leaf: leaf[0]):
        end = begin + sum(size for _, size in leaves)
        yield begin, end, rule
        begin = end
