"""The programs that are generated from the model's jaxpr, and compiled for this CPU."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jax_revinc.engines.fused.compiler import find_compiler
from jax_revinc.engines.fused.cpu import lane_width
from jax_revinc.engines.fused.errors import UpdateNotFusible
from jax_revinc.engines.fused.gradient import Loss
from jax_revinc.engines.fused.optax_training import OptaxTraining
from jax_revinc.engines.fused.outputs import OfEach, fused_outputs
from jax_revinc.engines.fused.training import FusedTraining, Packed
from jax_revinc.engines.programs import Counted, Programs, Recipe
from jax_revinc.numerics import numerics
from jax_revinc.objective import Params, mean_loss, summed
from jax_revinc.optimizer import Rates, make_optimizer
from revinc import HookedTransformerConfig
from revinc.weights import StateDict, parameter_shapes

Training = FusedTraining | OptaxTraining


@functools.cache
def fused_programs(recipe: Recipe, many: bool) -> Programs:
    """The programs of a recipe: training as one, unless its optimizer looks at all parameters together.

    Raises:
        NotFusible: where the model can't be fused, or what is compiled turns out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """
    try:
        return FusedPrograms(recipe, many)
    except UpdateNotFusible:
        return OptaxPrograms(recipe, many)


class FusedPrograms:
    """See `jax_revinc.engines.programs.Programs`. A state is `Packed`; lanes are models, or examples of one."""

    def __init__(self, recipe: Recipe, many: bool) -> None:
        model = recipe.model
        self._shapes = parameter_shapes(model)
        params, n_tokens = shapes_of(model), model.d_vocab

        def counted(params: Params, sequence: Int[Array, " seq"]) -> Float[Array, " counted"]:
            loss, right = summed(model, params, sequence, recipe.predicted)
            return jnp.stack([loss, right.astype(loss.dtype)])

        def build_counted() -> OfEach:
            with numerics(model):
                return fused_outputs(counted, params, recipe.length, n_tokens, many=many)

        def build_training() -> Training:
            with numerics(model):
                return self.make_training(recipe, many)

        with ThreadPoolExecutor() as pool:  # compilers run side by side
            building = pool.submit(build_counted)
            self._training = pool.submit(build_training).result()
            self._counted = building.result()
        lanes, compiler = lane_width(model.dtype), find_compiler()
        self.identity = {"name": "fused", "lanes": str(lanes), "compiler": str(compiler)}

    def make_training(self, recipe: Recipe, many: bool) -> Training:
        """What makes updates."""
        model = recipe.model
        return FusedTraining(
            loss_of(recipe),
            partial(make_optimizer, recipe.fixed),
            Rates(*np.zeros(2, model.dtype)),
            shapes_of(model),
            recipe.length,
            model.d_vocab,
            many=many,
        )

    def start(self, rates: Rates, params: Params) -> Packed:
        return start(self._training, rates, params)

    def advance(
        self,
        rates: Rates,
        state: Packed,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        batches: Int[ArrayLike, "*models capacity batch"],
        n_steps: Int[ArrayLike, ""],
    ) -> tuple[Packed, Float[Array, "*models capacity"]]:
        return advance(self._training, rates, state, tokens, batches, n_steps)

    def count(
        self,
        state: Packed,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        masks: Bool[ArrayLike, "*models splits n_sequences"],
    ) -> Counted:
        return count(self._counted, state.params, tokens, masks)

    def params(self, state: Packed) -> StateDict:
        # Faster than JAX: a run asks for them after every chunk. A pytree's order is that of its keys.
        flat, found, end = np.asarray(state.params), {}, 0
        for name in sorted(self._shapes):
            shape = self._shapes[name]
            begin, end = end, end + int(np.prod(shape))
            found[name] = flat[..., begin:end].reshape(*flat.shape[:-1], *shape)
        return found


@partial(jax.jit, static_argnums=0)
def start(training: Training, rates: Rates, params: Params) -> Packed:
    return training.start(rates, params)


@partial(jax.jit, static_argnums=0)
def advance(
    training: Training,
    rates: Rates,
    state: Packed,
    tokens: Int[Array, "*models n_sequences seq"],
    batches: Int[Array, "*models capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[Packed, Float[Array, "*models capacity"]]:
    return training.advance(rates, state, tokens, batches, n_steps)


@partial(jax.jit, static_argnums=0)
def count(
    counted: OfEach,
    params: Float[Array, "*models n_parameters"],
    tokens: Int[Array, "*models n_sequences seq"],
    masks: Bool[Array, "*models splits n_sequences"],
) -> Counted:
    each = jnp.moveaxis(counted(params, tokens), -1, 0)[..., None, :]
    losses, right = jnp.where(masks, each, 0).sum(-1)
    return losses, right.astype(int)


class OptaxPrograms(FusedPrograms):
    """`FusedPrograms`, but that the optimizer is optax' own, in a loop that XLA runs."""

    def __init__(self, recipe: Recipe, many: bool) -> None:
        super().__init__(recipe, many)
        self.identity = {**self.identity, "optimizer": "xla"}

    def make_training(self, recipe: Recipe, many: bool) -> Training:
        """What makes updates."""
        model = recipe.model
        return OptaxTraining(
            loss_of(recipe),
            partial(optimizer_of_numbers, recipe),
            shapes_of(model),
            recipe.length,
            model.d_vocab,
            many=many,
        )


def optimizer_of_numbers(recipe: Recipe, rates: Rates) -> optax.GradientTransformation:
    """`make_optimizer` for all parameters in one array."""
    without_effect = recipe.fixed.without_effect
    optimizer = make_optimizer(recipe.fixed._replace(without_effect=frozenset()), rates)
    if not without_effect:
        return optimizer
    shapes = parameter_shapes(recipe.model)
    each = [np.full(shapes[name], name not in without_effect).ravel() for name in sorted(shapes)]
    has_effect = np.concatenate(each)
    return optax.chain(optimizer, optax.stateless(lambda changes, _: has_effect * changes))


def loss_of(recipe: Recipe) -> Loss:
    """What is minimised."""
    return lambda params, batch: mean_loss(recipe.model, params, batch, recipe.objective)


def shapes_of(cfg: HookedTransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters' shapes and types."""
    shapes = parameter_shapes(cfg)
    return {name: jax.ShapeDtypeStruct(shape, cfg.dtype) for name, shape in shapes.items()}
