"""A population as it is read: lazily, and while others still write it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer
from jax_revinc.population.chunks import DIVERGED
from jax_revinc.population.store import Store, read_store
from revinc import TrainConfig, UserError
from revinc.engine import METRICS, evaluation_steps
from revinc.sweep import run_of
from revinc.weights import StateDict, parameter_shapes


class Population:
    """The models of a store that were finished when it was opened. Only what is asked for is read.

    Models have numbers: those of the index of `metrics`. They stay when models are added.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._finished = store.finished_chunks()

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def config(self) -> TrainConfig:
        """The recipe. `run_config` has a model's own rates, split and seeds."""
        return self._store.config

    @property
    def engine(self) -> dict[str, str]:
        """What trained the models."""
        return self._store.engine

    @property
    def planned(self) -> pd.DataFrame:
        """Every model that the store has or will have: identity by number."""
        return self._store.models.drop(columns="row")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per finished model: rates, split, seeds, final losses and accuracies, the step it diverged at."""
        return self._read([DIVERGED, *METRICS])

    @property
    def steps(self) -> Int[np.ndarray, " evaluations"]:
        """The steps at which the models were evaluated."""
        return np.array(evaluation_steps(self.config))

    def curves(self, metric: str) -> Float[np.ndarray, "models evaluations"]:
        """One of `METRICS` at every evaluation, in the order of `metrics`.

        Raises:
            UserError: if there is no such metric, or a chunk is damaged.
        """
        if metric not in METRICS:
            raise UserError(f"there is no metric {metric!r}; choose among {', '.join(METRICS)}")
        column = f"{metric}_curve"
        return np.stack(list(self._read([column])[column]))

    def __len__(self) -> int:
        """How many models are finished."""
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Population({str(self.path)!r}: {len(self)} of {len(self.planned)} models)"

    def run_config(self, model: int) -> TrainConfig:
        """The config with which ``train`` trains a model: same weights, batches and split from the start.

        Raises:
            UserError: if the store has no such model.
        """
        if model not in self._store.models.index:
            raise UserError(f"{self.path} has no model {model}; it plans {len(self.planned)}")
        return run_of(self.config, self._store.models.loc[model])

    def model(self, model: int) -> HookedTransformer:
        """A finished model.

        Raises:
            UserError: if it is not there, or its chunk is damaged.
        """
        params = {name: array[0] for name, array in self.params([model]).items()}
        return HookedTransformer(self.config.model, params=params)

    def params(self, models: slice | Int[np.ndarray, " models"] | Sequence[int]) -> StateDict:
        """The weights of finished models, stacked on a first axis: made for ``jax.vmap``.

        Args:
            models: numbers; or a slice or a mask of the finished models, in the order of `metrics`.

        Raises:
            UserError: if a model is not there, or its chunk is damaged.
        """
        numbers = self._chosen(models)
        absent = np.setdiff1d(numbers, self._numbers)
        if len(absent):
            raise UserError(f"{self.path} has no finished model {absent[0]}")
        rows = self._store.models["row"].to_numpy()[numbers]
        chunks, places = np.divmod(rows, self._store.width)
        cfg = self.config.model
        params = {
            name: np.empty((len(numbers), *shape), cfg.dtype)
            for name, shape in parameter_shapes(cfg).items()
        }
        for chunk in np.unique(chunks):
            weights, here = self._read_weights(chunk), chunks == chunk
            for name, array in params.items():
                array[here] = weights[name][places[here]]
        return params

    @cached_property
    def _numbers(self) -> Int[np.ndarray, " models"]:
        of_chunks = [self._store.in_chunk(chunk).index for chunk in self._finished]
        return np.concatenate([np.zeros(0, int), *of_chunks])

    def _chosen(self, models: Any) -> Int[np.ndarray, " models"]:
        if isinstance(models, slice):
            return self._numbers[models]
        asked = np.asarray(models)
        return self._numbers[asked] if asked.dtype == bool else asked.astype(int)

    def _read(self, columns: list[str]) -> pd.DataFrame:
        chunks, store = self._store.chunks, self._store
        parts = [chunks.read(c, store.in_chunk(c), columns) for c in self._finished]
        if not parts:
            raise UserError(f"{self.path} has no finished models yet")
        return pd.concat(parts)

    def _read_weights(self, chunk: int) -> StateDict:
        return self._store.chunks.read_weights(chunk, len(self._store.in_chunk(chunk)))


def load(path: str | Path) -> Population:
    """Open the population in folder `path`, finished or not.

    Raises:
        UserError: if there is none, or it can't be read by this version.
    """
    return Population(read_store(Path(path)))
