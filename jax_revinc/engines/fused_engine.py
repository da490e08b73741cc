"""The programs of the fused engine: C++ generated from the model's jaxpr, compiled for this CPU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines.compiled_programs import Counted, ProgramKey, Programs, parameter_structs
from jax_revinc.engines.fused.build import has_library
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible, UpdateNotFusible
from jax_revinc.engines.fused.gradient import Loss
from jax_revinc.engines.fused.kept_sources import Keep, keep_for, read_kept
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.toolchain import end_compilers, find_compiler, lane_width
from jax_revinc.engines.fused.training import FusedTraining, OptaxTraining, Packed
from jax_revinc.engines.fused.vmap import OfEach, fused_outputs
from jax_revinc.objective import Params, eval_counts, mean_loss
from jax_revinc.optimizer import Hyperparameters, make_optimizer
from revinc.interrupts import lasting_interrupts
from revinc.weights import Shapes, StateDict, parameter_shapes

Training = FusedTraining | OptaxTraining
One = TypeVar("One")
Other = TypeVar("Other")

SECONDS_BETWEEN_LOOKS = 0.1


@functools.cache
def fused_programs(key: ProgramKey, *, many: bool) -> Programs:
    """Compile the fused engine's programs for training and evaluation. XLA runs the optimizer if it
    combines parameters, as clipping by the global norm does.

    A state is `Packed`. A lane is a model, or an example of the only model. Programs are kept, so
    that runs with other seeds or hyperparameters build nothing.

    Args:
        key: everything that is compiled in.
        many: whether to train many models side by side.

    Raises:
        NotFusible: if the model is not supported, or the compiled program disagrees with XLA's.
        CannotBuild: if there is no working compiler.
    """
    try:
        return build_programs(key, fused_training, many=many)
    except UpdateNotFusible:
        return optax_programs(key, many=many)


def optax_programs(key: ProgramKey, *, many: bool) -> Programs:
    """Compile only the gradient and the evaluation to C++, and let XLA run the Optax optimizer."""
    programs = build_programs(key, optax_training, many=many)
    return dataclasses.replace(programs, identity={**programs.identity, "optimizer": "xla"})


def build_programs(
    key: ProgramKey, make_training: Callable[..., Training], *, many: bool
) -> Programs:
    """Compile the fused engine's training and evaluation in parallel, each by its own compiler.

    Args:
        key: everything that is compiled in.
        make_training: builds the updates, from the key and `many`.
        many: whether to train many models side by side.
    """
    model = key.model

    def build_training() -> Training:
        with numerics(model):
            return make_training(key, many=many)

    def build_evaluation() -> OfEach:
        with numerics(model):
            return fused_evaluation(key, many=many)

    evaluation, training = side_by_side(build_evaluation, build_training)
    return Programs(
        identity={
            "name": "fused",
            "lanes": str(lane_width(model.dtype)),
            "compiler": str(find_compiler()),
        },
        start=jax.jit(training.start),
        advance=jax.jit(training.advance),
        count=jax.jit(partial(count, evaluation)),
        params=partial(unpack, parameter_shapes(model)),
    )


def side_by_side(
    build_one: Callable[[], One], build_other: Callable[[], Other]
) -> tuple[One, Other]:
    """Run two functions that compile programs in parallel, and return both results.

    Ctrl-C ends their compilers, and so both functions.
    """
    with lasting_interrupts() as raise_if_interrupted, ThreadPoolExecutor() as pool:
        one, other = pool.submit(build_one), pool.submit(build_other)
        try:
            built = one.result(), other.result()
            raise_if_interrupted()
            return built
        except KeyboardInterrupt:
            both: list[Future[Any]] = [one, other]
            while wait(both, timeout=SECONDS_BETWEEN_LOOKS).not_done:
                end_compilers()
            raise


def fused_training(key: ProgramKey, *, many: bool) -> FusedTraining:
    """Compile the training loop (loss, gradient and optimizer) into one C++ program."""
    n_hyperparameters = len(Hyperparameters._fields)
    return FusedTraining(
        loss_of(key),
        partial(make_optimizer, key.optimizer),
        Hyperparameters(*np.zeros(n_hyperparameters, key.model.dtype)),
        spec_of(key, many=many),
        keep_of(key, many=many),
    )


def optax_training(key: ProgramKey, *, many: bool) -> OptaxTraining:
    """Make a training loop of a gradient compiled to C++ and an Optax optimizer run by XLA."""
    return OptaxTraining(
        loss_of(key),
        partial(flat_optimizer, key),
        spec_of(key, many=many),
        keep_of(key, many=many),
    )


def flat_optimizer(
    key: ProgramKey, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    """Make the Optax optimizer of a training config for all parameters joined in one array."""
    without_effect = key.optimizer.without_effect
    optimizer = make_optimizer(key.optimizer._replace(without_effect=frozenset()), hyperparameters)
    if not without_effect:
        return optimizer
    shapes = parameter_shapes(key.model)
    each = [np.full(shapes[name], name not in without_effect).ravel() for name in sorted(shapes)]
    has_effect = np.concatenate(each)
    return optax.chain(optimizer, optax.stateless(lambda changes, _: has_effect * changes))


def fused_evaluation(key: ProgramKey, *, many: bool) -> OfEach:
    """Compile a program for each sequence's summed loss and number of tokens predicted right."""

    def counts(params: Params, sequence: Int[Array, " seq"]) -> Float[Array, " counts"]:
        loss, right = eval_counts(key.model, params, sequence, key.eval_positions)
        return jnp.stack([loss, right.astype(loss.dtype)])

    spec, keep = spec_of(key, many=many), keep_of(key, many=many)
    return fused_outputs(counts, spec, n_outputs=2, keep=keep)


