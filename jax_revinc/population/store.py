"""The folder of a population: what it is of, which models it has, and where each of them is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jax_revinc.population.arrays import WeightArrays
from jax_revinc.population.chunks import Chunks
from revinc import TrainConfig, UserError
from revinc.records import read_checked_record
from revinc.sweep import IDENTITY, new_models, typed
from revinc.validation import require_int

FORMAT_VERSION = 1

CONFIG = "population.json"
MODELS = "models.parquet"
METRICS = "metrics"
WEIGHTS = "weights"
ATLAS = "atlas.html"

NO_MODELS = typed(pd.DataFrame(columns=["row", *IDENTITY])).astype({"row": "int64"})


@dataclass(frozen=True, eq=False)
class Store:
    """What a population's folder says of itself.

    Attributes:
        path: the folder.
        config: the recipe; models have their own values of `revinc.sweep.IDENTITY`.
        engine: what trained them, with its width.
        models: every model that is there or will be, by number: its `row` in the weight arrays, and `IDENTITY`.
            Models are added at the end, and keep their numbers.
        recipe: what all of its chunks have in common.
    """

    path: Path
    config: TrainConfig
    engine: dict[str, str]
    models: pd.DataFrame
    recipe: str

    @property
    def width(self) -> int:
        """Models of a chunk; the last that were asked for together may be fewer."""
        return int(self.engine["width"])

    @property
    def arrays(self) -> WeightArrays:
        return WeightArrays(self.path / WEIGHTS, self.config.model, self.width)

    @property
    def chunks(self) -> Chunks:
        return Chunks(self.path / METRICS, self.arrays, self.recipe)

    @property
    def n_chunks(self) -> int:
        return int(self.models["row"].iloc[-1]) // self.width + 1 if len(self.models) else 0

    def in_chunk(self, chunk: int) -> pd.DataFrame:
        """The models of a chunk, by number."""
        rows = self.models["row"].to_numpy()
        begin, end = np.searchsorted(rows, [chunk * self.width, (chunk + 1) * self.width])
        return self.models.iloc[begin:end]

    def with_models(self, asked: pd.DataFrame) -> Store:
        """The store with those of `asked` that it does not have yet, from a new chunk on."""
        added = new_models(asked, self.models)
        first_row = self.n_chunks * self.width
        added = added.assign(row=np.arange(first_row, first_row + len(added)))
        return replace(self, models=pd.concat([self.models, added], ignore_index=True))

    def finished_chunks(self) -> list[int]:
        """The chunks whose metrics are there."""
        there = {file.stem for file in (self.path / METRICS).glob("*.parquet")}
        return [chunk for chunk in range(self.n_chunks) if f"{chunk:06d}" in there]


def read_store(path: Path) -> Store:
    """Open a population's folder.

    Raises:
        UserError: if there is none, or it can't be read by this version.
    """
    record = read_checked_record(
        path / CONFIG, "population", FORMAT_VERSION, needed=("engine", "versions")
    )
    try:
        config = TrainConfig.from_dict(record)
        require_int("width", int(record["engine"]["width"]), at_least=1)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path / CONFIG} can't be read: {error}") from error
    try:
        models = pd.read_parquet(path / MODELS)
        models = typed(models[["row", *IDENTITY]])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path / MODELS} can't be read: {error}") from error
    engine = record["engine"]
    return Store(path, config, engine, models.rename_axis("model"), recipe_of(record, engine))


def recipe_of(sections: Mapping[str, Any], engine: Mapping[str, str]) -> str:
    """What tells whether two chunks are of one store.

    Made of the config's sections as they are on disk: a field that a later version has besides changes nothing.
    """
    config = {name: sections[name] for name in ("model", "task", "train")}
    return hashlib.sha256(json.dumps([config, engine], sort_keys=True).encode()).hexdigest()
