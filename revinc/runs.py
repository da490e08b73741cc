"""The run folder, as it is read: config, weights, metrics and snapshots by their names on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow

from revinc.config import TrainConfig
from revinc.errors import UserError
from revinc.records import read_checked_record
from revinc.weights import StateDict, load_state_dict

FORMAT_VERSION = 1

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.parquet"
LOSSES = "losses.parquet"
SNAPSHOTS = "snapshots"
CHECKPOINT = "checkpoint.safetensors"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
WANDB = "wandb"

AnyRun = TypeVar("AnyRun", bound="Run")


@dataclass(frozen=True)
class Run:
    """A run folder. It is finished once it holds its final weights."""

    path: Path
    config: TrainConfig
    engine: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def load(cls: type[AnyRun], path: str | Path) -> AnyRun:
        """Open the run in folder `path`, finished or not.

        Raises:
            UserError: if there is no run, or its config can't be read by this version.
        """
        path = Path(path)
        record = read_checked_record(
            path / CONFIG, "run", FORMAT_VERSION, needed=("engine", "versions")
        )
        try:
            config = TrainConfig.from_dict(record)
        except UserError as error:
            raise UserError(f"{path / CONFIG}: {error}") from error
        return cls(
            path=path,
            config=config,
            engine=record["engine"],
            versions=record["versions"],
        )

    @property
    def finished(self) -> bool:
        return (self.path / WEIGHTS).exists()

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per evaluation: step, train_loss, holdout_loss, train_accuracy, holdout_accuracy."""
        return self._read_table(METRICS)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """One row per update: the step before it and the loss of its batch there."""
        return self._read_table(LOSSES)

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps whose weights are kept, ascending; the first is 0."""
        files = (self.path / SNAPSHOTS).glob("*.safetensors")
        return sorted(int(file.stem) for file in files if file.stem.isdecimal())

    def state_dict(self, step: int | None = None) -> StateDict:
        """The final weights, or those after `step` updates, by their TransformerLens names.

        Raises:
            UserError: if the run is unfinished, has no snapshot of that step, or the file is damaged.
        """
        if step is None:
            self._require_finished()
            return load_state_dict(self.path / WEIGHTS, self.config.model)
        if step not in self.snapshot_steps:
            kept = ", ".join(map(str, self.snapshot_steps)) or "none"
            raise UserError(f"{self.path} has no snapshot of step {step} (kept: {kept})")
        return load_state_dict(snapshot_path(self.path, step), self.config.model)

    def _read_table(self, name: str) -> pd.DataFrame:
        self._require_finished()
        if not (self.path / name).is_file():
            raise UserError(f"{self.path / name} does not exist; the run folder is incomplete")
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{self.path / name} can't be read: {error}") from error

    def _require_finished(self) -> None:
        if not self.finished:
            kept = ", ".join(map(str, self.snapshot_steps))
            raise UserError(
                f"the run in {self.path} is not finished; go on with it by --resume, or name a step "
                f"whose weights were kept: {kept}"
            )


def snapshot_path(run: Path, step: int) -> Path:
    """Where the weights after `step` updates are kept."""
    return run / SNAPSHOTS / f"{step:06d}.safetensors"