def count(
    evaluation: OfEach,
    state: Packed,
    tokens: Int[Array, "*models n_sequences seq"],
    masks: Bool[Array, "*models splits n_sequences"],
) -> Counted:
    """For the training and the holdout split, the loss summed over all predicted tokens, and how
    many of the tokens are predicted right.
    """
    each = jnp.moveaxis(evaluation(state.params, tokens), -1, 0)[..., None, :]
    losses, right = jnp.where(masks, each, 0).sum(-1)
    return losses, right.astype(int)


def unpack(shapes: Shapes, state: Packed) -> StateDict:
    """Split the one parameter array of a training state into the model's parameters, by name.

    The order of a pytree is that of its sorted keys. This uses numpy, which is faster here than
    JAX: a run asks for the parameters after every chunk.
    """
    flat, params, end = np.asarray(state.params), {}, 0
    for name in sorted(shapes):
        shape = shapes[name]
        begin, end = end, end + int(np.prod(shape))
        params[name] = flat[..., begin:end].reshape(*flat.shape[:-1], *shape)
    return params


def loss_of(key: ProgramKey) -> Loss:
    """Make the training loss, as a function of a model's parameters and a batch of token ids."""
    return lambda params, batch: mean_loss(key.model, params, batch, key.objective)


def keep_of(key: ProgramKey, *, many: bool) -> Keep:
    """Make the function that returns the sources of a key's programs, kept or made anew."""
    return keep_for((key, many), spec_of(key, many=many).n_lanes)


def is_built(key: ProgramKey, *, many: bool) -> bool:
    """Whether the programs of a key were built on this machine before, so that they load at once.

    Args:
        key: everything that is compiled in.
        many: whether to train many models side by side.
    """
    try:
        n_lanes = spec_of(key, many=many).n_lanes

        def is_there(name: str) -> bool:
            source = read_kept((key, many), n_lanes, name)
            return source is not None and has_library(source)

        return (is_there("training") or is_there("gradient")) and is_there("outputs")
    except (NotFusible, CannotBuild):
        return False


def spec_of(key: ProgramKey, *, many: bool) -> Spec:
    """The sizes of parameters and examples that the fused engine compiles a program for."""
    return Spec(parameter_structs(key.model), key.length, key.model.d_vocab, many=many)
