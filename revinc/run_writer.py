"""The writer of a run folder, which locks the folder and writes each file whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np

from revinc import folders, runs
from revinc.atomic_files import remove_leftovers, write_bytes
from revinc.checkpoint import Checkpoint, History
from revinc.checksums import CHECKSUMS, EARLIER_CHECKSUMS, Checksums, Journal
from revinc.config import differences
from revinc.engine import evaluation_steps
from revinc.errors import UserError
from revinc.folders import make_folder, make_own_folder
from revinc.json_records import config_digest, write_record
from revinc.parquet_tables import numbers_as_bytes
from revinc.provenance import installed_versions
from revinc.run_request import BEGINNING, RESULTS, RunRequest, replaced_files
from revinc.runs import Run, snapshot_path, step_of, weights_name
from revinc.weights import StateDict, read_safetensors, save_state_dict, to_safetensors

UNDER_LOCK = (*RESULTS, CHECKSUMS, EARLIER_CHECKSUMS, runs.CONFIG)
"""Files that only the holder of the lock writes."""


class RunWriter:
    """A context manager that locks the folder of one run and writes the run's files.

    A new run begins with `request.init`, or else with `draw_weights()`, as its snapshot of step 0.
    A resume never draws.

    Args:
        request: what to train and where.
        identity: the identity of the engine.
        draw_weights: draws the initial weights.

    Attributes:
        run: the run in the folder.
        resumed: whether the run had begun before.

    Raises:
        UserError: if the folder can't be used; if another process is writing it; or if the run to
            resume has another config, engine or beginning.
    """

    def __init__(
        self,
        request: RunRequest,
        identity: Mapping[str, str],
        draw_weights: Callable[[], StateDict],
    ) -> None:
        self.path = request.out
        make_folder(self.path, "run", runs.CONFIG, BEGINNING)
        self._lock = folders.lock(self.path)
        try:
            # Once more: before we had the lock, another process may have finished a run here.
            request.check_folder()
            self.resumed = request.resumes
            if self.resumed:
                self.run = Run.load(self.path)
                check_same_run(self.run, request, identity)
                checksums = self.run.checksums
                self._journal = Journal(self.path, checksums) if checksums is not None else None
                make_own_folder(self.path / runs.SNAPSHOTS)
            else:
                self._begin(request, identity, draw_weights)
            remove_leftovers(self.path, UNDER_LOCK.__contains__)
            remove_leftovers(self.path / runs.SNAPSHOTS, lambda name: step_of(name) is not None)
        except BaseException:
            self._lock.release()
            raise

    def _begin(
        self,
        request: RunRequest,
        identity: Mapping[str, str],
        draw_weights: Callable[[], StateDict],
    ) -> None:
        engine, config = dict(identity), request.cfg.to_dict()
        versions, recipe = installed_versions(), config_digest(config, engine)
        weights = draw_weights() if request.init is None else request.init
        # The config comes last, as only a folder with a config is a run. An earlier run's config
        # stays until then, so that the folder may be overwritten again if we are killed here.
        for file in replaced_files(self.path):
            file.unlink()
        make_own_folder(self.path / runs.SNAPSHOTS)
        self.run = Run(self.path, request.cfg, engine, versions, recipe, request.keep)
        self._journal = Journal(self.path, Checksums(recipe))
        self.save_snapshot(0, weights)
        record = {
            "format_version": runs.FORMAT_VERSION,
            "engine": engine,
            "initial_weights": "init_seed" if request.init is None else "given",
            "versions": versions,
            **({runs.KEEP: request.keep} if request.keep else {}),
            **config,
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
        """Write a snapshot: the weights after `step` updates."""
        self._write({weights_name(step): to_safetensors(weights)})

    def drop_earlier_bests(self, best: int | None) -> None:
        """Delete the snapshots of evaluations that were the best for a time.

        Snapshots that the config asks for stay, as do the first and the last one.

        Args:
            best: the step of the best evaluation, whose snapshot stays.
        """
        cfg = self.run.config
        asked = {0, *cfg.snapshots, cfg.steps, best}
        for step in {*evaluation_steps(cfg)}.intersection(self.run.snapshot_steps) - asked:
            snapshot_path(self.path, step).unlink(missing_ok=True)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, from which the run can be resumed; it replaces the earlier one."""
        save_state_dict(self.path / runs.CHECKPOINT, checkpoint.to_arrays(self.run.recipe))

    def load_checkpoint(self, first: Mapping[str, np.ndarray] | None = None) -> Checkpoint | None:
        """The checkpoint that `save_checkpoint` wrote last; None if there is none.

        Args:
            first: the engine's arrays at step 0, whose shapes and types the checkpoint must have;
                by default that is not checked.

        Raises:
            UserError: if the file is damaged, or another run's.
        """
        file = self.path / runs.CHECKPOINT
        if not file.exists():
            return None
        arrays = read_safetensors(file)
        try:
            checkpoint = Checkpoint.from_arrays(arrays, self.run.recipe)
            check_alike(first or {}, checkpoint.engine_arrays)
            if checkpoint.step > self.run.config.steps:
                step = checkpoint.step
                raise ValueError(f"the checkpoint is of step {step}, after the run's last step")
        except ValueError as error:
            raise UserError(
                f"{file} is not a checkpoint of this run: {error}; "
                "move it away to start again at step 0"
            ) from error
        return checkpoint

    def finish(self, weights: StateDict, history: History) -> None:
        """Write the metrics, then the final weights, whose presence marks the run as finished.

        The losses of batches are written if the history has any.
        """
        contents = {runs.METRICS: numbers_as_bytes(history.metric_columns)}
        if history.losses:
            contents[runs.LOSSES] = numbers_as_bytes(history.loss_columns)
        self._write({**contents, runs.WEIGHTS: to_safetensors(weights)})
        (self.path / runs.CHECKPOINT).unlink(missing_ok=True)

    def _write(self, contents: Mapping[str, bytes]) -> None:
        """Write the checksums of files to the journal, then write the files."""
        if self._journal is not None:
            self._journal.add(contents)
        for name, content in contents.items():
            write_bytes(self.path / name, content)


def check_same_run(run: Run, request: RunRequest, identity: Mapping[str, str]) -> None:
    """Raise a UserError if a request to resume differs in config, engine or initial weights."""
    if changed := differences(run.config, request.cfg):
        raise UserError(
            f"{run.path} can't be resumed with another config ({'; '.join(changed)}); "
            "give the run's own values, or start a new run in another folder"
        )
    if request.keep not in (None, run.keep):
        raise UserError(
            f"{run.path} was begun without --keep {request.keep}, so its best weights so far may be "
            "gone; leave it out, or train a new run in another folder"
        )
    if run.engine != identity:
        raise UserError(
            f"{run.path} was trained by engine {run.engine}; it can't be resumed by {identity}, "
            "whose rounding differs"
        )
    init = request.init
    if init is not None and any((init[k] != w).any() for k, w in run.recorded_weights(0).items()):
        raise UserError(
            f"{run.path} can't be resumed from other initial weights than its own; leave init out"
        )


def check_alike(first: Mapping[str, np.ndarray], later: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError unless a checkpoint's arrays are those that the engine needs.

    Args:
        first: the arrays of the engine's state at step 0.
        later: the arrays of the checkpoint, to have the same names, shapes and types.
    """
    for name, array in first.items():
        if name not in later:
            raise ValueError(f"the checkpoint lacks the array {name}, which the engine needs")
        if (later[name].shape, later[name].dtype) != (np.shape(array), np.asarray(array).dtype):
            raise ValueError(
                f"the checkpoint's array {name} has another shape or type than the engine's"
            )
