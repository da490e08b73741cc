"""Reading a run folder: its config, weights, metrics and snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from revinc.best_evaluation import best_evaluation
from revinc.checksums import Checksums
from revinc.config import TrainConfig
from revinc.config_summary import short_summary
from revinc.engine import METRICS as MEASURED
from revinc.engine import evaluation_steps
from revinc.errors import UserError, several, shown
from revinc.json_records import config_digest, read_checked_record
from revinc.parquet_tables import read_numbers
from revinc.tasks import Task
from revinc.validation import require_int, require_path
from revinc.weights import StateDict, check_finite, load_state_dict

if TYPE_CHECKING:
    import pandas as pd

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

KEEP = "keep"
"""The key in a run's record that names what the run keeps beside the snapshots of its config."""

BEST = "best"
"""The name of the weights of a run's best evaluation."""

KEPT = (BEST,)
"""What a run can keep beside the snapshots of its config."""

POPULATION = "population"
"""The key in an engine's record that names the population from which a run was taken."""

MOST_DIGITS = 19
"""A step has fewer digits than this."""

AnyRun = TypeVar("AnyRun", bound="Run")


@dataclass(frozen=True)
class Run:
    """A run folder: the files of one training run. It is finished if it holds the final weights.

    Every file is checked when it is read, against the run's config and its checksums, which the
    folders of early versions lack.

    Attributes:
        path: the folder.
        config: the training config.
        engine: the identity of the engine that trains the run.
        versions: the package versions that began the run.
        recipe: the digest of config and engine that seals the run's files.
        keep: "best" if the run keeps the weights of its best evaluation, else None. It changes no
            bit of the training, so it is not part of the config.
    """

    path: Path
    config: TrainConfig
    engine: dict[str, str]
    versions: dict[str, str]
    recipe: str
    keep: str | None = None

    def __repr__(self) -> str:
        config = short_summary(self.config)["config"]
        state = "finished" if self.finished else "not finished"
        return (
            f"{type(self).__name__}({str(self.path)!r}: {config}; engine {self.engine['name']}; "
            f"{self.config.steps:,} steps, {state})"
        )

    @classmethod
    def load(cls: type[AnyRun], path: str | Path, task: str | type[Task] | None = None) -> AnyRun:
        """Open the run in folder `path`, finished or not.

        Args:
            path: the run folder.
            task: the run's task, by name or class. A task of your own is imported only if you name
                it here, if it is imported already, or if your settings trust its module.

        Raises:
            UserError: if there is no run; if its config can't be read by this version, or has
                changed since the run's files were written; or if its task is another than `task`,
                or not allowed to be imported.
        """
        path = require_path("the run's folder", path)
        record = read_checked_record(
            path / CONFIG, "run", FORMAT_VERSION, needed=("engine", "versions")
        )
        try:
            config = TrainConfig.from_dict(record, task)
        except UserError as error:
            raise UserError(f"the config in {path / CONFIG} can't be used: {error}") from error
        if "name" not in record["engine"]:
            raise UserError(f"{path / CONFIG} is damaged: the engine's record has no name")
        keep = record.get(KEEP)
        if keep not in (None, *KEPT):
            raise UserError(
                f"{path / CONFIG} is damaged: {KEEP} must be {' or '.join(KEPT)}, not {shown(keep)}"
            )
        run = cls(
            path=path,
            config=config,
            engine=record["engine"],
            versions=record["versions"],
            recipe=config_digest(record, record["engine"]),
            keep=keep,
        )
        checksums = run.checksums
        if checksums is not None and checksums.recipe != run.recipe:
            raise UserError(
                f"{path / CONFIG} is not the config of this run: it was edited, or is another "
                f"run's, as its digest in {checksums.source} shows; restore it from a copy"
            )
        return run

    @property
    def finished(self) -> bool:
        """Whether the folder holds the final weights."""
        return (self.path / WEIGHTS).exists()

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A table with one row per evaluation: the step, and loss and accuracy on both splits."""
        return self._read_table(METRICS, evaluation_steps(self.config), MEASURED)

    @property
    def is_exported(self) -> bool:
        """Whether the run was taken from a population, which keeps no losses of batches."""
        return POPULATION in self.engine

    @cached_property
    def losses(self) -> pd.DataFrame:
        """A table with one row per update: the step before it, and the loss of its batch.

        Raises:
            UserError: if the run was taken from a population, or a file is missing or damaged.
        """
        if self.is_exported:
            raise UserError(
                f"{self.path} was taken from a population, which keeps no losses of batches"
            )
        return self._read_table(LOSSES, range(self.config.steps), ["loss"])

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps after which the run kept its weights as a snapshot, ascending from 0."""
        names = [file.name for file in (self.path / SNAPSHOTS).glob("*.safetensors")]
        return sorted(step for name in names if (step := step_of(name)) is not None)

    @property
    def best_step(self) -> int:
        """The step of the best evaluation, as `revinc.best_evaluation.best_evaluation` defines it.

        Raises:
            UserError: if the run is unfinished, or its metrics are missing or damaged.
        """
        accuracy, loss = (
            self.metrics[f"holdout_{name}"].to_numpy() for name in ("accuracy", "loss")
        )
        return int(self.metrics["step"].iloc[int(best_evaluation(accuracy, loss))])

    def state_dict(self, step: int | str | None = None) -> StateDict:
        """The final weights, or those after `step` updates, by their TransformerLens names.

        Args:
            step: the number of updates; "best" for the step of the best evaluation; None for the
                final weights.

        Raises:
            UserError: if the run is unfinished or has no snapshot of that step, or if the file is
                damaged, another run's, or holds NaN or infinite values.
        """
        if isinstance(step, str) and step == BEST:
            number: int | None = self._best_snapshot()
        else:
            number = None if step is None else require_int("step", step)
        weights = self.recorded_weights(number)
        check_finite(weights, str(self.path / weights_name(number)))
        return weights

    def _best_snapshot(self) -> int:
        if (step := self.best_step) not in self.snapshot_steps:
            raise UserError(
                f"{self.path} was best at step {step}, but has no snapshot of it; a run that is "
                f"trained with --keep {BEST} keeps it"
            )
        return step

    def recorded_weights(self, step: int | None = None) -> StateDict:
        """The final weights, or those after `step` updates, even if they are NaN or infinite."""
        if step is None:
            self._require_finished()
        else:
            step = require_int("step", step)
            self._require_snapshot(step)
        return load_state_dict(self._checked(weights_name(step)), self.config.model)

    def _require_snapshot(self, step: int) -> None:
        if step not in self.snapshot_steps:
            kept = several([str(kept) for kept in self.snapshot_steps]) or "none"
            raise UserError(f"{self.path} has no snapshot of step {step} (it has: {kept})")
        if step > self.config.steps:
            raise UserError(
                f"{self.path / weights_name(step)} is not a file of this run, which has "
                f"{self.config.steps} steps; move it away"
            )

    def _read_table(self, name: str, steps: Sequence[int], columns: Sequence[str]) -> pd.DataFrame:
        self._require_finished()
        return read_numbers(self._checked(name), steps, columns)

    def _checked(self, name: str) -> Path:
        """Check that a file in the folder is as the run wrote it, and return its path."""
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{path} does not exist; the run folder is incomplete")
        if self.checksums is None or self.checksums.allow(self.path, name):
            return path
        # The file may have been written since the checksums were read.
        if (checksums := Checksums.read(self.path)) is not None:
            checksums.check(self.path, name)
        return path

    @cached_property
    def checksums(self) -> Checksums | None:
        """The recorded checksums of the run's files, read once; None if the folder has none."""
        return Checksums.read(self.path)

    def _require_finished(self) -> None:
        if not self.finished:
            kept = several([str(kept) for kept in self.snapshot_steps])
            raise UserError(
                f"the run in {self.path} is not finished; go on with it by --resume, or name a "
                f"step whose weights were kept: {kept}"
            )


def weights_name(step: int | None = None) -> str:
    """The name of the file, in a run folder, with the final weights or the weights after `step`."""
    return WEIGHTS if step is None else f"{SNAPSHOTS}/{step:06d}.safetensors"


def snapshot_path(run: Path, step: int) -> Path:
    """The path of the file with the weights after `step` updates."""
    return run / weights_name(step)


def step_of(name: str) -> int | None:
    """The step of a snapshot, from its file's name; None if the name is not a snapshot's."""
    stem = name.removesuffix(".safetensors")
    is_number = stem.isascii() and stem.isdecimal() and len(stem) < MOST_DIGITS
    return int(stem) if is_number and weights_name(int(stem)) == f"{SNAPSHOTS}/{name}" else None
