"""One chunk of a population: the models that were trained side by side, written once, checked when read."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jax_revinc.population.arrays import WeightArrays
from revinc import UserError
from revinc.atomic import write_atomically
from revinc.engine import METRICS
from revinc.provenance import installed_versions, source_commit
from revinc.sweep import IDENTITY
from revinc.weights import StateDict

RECORD = b"jax-revinc"
"""The key in a file's metadata under which its record stands."""

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
        record = {
            "recipe": self.recipe,
            "weights": digest(weights),
            "versions": installed_versions(),
            "commit": source_commit(),
        }
        table = pa.Table.from_pandas(models, preserve_index=False)
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), RECORD: json.dumps(record)}
        )
        write_atomically(self.path(chunk), partial(pq.write_table, table))

    def read(self, chunk: int, models: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """What was measured of a chunk's `models`, in some columns beside their identity.

        Raises:
            UserError: if the chunk is missing, damaged, or of other models.
        """
        path = self.path(chunk)
        try:
            with pq.ParquetFile(path) as file:
                table = file.read(columns=["model", *IDENTITY, *columns])
                record = json.loads((file.schema_arrow.metadata or {}).get(RECORD, b"{}"))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
        lacking = {"model", *IDENTITY, *columns} - set(table.column_names)
        if lacking:
            raise UserError(f"{path} is damaged: it lacks {', '.join(sorted(lacking))}")
        found = table.to_pandas().set_index("model")
        if record.get("recipe") != self.recipe or not found[list(IDENTITY)].equals(
            models[list(IDENTITY)]
        ):
            raise UserError(f"{path} holds models of another population")
        return found

    def read_weights(self, chunk: int, n_models: int) -> StateDict:
        """The weights of a chunk, [models, ...].

        Raises:
            UserError: if they are missing, damaged, or not those whose metrics the chunk has.
        """
        sealed = json.loads(pq.read_metadata(self.path(chunk)).metadata[RECORD])["weights"]
        try:
            weights = {name: a[:n_models] for name, a in self.arrays.read(chunk).items()}
        except UserError as error:
            raise UserError(f"chunk {chunk} of {self.folder.parent} is damaged: {error}") from error
        if digest(weights) != sealed:
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


def curve_names() -> list[str]:
    """The columns that hold a metric at every evaluation."""
    return [f"{metric}_curve" for metric in METRICS]


def digest(weights: StateDict) -> str:
    """What tells whether weights are the same bits."""
    hashed = hashlib.sha256()
    for name in sorted(weights):
        hashed.update(np.ascontiguousarray(weights[name]).tobytes())
    return hashed.hexdigest()
