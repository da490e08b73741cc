"""The results of training one config with many seeds, as a table with a row for each seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig
from revinc.dataset import Dataset
from revinc.engine import METRICS, Engine, evaluation_steps
from revinc.errors import UserError, one_line
from revinc.parquet_tables import UNREADABLE, read_table, write_table
from revinc.provenance import installed_versions
from revinc.tasks import Task
from revinc.trainer import points
from revinc.weights import StateDict

FIRST_LOSSES = 100
"""The batch losses kept of every seed: those of the first updates, before chaos sets in."""

COLUMNS = ("seed", "losses", *METRICS)

PARTS = ("config", "made_by")
"""The parts of the file's record."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The losses and metrics of runs that differ in their seeds alone, as a table.

    Attributes:
        config: the training config; each run is ``config.with_seed(seed)``.
        table: one row per seed, ascending: `seed`, `losses` (of the first `FIRST_LOSSES` updates),
            and each of `METRICS` at steps 0, ``eval_every``, ... and the last, as an array.
        made_by: the command that made the outcomes, and package versions.
    """

    config: TrainConfig
    table: pd.DataFrame
    made_by: dict[str, str]

    @property
    def steps(self) -> np.ndarray:
        """The steps at which the runs were evaluated."""
        return np.array(evaluation_steps(self.config))

    def curves(self, metric: str) -> np.ndarray:
        """The values of a metric, as an array with a row per seed and a column per evaluation."""
        return np.stack(list(self.table[metric]))

    def final(self, metric: str) -> np.ndarray:
        """The value of a metric after the last step, for each seed."""
        return self.curves(metric)[:, -1]

    def save(self, path: Path) -> None:
        """Write the outcomes to a Parquet file, whole or not at all."""
        record = {"config": self.config.to_dict(), "made_by": self.made_by}
        write_table(path, self.table, record)

    @classmethod
    def load(cls, path: Path, task: str | type[Task] | None = None) -> Outcomes:
        """Read outcomes from a Parquet file that `save` wrote.

        Args:
            path: the file.
            task: the task, by name or class; allows one of your own to be imported, as
                `TrainConfig.from_dict` says.

        Raises:
            UserError: if the file is missing, damaged or another program's, or its task is not
                allowed to be imported.
        """
        try:
            columns, record = read_table(path)
            lacking = {*COLUMNS, *PARTS} - {*columns.column_names, *record}
            if lacking:
                raise UserError(
                    "the file of training outcomes lacks these columns or entries: "
                    f"{', '.join(sorted(lacking))}"
                )
            made_by = record["made_by"]
            if not isinstance(made_by, dict) or not isinstance(made_by.get("command"), str):
                raise UserError(
                    "the file of training outcomes does not name the command that made it"
                )
            config, table = TrainConfig.from_dict(record["config"], task), columns.to_pandas()
            check_rows(config, table)
        except (*UNREADABLE, TypeError) as error:
            raise UserError(
                f"{path} holds no training outcomes that can be read: {one_line(error)}"
            ) from error
        return cls(config, table, made_by)


def check_rows(cfg: TrainConfig, table: pd.DataFrame) -> None:
    """Raise a UserError unless a table of outcomes has one valid row for each seed."""
    seeds = table["seed"]
    if not pd.api.types.is_integer_dtype(seeds) or not seeds.is_unique or (seeds < 0).any():
        raise UserError("the seeds in the file are not distinct integers from 0 on")
    lengths = dict.fromkeys(METRICS, len(evaluation_steps(cfg)))
    lengths["losses"] = min(cfg.steps, FIRST_LOSSES)
    for column, length in lengths.items():
        for seed, numbers in zip(seeds, table[column], strict=True):
            if not is_curve(numbers, length):
                raise UserError(
                    f"the column {column} must hold {length} finite numbers for seed {seed}"
                )


def is_curve(numbers: object, length: int) -> bool:
    """Whether `numbers` is an array of `length` finite floats."""
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind != "f":
        return False
    return numbers.shape == (length,) and bool(np.isfinite(numbers).all())


def made_by(command: str, **more: str) -> dict[str, str]:
    """A record of how training results were made: the command, package versions, and `more`."""
    return {"command": command, **more, **installed_versions()}


def outcome(seed: int, history: History) -> dict[str, object]:
    """A finished run's row for a table of outcomes: seed, losses of the first updates, metrics."""
    columns = history.metric_columns
    losses = history.loss_columns["loss"][:FIRST_LOSSES]
    return {"seed": seed, "losses": losses, **{metric: columns[metric] for metric in METRICS}}


def run_history(data: Dataset, engine: Engine, weights: StateDict) -> History:
    """Train a run to its end without writing a folder, and return all of its losses and metrics.

    Args:
        data: the dataset of the run.
        engine: executes the run.
        weights: the initial weights.

    Raises:
        Diverged: if the loss becomes NaN or infinite.
    """
    begin = Checkpoint(0, engine.to_arrays(engine.start(weights)))
    history = begin.history
    for point in points(engine, data, begin):
        history = point.checkpoint.history
    return history
