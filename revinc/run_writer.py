"""The run folder, as it is written: one writer at a time, every file whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from revinc import runs
from revinc.atomic import TEMPORARY_SUFFIX, write_atomically
from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig, differences
from revinc.errors import UserError
from revinc.runs import Run
from revinc.weights import StateDict, read_safetensors, save_state_dict

RECORDED_PACKAGES = ("jax-revinc", "numpy", "jax", "flax", "optax", "torch", "transformer-lens")

OUR_FILES = (runs.CONFIG, runs.WEIGHTS, runs.METRICS, runs.LOSSES, runs.CHECKPOINT, runs.REPORT)


class RunWriter:
    """Claims a folder for one run and writes it. Use it as a context manager: it holds a lock.

    A new run begins with `draw_weights` as its snapshot of step 0, so that a resume never draws.

    Raises:
        UserError: if the folder holds a run and neither `resume` nor `overwrite` is asked for; if it
            holds something else; if another process is writing it; or if the run that would be
            resumed has another config or engine.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        engine: dict[str, str],
        draw_weights: Callable[[], StateDict],
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        claim_folder(path, resume, overwrite)
        self._lock = FileLock(path / runs.LOCK, timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UserError(f"{path} is being written by another process") from error
        try:
            if resume and (path / runs.CONFIG).exists():
                check_same_run(Run.load(path), config, engine)
            else:
                self._begin(config, engine, draw_weights())
            for leftover in path.rglob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, config: TrainConfig, engine: dict[str, str], weights: StateDict) -> None:
        # The config comes last and goes first: only a folder that has one is a run.
        for name in OUR_FILES:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / runs.SNAPSHOTS, ignore_errors=True)
        (self.path / runs.SNAPSHOTS).mkdir()
        self.save_snapshot(0, weights)
        record = {
            "format_version": runs.FORMAT_VERSION,
            "engine": engine,
            "versions": installed_versions(),
            **config.to_dict(),
        }
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(self.path / runs.CONFIG, lambda temporary: temporary.write_text(text))

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def save_snapshot(self, step: int, weights: StateDict) -> None:
        """Keep the weights after `step` updates."""
        save_state_dict(runs.snapshot_path(self.path, step), weights)

    def save_checkpoint(self, point: Checkpoint) -> None:
        """Replace the point from which a resume goes on."""
        save_state_dict(self.path / runs.CHECKPOINT, point.to_arrays())

    def load_checkpoint(self) -> Checkpoint | None:
        """What `save_checkpoint` last saved, or None.

        Raises:
            UserError: if the file is damaged.
        """
        file = self.path / runs.CHECKPOINT
        if not file.exists():
            return None
        try:
            return Checkpoint.from_arrays(read_safetensors(file))
        except KeyError as error:
            raise UserError(
                f"{file} is no checkpoint ({error} is missing); delete it to start again at step 0"
            ) from error

    def finish(self, weights: StateDict, history: History) -> None:
        """Write the metrics, then the final weights, whose presence says that the run is whole."""
        write_atomically(self.path / runs.METRICS, history.metrics.to_parquet)
        write_atomically(self.path / runs.LOSSES, history.loss_table.to_parquet)
        save_state_dict(self.path / runs.WEIGHTS, weights)
        (self.path / runs.CHECKPOINT).unlink(missing_ok=True)


def claim_folder(path: Path, resume: bool, overwrite: bool) -> None:
    """Make sure that `path` is a folder in which a run may be written; create it if need be."""
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other; choose one")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose a folder for the run")
    is_run = (path / runs.CONFIG).is_file()
    if is_run and not (resume or overwrite):
        raise UserError(
            f"{path} already holds a run; pass --resume to go on with it, --overwrite to replace it, "
            "or choose another --out"
        )
    if not is_run and path.is_dir() and not is_remnant(path):
        raise UserError(f"{path} holds files that belong to no run; choose another --out")
    if is_run and overwrite:
        runs.read_config(path)  # refuses to delete what some other program calls config.json
    path.mkdir(parents=True, exist_ok=True)


def is_remnant(folder: Path) -> bool:
    """Whether a folder without a config is empty, or holds what a run killed early has left there."""
    names = {file.name.removesuffix(TEMPORARY_SUFFIX) for file in folder.iterdir()}
    return not names or (runs.LOCK in names and names <= {runs.LOCK, runs.SNAPSHOTS, *OUR_FILES})


def check_same_run(run: Run, config: TrainConfig, engine: dict[str, str]) -> None:
    """Raise a UserError unless a resume of `run` would be the same run."""
    if changed := differences(run.config, config):
        raise UserError(
            f"{run.path} can't be resumed with another config ({'; '.join(changed)}); "
            "leave these options out, or start a new run"
        )
    if run.engine != engine:
        raise UserError(
            f"{run.path} was trained by engine {run.engine}; it can't be resumed by {engine}, "
            "whose rounding differs"
        )


def installed_versions() -> dict[str, str]:
    """The versions of the packages that a run's numbers depend on, where installed."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
