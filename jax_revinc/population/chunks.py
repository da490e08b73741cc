"""One chunk of a population: the models that were trained side by side, written once, checked when read."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jax_revinc.population.arrays import WeightArrays
from revinc import UserError
from revinc.engine import METRICS
from revinc.provenance import installed_versions, source_commit
from revinc.recorded_tables import UNREADABLE, read_table, said, write_table
from revinc.sweep import IDENTITY
from revinc.weights import StateDict

DIVERGED = "diverged_at"


class Chunks:
    """The chunks of a store. A chunk is finished once its metrics are there: they come last, and seal its weights.

    Args:
        folder: where the metrics are, a Parquet file for every chunk.
        arrays: where the weights are.
        recipe: what all chunks of the store have in common, so that a chunk of another one is recognised.
    """

    def __init__(self, folder: Path, arrays: WeightArrays, recipe: str) -> None:
        self.folder, self.arrays, self.recipe = folder, arrays, recipe

    def path(self, chunk: int) -> Path:
        """Where the metrics of a chunk are."""
        return self.folder / f"{chunk:06d}.parquet"

    def write(self, chunk: int, models: pd.DataFrame, weights: StateDict) -> None:
        """Write the weights of a chunk, then what was measured of its models.

        Raises:
            OSError: if the disk is full or not writable; the chunk is then not finished.
        """
        self.arrays.write(chunk, weights)
        record = {"recipe": self.recipe, "weights": digest(weights), **provenance()}
        write_table(self.path(chunk), models, record)

    def read(self, chunk: int, models: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """What was measured of a chunk's `models`, in some columns beside their identity.

        Raises:
            UserError: if the chunk is missing, damaged, or of other models.
        """
        identity = list(IDENTITY)
        table, record = read_metrics(self.path(chunk), ["model", *identity, *columns])
        found = table.set_index("model").astype({DIVERGED: "Int64"} if DIVERGED in table else {})
        if record.get("recipe") != self.recipe or not found[identity].equals(models[identity]):
            raise UserError(f"{self.path(chunk)} holds other models than those that belong there")
        return found

    def read_weights(self, chunk: int, n_models: int) -> StateDict:
        """The weights of a chunk, [models, ...].

        Raises:
            UserError: if they are missing, damaged, or not those whose metrics the chunk has.
        """
        _, record = read_metrics(self.path(chunk), [])
        try:
            weights = {name: a[:n_models] for name, a in self.arrays.read(chunk).items()}
        except UserError as error:
            raise UserError(f"chunk {chunk} of {self.folder.parent} is damaged: {error}") from error
        if digest(weights) != record.get("weights"):
            raise UserError(
                f"chunk {chunk} of {self.folder.parent} is damaged: its weights are not those that were "
                "written; --resume trains it again"
            )
        return weights

    def problem(self, chunk: int, models: pd.DataFrame) -> str | None:
        """What is wrong with a chunk whose metrics are there, if anything is."""
        try:
            self.read(chunk, models, [DIVERGED, *METRICS, *curve_names()])
            self.read_weights(chunk, len(models))
        except UserError as error:
            return str(error)
        return None


def read_metrics(path: Path, columns: list[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Some columns of a chunk's metrics, and its record.

    Raises:
        UserError: if they can't be read.
    """
    try:
        rows, record = read_table(path, columns)
        table = rows.to_pandas(ignore_metadata=True)
    except UNREADABLE as error:
        raise UserError(f"{path} is damaged: {said(error)}") from error
    if lacking := set(columns) - set(table.columns):
        raise UserError(f"{path} is damaged: it lacks {', '.join(sorted(lacking))}")
    return table, record


def curve_names() -> list[str]:
    """The columns that hold a metric at every evaluation."""
    return [f"{metric}_curve" for metric in METRICS]


@functools.cache
def provenance() -> dict[str, object]:
    """What made the numbers: that of when this process began, for its source may change meanwhile."""
    return {"versions": installed_versions(), "commit": source_commit()}


def digest(weights: StateDict) -> str:
    """What tells whether weights are the same bits."""
    hashed = hashlib.sha256()
    for name in sorted(weights):
        hashed.update(np.ascontiguousarray(weights[name]).tobytes())
    return hashed.hexdigest()
