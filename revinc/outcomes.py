"""What became of many seeds of one recipe: a table with a row per seed, and the file that holds it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig
from revinc.engine import METRICS, Engine, evaluation_steps
from revinc.errors import UserError
from revinc.provenance import installed_versions
from revinc.recorded_tables import UNREADABLE, read_table, said, write_table
from revinc.trainer import points
from revinc.weights import StateDict

FIRST_LOSSES = 100
"""Batch losses kept of every seed, from the first update on: before training's chaos sets in."""

COLUMNS = ("seed", "losses", *METRICS)

PARTS = ("config", "made_by")
"""What the file's record has."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Runs that differ in their seeds alone.

    Attributes:
        config: the recipe; each run is ``config.with_seed(seed)``.
        table: one row per seed, ascending: `seed`, `losses` (of the first `FIRST_LOSSES` updates), and
            every one of `METRICS` at steps 0, ``eval_every``, ... and the last, each as an array.
        made_by: package versions, and the command that made them.
    """

    config: TrainConfig
    table: pd.DataFrame
    made_by: dict[str, str]

    @property
    def steps(self) -> np.ndarray:
        """The steps at which the runs were evaluated."""
        return np.array(evaluation_steps(self.config))

    def curves(self, metric: str) -> np.ndarray:
        """A metric of every seed at every evaluation: [seed, evaluation]."""
        return np.stack(list(self.table[metric]))

    def final(self, metric: str) -> np.ndarray:
        """A metric of every seed after the last step."""
        return self.curves(metric)[:, -1]

    def save(self, path: Path) -> None:
        """Write ``path``, a Parquet file, atomically."""
        record = {"config": self.config.to_dict(), "made_by": self.made_by}
        write_table(path, self.table, record)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote.

        Raises:
            UserError: if the file is missing, damaged or some other program's.
        """
        try:
            table, record = read_table(path)
            lacking = {*COLUMNS, *PARTS} - {*table.column_names, *record}
            if lacking:
                raise UserError(f"it lacks {', '.join(sorted(lacking))}")
            config = TrainConfig.from_dict(record["config"])
        except UNREADABLE as error:
            raise UserError(f"{path} holds no outcomes that can be read: {said(error)}") from error
        return cls(config, table.to_pandas(), record["made_by"])


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
    begin = Checkpoint(0, engine.to_arrays(engine.start(weights)))
    (end,) = deque(points(cfg, engine, begin), maxlen=1)
    return end.history
