"""The folder of a population: its config, the table of its models, and its shards of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from jax_revinc.population.model_origin import Origin
from jax_revinc.population.model_table import read_plan
from jax_revinc.population.shards import Shards
from jax_revinc.population.weight_arrays import WeightArrays
from revinc import TrainConfig, UserError
from revinc.json_records import read_checked_record
from revinc.sweep import IDENTITY, MOST_MODELS, new_models, with_column_types
from revinc.tasks import Task

FORMAT_VERSION = 1

CONFIG = "population.json"
MODELS = "models.parquet"
METRICS = "metrics"
WEIGHTS = "weights"
ATLAS = "atlas.html"
TABLES = "atlas"
KEY = ".key"
"""The file with the secret by which the processes of a job know their messages."""

NO_MODELS = with_column_types(pd.DataFrame(columns=["row", *IDENTITY])).astype({"row": "int64"})


@dataclass(frozen=True, eq=False)
class Store:
    """A population's folder: its config, engine and table of models, without metrics and weights.

    Attributes:
        path: the folder.
        config: the training config; models have their own values of `revinc.sweep.IDENTITY`.
        engine: the name, version and width of the engine that trains the models.
        models: the plan: every model, finished or not, by number, with its `row` in the weight
            arrays and the columns of `IDENTITY`. Models are added at the end and keep their number.
        origin: the config and engine that every shard must come from.
    """

    path: Path
    config: TrainConfig
    engine: dict[str, str]
    models: pd.DataFrame
    origin: Origin

    @property
    def width(self) -> int:
        """The number of models that are trained side by side and stored together, in a shard."""
        return int(self.engine["width"])

    @property
    def arrays(self) -> WeightArrays:
        return WeightArrays(self.path / WEIGHTS, self.config.model, self.width)

    @property
    def shards(self) -> Shards:
        return Shards(self.path / METRICS, self.arrays, self.config, self.origin)

    @property
    def n_shards(self) -> int:
        return int(self.models["row"].iloc[-1]) // self.width + 1 if len(self.models) else 0

    def in_shard(self, shard: int) -> pd.DataFrame:
        """The rows of the table of models that belong to a shard, whether trained yet or not."""
        rows = self.models["row"].to_numpy()
        begin, end = np.searchsorted(rows, [shard * self.width, (shard + 1) * self.width])
        return self.models.iloc[begin:end]

    def with_models(self, asked: pd.DataFrame) -> Store:
        """Copy this store and add those models of the table `asked` that it does not list yet."""
        added = new_models(asked, self.models)
        first_row = self.n_shards * self.width
        added = added.assign(row=np.arange(first_row, first_row + len(added)))
        return replace(self, models=pd.concat([self.models, added], ignore_index=True))

    def finished_shards(self) -> list[int]:
        """The numbers of the planned shards (groups of models) that are finished."""
        return [shard for shard in self.shards.finished() if shard < self.n_shards]

    def last_shard_there(self) -> int:
        """The number of the last shard (group of models) with files on disk; -1 if none has."""
        return max([-1, *self.shards.finished(), self.arrays.last_piece()])


def read_store(path: Path, task: str | type[Task] | None = None) -> Store:
    """Open a population's folder as a `Store`.

    Args:
        path: the folder.
        task: the expected task, as for `TrainConfig.from_dict`.

    Raises:
        UserError: if there is no store, it can't be read, or its task may not be imported.
    """
    record = read_checked_record(
        path / CONFIG, "population", FORMAT_VERSION, needed=("engine", "versions")
    )
    try:
        config = TrainConfig.from_dict(record, task)
        check_width(record["engine"])
    except UserError as error:
        raise UserError(
            f"the population's config {path / CONFIG} can't be read: {error}"
        ) from error
    engine = record["engine"]
    models = read_plan(path / MODELS, int(engine["width"]), config)
    return Store(path, config, engine, models, Origin.of(record, engine))


def check_width(engine: Mapping[str, str]) -> None:
    """Raise a UserError if the recorded engine has no valid width (models trained side by side)."""
    width = engine.get("width", "")
    if not re.fullmatch("[1-9][0-9]{0,8}", width) or int(width) > MOST_MODELS:
        raise UserError(
            "the engine's width, the number of models that it trains side by side, must be 1 to "
            f"{MOST_MODELS}, not {width!r:.80}"
        )
