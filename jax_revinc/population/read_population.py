"""Read a population of trained models from disk, each file when needed, even during training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer
from jax_revinc.population.best_evaluations import best_table
from jax_revinc.population.shards import DIVERGED
from jax_revinc.population.store import Store, read_store
from revinc import TrainConfig, UserError
from revinc.engine import METRICS, evaluation_steps
from revinc.errors import unknown_name
from revinc.sweep import run_of
from revinc.tasks import Task
from revinc.validation import require_int, require_path
from revinc.weights import StateDict, parameter_shapes


class Population:
    """The finished models of a population's folder, read from its files when needed.

    Only models that were finished when the store was opened are there. Every model has a number,
    the index of `metrics`. It stays when models are added.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._finished = store.finished_shards()

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def config(self) -> TrainConfig:
        """The training config that all models share; see `run_config` for that of one model."""
        return self._store.config

    @property
    def engine(self) -> dict[str, str]:
        """The engine that trained the models: name, version and width (models side by side)."""
        return self._store.engine

    @property
    def planned(self) -> pd.DataFrame:
        """A table with a row for each model, trained or not: its swept fields and seeds."""
        return self._store.models.drop(columns="row")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A table with a row per finished model: swept fields, seeds, final losses and accuracies,
        and `diverged_at`, the step at which it diverged.
        """
        return self._read([DIVERGED, *METRICS])

    @property
    def steps(self) -> Int[np.ndarray, " evaluations"]:
        """The steps at which the models were evaluated."""
        return np.array(evaluation_steps(self.config))

    def curves(self, metric: str) -> Float[np.ndarray, "models evaluations"]:
        """A metric's value at every evaluation, for every finished model in the order of `metrics`.

        Args:
            metric: one of `revinc.engine.METRICS`, such as ``"holdout_loss"``.

        Raises:
            UserError: if there is no such metric, or a shard is damaged.
        """
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        column = f"{metric}_curve"
        return np.stack(list(self._read([column])[column]))

    @cached_property
    def best(self) -> pd.DataFrame:
        """A table with a row per finished model, read from the curves: when it was at its best.

        The columns are `best_step`, the step of the best evaluation; `best_holdout_accuracy`, the
        holdout accuracy there; and `lost_it`, whether the model solved the holdout at some
        evaluation and no longer at the last one. See `revinc.best_evaluation`. A model that
        diverged before its first evaluation has no best step. The weights of a best step are not
        stored.
        """
        columns = ["holdout_accuracy_curve", "holdout_loss_curve"]
        table = self._read(columns)
        accuracy, loss = (np.stack(list(table[name])) for name in columns)
        return best_table(table.index, self.steps, accuracy, loss, self.config.task.solved)

    def __len__(self) -> int:
        """The number of finished models."""
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Population({str(self.path)!r}: {len(self)} of {len(self.planned)} models)"

    def run_config(self, model: int) -> TrainConfig:
        """The config with which ``jax-revinc train`` would train this model by itself.

        Args:
            model: the model's number.

        Raises:
            UserError: if the store has no such model.
        """
        number = require_int("model", model)
        if not 0 <= number < len(self._store.models):
            raise UserError(
                f"the population in {self.path} has no model {number}, but {len(self.planned)} "
                "models, numbered from 0"
            )
        return run_of(self.config, self._store.models.loc[number])

    def model(self, model: int) -> HookedTransformer:
        """Read a finished model, by its number, as a `HookedTransformer`.

        Args:
            model: the model's number.

        Raises:
            UserError: if it is not finished, or its shard is damaged.
        """
        chosen = self.params([require_int("model", model)])
        params = {name: array[0] for name, array in chosen.items()}
        return HookedTransformer(self.config.model, params=params)

    def params(self, models: slice | Int[np.ndarray, " models"] | Sequence[int]) -> StateDict:
        """The weights of finished models [models, ...] for every parameter, to use in ``jax.vmap``.

        Args:
            models: numbers of models, or a slice or mask of the finished ones in the order of
                `metrics`.

        Raises:
            UserError: if a model is not finished, its shard is damaged, or `models` is of another
                kind.
        """
        numbers = self._chosen(models)
        absent = np.setdiff1d(numbers, self._numbers)
        if len(absent):
            raise UserError(f"the population in {self.path} has no finished model {absent[0]}")
        rows = self._store.models["row"].to_numpy()[numbers]
        shards, places = np.divmod(rows, self._store.width)
        cfg = self.config.model
        params = {
            name: np.empty((len(numbers), *shape), cfg.dtype)
            for name, shape in parameter_shapes(cfg).items()
        }
        for shard in np.unique(shards):
            weights, here = self._read_weights(shard), shards == shard
            for name, array in params.items():
                array[here] = weights[name][places[here]]
        return params

    @cached_property
    def _numbers(self) -> Int[np.ndarray, " models"]:
        of_shards = [self._store.in_shard(shard).index for shard in self._finished]
        return np.concatenate([np.zeros(0, int), *of_shards])

    def _chosen(self, models: Any) -> Int[np.ndarray, " models"]:
        if isinstance(models, slice):
            return self._numbers[checked_slice(models)]
        try:
            asked = np.asarray(models)
        except ValueError:
            raise UserError(
                "models must be a list of model numbers, a mask or a slice, not lists of several "
                "lengths"
            ) from None
        if asked.ndim == 1 and asked.dtype == bool:
            if len(asked) != len(self):
                raise UserError(
                    f"a mask of models must have an entry for each of the {len(self)} finished "
                    f"models, not {len(asked)} entries"
                )
            return self._numbers[asked]
        if asked.ndim == 1 and asked.size == 0:
            return self._numbers[:0]
        if asked.ndim != 1 or asked.dtype.kind not in "iu":
            raise UserError(
                f"models must be a list of model numbers, a mask or a slice, not {kind_of(asked)}"
            )
        if asked.max() > np.iinfo(np.int64).max:
            raise UserError(f"the population in {self.path} has no finished model {asked.max()}")
        return asked.astype(np.int64)

    def _read(self, columns: list[str]) -> pd.DataFrame:
        shards, store = self._store.shards, self._store
        parts = [shards.read(c, store.in_shard(c), columns) for c in self._finished]
        if not parts:
            raise UserError(f"the population in {self.path} has no finished models yet")
        return pd.concat(parts)

    def _read_weights(self, shard: int) -> StateDict:
        return self._store.shards.read_weights(shard, len(self._store.in_shard(shard)))


def checked_slice(models: slice) -> slice:
    """Return `models`; raise a UserError if its ends are not integers, or its step is 0."""
    try:
        models.indices(0)
    except (TypeError, ValueError) as error:
        raise UserError(f"models can't be chosen by the slice {models}: {error}") from None
    return models


def kind_of(asked: np.ndarray) -> str:
    """The data type and the number of dimensions of an array, in words."""
    kinds = {
        "b": "booleans",
        "f": "fractions",
        "c": "complex numbers",
        "U": "words",
        "i": "integers",
    }
    return f"{kinds.get(asked.dtype.kind, asked.dtype.name)} in {asked.ndim} dimensions"


def load(path: str | Path, task: str | type[Task] | None = None) -> Population:
    """Open the population in folder `path`, finished or not.

    Args:
        path: the store.
        task: the expected task, a name or class. Your own task is imported only if it is given
            here, it is imported already, or your settings trust its module.

    Raises:
        UserError: if there is no store, this version can't read it, or its task is not the expected
            one or may not be imported.
    """
    return Population(read_store(require_path("the population's folder", path), task))
