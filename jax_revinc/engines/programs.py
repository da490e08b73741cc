"""What an engine's programs do, what is compiled into them, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jax_revinc.objective import Params
from jax_revinc.optimizer import Fixed, Rates, optimizer_numbers
from revinc import HookedTransformerConfig, TrainConfig
from revinc.dataset import Dataset
from revinc.engine import METRICS
from revinc.objective import Objective, make_objective

Counted = tuple[Float[Array, "*models splits"], Int[Array, "*models splits"]]
"""Over the sequences of every split, the summed loss of the predicted tokens, and how many are right."""


class Recipe(NamedTuple):
    """What is compiled in: runs that differ in other things share their programs.

    Attributes:
        model: the model's config.
        fixed: the optimizer's numbers but for its rates.
        objective: what training minimises.
        predicted: the positions of the tokens that evaluations look at.
        length: tokens of a sequence.
    """

    model: HookedTransformerConfig
    fixed: Fixed
    objective: Objective
    predicted: tuple[int, ...]
    length: int


def make_recipe(cfg: TrainConfig, data: Dataset) -> Recipe:
    """What is compiled in for a run."""
    fixed, _ = optimizer_numbers(cfg)
    return Recipe(cfg.model, fixed, make_objective(cfg), data.predicted, data.tokens.shape[-1])


class Programs(Protocol):
    """The programs of one recipe: for one model, or for many, whose arrays have an axis of models first."""

    identity: dict[str, str]
    """What runs must share for their bits to be the same, beside the device: the engine's ``name``, ..."""

    def start(self, rates: Rates, params: Params) -> Any:
        """The state before the first update."""

    def advance(
        self,
        rates: Rates,
        state: Any,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        batches: Int[ArrayLike, "*models capacity batch"],
        n_steps: Int[ArrayLike, ""],
    ) -> tuple[Any, Float[Array, "*models capacity"]]:
        """The first `n_steps` updates of `batches`, and each batch's loss before its update."""

    def count(
        self,
        state: Any,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        masks: Bool[ArrayLike, "*models splits n_sequences"],
    ) -> Counted:
        """What an evaluation counts."""

    def params(self, state: Any) -> Mapping[str, Array | np.ndarray]:
        """The parameters."""


MakePrograms = Callable[[Recipe, bool], Programs]
"""From a recipe, and whether there are many models, to its programs."""


def padded(
    batches: Int[np.ndarray, "*models steps batch"], capacity: int
) -> Int[np.ndarray, "*models capacity batch"]:
    """The batches, and as many behind them, never looked at, as make `capacity` steps."""
    steps = [(0, 0)] * (batches.ndim - 2) + [(0, capacity - batches.shape[-2])]
    return np.pad(batches, [*steps, (0, 0)], mode="edge")


def as_metrics(counted: Counted, data: Dataset) -> dict[str, Float[np.ndarray, "*models"]]:
    """The values of `METRICS` from what was counted over the training and the holdout split."""
    n_tokens = len(data.predicted) * np.array([data.train_mask.sum(), data.holdout_mask.sum()])
    means = [np.asarray(summed, np.float64) / n_tokens for summed in counted]
    columns = (mean[..., split] for mean in means for split in (0, 1))
    return dict(zip(METRICS, columns, strict=True))
