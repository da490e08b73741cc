"""The compiled functions of an engine (`Programs`), and the key that says which runs share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jax_revinc.objective import Params
from jax_revinc.optimizer import Hyperparameters, OptimizerSpec, optimizer_settings
from revinc import HookedTransformerConfig, TrainConfig
from revinc.dataset import Dataset
from revinc.engine import METRICS
from revinc.objective import Objective, make_objective
from revinc.tasks import eval_positions
from revinc.weights import parameter_shapes

Tokens = Int[ArrayLike, "*models n_sequences seq"]
Rows = Int[ArrayLike, "*models capacity batch"]
Masks = Bool[ArrayLike, "*models splits n_sequences"]
Losses = Float[Array, "*models capacity"]
Counted = tuple[Float[Array, "*models splits"], Int[Array, "*models splits"]]
"""For each split, the summed loss of its eval positions, and how many of their tokens are right."""


class ProgramKey(NamedTuple):
    """The parts of a training config that are compiled into programs; runs with equal keys share
    the programs.

    Attributes:
        model: the model config.
        optimizer: the numbers of the optimizer that are not traced.
        objective: the loss that training minimises.
        eval_positions: the positions whose token is predicted when a split is evaluated.
        length: tokens of a sequence.
    """

    model: HookedTransformerConfig
    optimizer: OptimizerSpec
    objective: Objective
    eval_positions: tuple[int, ...]
    length: int


def make_program_key(cfg: TrainConfig) -> ProgramKey:
    """Make the `ProgramKey` of a training config: all parts that are compiled into programs."""
    spec, _ = optimizer_settings(cfg)
    length = cfg.task.sequences().shape[1]
    return ProgramKey(cfg.model, spec, make_objective(cfg), eval_positions(cfg.task), length)


@dataclass(frozen=True)
class Programs:
    """An engine's compiled functions that train and evaluate one model or many.

    A state is opaque to the caller. For many models every array has a leading axis of models; the
    tokens have it only where each model has its own.

    Attributes:
        identity: what runs must share, beside the device, for their bits to be equal: ``name``, ...
        start: the state before the first update, from hyperparameters and params.
        advance: the state after the first `n_steps` updates, and the loss of each batch before its
            update, from hyperparameters, state, tokens, rows and `n_steps`.
        count: the losses and right answers of each split, from state, tokens and the splits' masks.
        params: the params of a state.
    """

    identity: Mapping[str, str]
    start: Callable[[Hyperparameters, Params], Any]
    advance: Callable[[Hyperparameters, Any, Tokens, Rows, int], tuple[Any, Losses]]
    count: Callable[[Any, Tokens, Masks], Counted]
    params: Callable[[Any], Mapping[str, Array | np.ndarray]]


class MakePrograms(Protocol):
    """The type of functions that compile an engine's `Programs`, for one model or for many."""

    def __call__(self, key: ProgramKey, *, many: bool) -> Programs: ...


def parameter_structs(cfg: HookedTransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The shape and type of every parameter of a model, by name."""
    shapes = parameter_shapes(cfg)
    return {name: jax.ShapeDtypeStruct(shape, cfg.dtype) for name, shape in shapes.items()}


def pad_rows(
    rows: Int[np.ndarray, "*models steps batch"], capacity: int
) -> Int[np.ndarray, "*models capacity batch"]:
    """Pad the example indices of batches to `capacity` steps by repeating the last batch; the
    repeats are never trained on.
    """
    steps = [(0, 0)] * (rows.ndim - 2) + [(0, capacity - rows.shape[-2])]
    return np.pad(rows, [*steps, (0, 0)], mode="edge")


def as_metrics(counted: Counted, data: Dataset) -> dict[str, Float[np.ndarray, "*models"]]:
    """Compute mean losses and accuracies from each split's summed loss and right predictions."""
    n_tokens = len(data.eval_positions) * np.array([data.train_mask.sum(), data.holdout_mask.sum()])
    means = [np.asarray(summed, np.float64) / n_tokens for summed in counted]
    columns = (mean[..., split] for mean in means for split in (0, 1))
    return dict(zip(METRICS, columns, strict=True))
