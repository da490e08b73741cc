"""The run folder, as it is written: one writer at a time, every file whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from revinc import runs
from revinc.atomic import TEMPORARY_SUFFIX, write_atomically
from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig, differences
from revinc.errors import UserError
from revinc.folders import LOCK, make_folder
from revinc.provenance import installed_versions
from revinc.records import read_record, write_record
from revinc.runs import Run
from revinc.weights import StateDict, check_state_dict, read_safetensors, save_state_dict

OUR_FILES = (runs.CONFIG, runs.WEIGHTS, runs.METRICS, runs.LOSSES, runs.CHECKPOINT, runs.REPORT)
OUR_FOLDERS = (runs.SNAPSHOTS, runs.TENSORBOARD, runs.WANDB)


class RunWriter:
    """Claims a folder for one run and writes it. Use it as a context manager: it holds a lock.

    A new run begins with `init`, or else `draw_weights()`, as its snapshot of step 0: a resume never draws.

    Raises:
        UserError: if the folder holds a run and neither `resume` nor `overwrite` is asked for; if it
            holds something else; if another process is writing it; if `init` does not fit the config;
            or if the run that would be resumed has another config, engine or beginning.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        engine: dict[str, str],
        draw_weights: Callable[[], StateDict],
        init: StateDict | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        check_request(path, resume, overwrite)
        self.path = path
        make_folder(path, "run", runs.CONFIG, {*OUR_FILES, *OUR_FOLDERS})
        self._lock = FileLock(path / LOCK, timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UserError(f"{path} is being written by another process") from error
        try:
            # Only now: until the lock was ours another process may have finished a run here.
            self.resumed = resume and (path / runs.CONFIG).exists()
            if init is not None:
                init = check_state_dict(config.model, init, "init")
            if self.resumed:
                check_same_run(Run.load(path), config, engine, init)
            else:
                refuse_to_replace(path, overwrite)
                weights = draw_weights() if init is None else init
                self._begin(config, engine, weights, "init_seed" if init is None else "given")
            for name in OUR_FILES:
                (path / (name + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
            for leftover in (path / runs.SNAPSHOTS).glob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        except BaseException:
            self._lock.release()
            raise

    def _begin(
        self, config: TrainConfig, engine: dict[str, str], weights: StateDict, source: str
    ) -> None:
        # The config comes last and goes first: only a folder that has one is a run.
        for name in OUR_FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in OUR_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / runs.SNAPSHOTS).mkdir()
        self.save_snapshot(0, weights)
        record = {
            "format_version": runs.FORMAT_VERSION,
            "engine": engine,
            "initial_weights": source,
            "versions": installed_versions(),
            **config.to_dict(),
        }
        write_record(self.path / runs.CONFIG, record)

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


def check_request(path: Path, resume: bool, overwrite: bool) -> None:
    """Raise the UserError with which a `RunWriter` would be refused, where that can be said without claiming `path`."""
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other; choose one")
    if not resume:
        refuse_to_replace(path, overwrite)


def refuse_to_replace(path: Path, overwrite: bool) -> None:
    """Raise a UserError if `path` holds a run that is not to be overwritten, or is no run at all."""
    if not (path / runs.CONFIG).exists():
        return
    if not overwrite:
        raise UserError(
            f"{path} already holds a run; pass --resume to go on with it, --overwrite to replace it, "
            "or choose another --out"
        )
    read_record(
        path / runs.CONFIG, "run"
    )  # a config.json of some other program is none of ours to delete


def check_same_run(
    run: Run, config: TrainConfig, engine: dict[str, str], init: StateDict | None
) -> None:
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
    if init is not None and any((init[k] != w).any() for k, w in run.state_dict(0).items()):
        raise UserError(f"{run.path} can't be resumed from other initial weights than its own")
