"""What became of many seeds of one recipe: a table with a row per seed, and the file that holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from revinc.atomic import write_atomically
from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig
from revinc.engine import METRICS, Engine
from revinc.errors import UserError
from revinc.run_writer import installed_versions
from revinc.trainer import points
from revinc.weights import StateDict

FIRST_LOSSES = 100
"""Batch losses kept of every seed, from the first update on: before training's chaos sets in."""

RECORD = b"jax-revinc"
"""The key in the file's metadata under which the recipe, the versions and the command stand."""


@dataclass(frozen=True)
class Outcomes:
    """Runs that differ in their seeds alone.

    Attributes:
        config: the recipe; each run is ``config.with_seed(seed)``.
        table: one row per seed, ascending: `seed`, `losses` (of the first `FIRST_LOSSES` updates), and
            every one of `METRICS` at steps 0, ``eval_every``, ..., each as an array.
        made_by: package versions, and the command that made them.
    """

    config: TrainConfig
    table: pd.DataFrame
    made_by: dict[str, str]

    @property
    def steps(self) -> np.ndarray:
        """The steps at which the runs were evaluated."""
        return np.array(
            sorted({*range(0, self.config.steps, self.config.eval_every), self.config.steps})
        )

    def curves(self, metric: str) -> np.ndarray:
        """A metric of every seed at every evaluation: [seed, evaluation]."""
        return np.stack(list(self.table[metric]))

    def final(self, metric: str) -> np.ndarray:
        """A metric of every seed after the last step."""
        return self.curves(metric)[:, -1]

    def save(self, path: Path) -> None:
        """Write ``path``, a Parquet file, atomically."""
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        record = json.dumps({"config": self.config.to_dict(), "made_by": self.made_by})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), RECORD: record})
        write_atomically(path, partial(pq.write_table, table))

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote.

        Raises:
            UserError: if the file is damaged or some other program's.
        """
        try:
            table = pq.read_table(path)
            record = json.loads(table.schema.metadata[RECORD])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} holds no outcomes that can be read: {error}") from error
        return cls(TrainConfig.from_dict(record["config"]), table.to_pandas(), record["made_by"])


def made_by(command: str, **more: str) -> dict[str, str]:
    """The record of how outcomes came about."""
    return {"command": command, **more, **installed_versions()}


def outcome(seed: int, history: History) -> dict[str, object]:
    """A finished run's row."""
    losses = np.asarray(history.loss_table["loss"])[:FIRST_LOSSES]
    curves = {metric: np.asarray(history.metrics[metric]) for metric in METRICS}
    return {"seed": seed, "losses": losses, **curves}


def run_history(cfg: TrainConfig, engine: Engine, weights: StateDict) -> History:
    """What is measured of a run of `engine` from `weights` to the end; nothing is written.

    Raises:
        Diverged: if the loss becomes NaN or infinite.
    """
    *_, last = points(cfg, engine, Checkpoint(0, engine.to_arrays(engine.start(weights))))
    return last.history
