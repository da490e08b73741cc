"""A request to train a run into a folder, and checks whether the folder can be used for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from revinc import runs
from revinc.checksums import CHECKSUMS, EARLIER_CHECKSUMS
from revinc.config import TrainConfig
from revinc.config_fields import checked_fields
from revinc.errors import UserError, several
from revinc.folders import check_folder, check_own_folder, is_aside, name_before
from revinc.json_records import SECTIONS, read_checked_record
from revinc.model_config import HookedTransformerConfig
from revinc.runs import step_of, weights_name
from revinc.tracking import Sink, find_sink
from revinc.validation import require_choice, require_instance, require_path, require_several
from revinc.weights import StateDict, check_finite, check_state_dict

RESULTS = (runs.WEIGHTS, runs.METRICS, runs.LOSSES, runs.CHECKPOINT)
"""Files that only a run past its beginning has."""

BEGINNING = {CHECKSUMS, EARLIER_CHECKSUMS, weights_name(0)}
"""Files that a run leaves, and no others, if it is killed before it has a config."""

EVENTS = re.compile(r"events\.out\.tfevents\.\d+\..+\.\d+")
"""Names of TensorBoard's files, as `revinc.tracking` has them written."""


@dataclass(frozen=True, eq=False)
class RunRequest:
    """A checked request: what to train into which run folder, and how. `make_request` makes it.

    Attributes:
        cfg: the training config.
        out: the run folder.
        init: initial weights; None to draw them from ``cfg.init_seed``.
        resume: go on with the run in `out`, if there is one.
        overwrite: replace the run in `out`.
        sinks: where metrics are logged, beside the run folder.
        keep: "best" to keep the weights of the best evaluation. A resumed run keeps what it did
            before, whatever this says.
    """

    cfg: TrainConfig
    out: Path
    init: StateDict | None = None
    resume: bool = False
    overwrite: bool = False
    sinks: tuple[Sink, ...] = ()
    keep: str | None = None

    @property
    def resumes(self) -> bool:
        """Whether the request resumes a run that exists in its folder."""
        return self.resume and (self.out / runs.CONFIG).exists()

    def check_folder(self) -> None:
        """Raise a UserError if the run folder `out` can't be used as it is now."""
        refuse_orphans(self.out)
        check_folder(self.out, "run", runs.CONFIG, BEGINNING)
        if not self.resumes:
            self.cfg.require_unseen_answers()
        if not self.resume:
            refuse_to_replace(self.out, self.overwrite)


def make_request(
    cfg: TrainConfig,
    out: str | Path,
    *,
    init: StateDict | None = None,
    resume: bool = False,
    overwrite: bool = False,
    log: Sequence[str] = (),
    keep: str | None = None,
) -> RunRequest:
    """Make a request to train a run, checked as far as possible without touching its folder.

    Args:
        cfg: the training config.
        out: the run folder.
        init: initial weights; None to draw them from ``cfg.init_seed``.
        resume: go on with the run in `out`, if there is one.
        overwrite: replace the run in `out`.
        log: names of `revinc.tracking.SINKS`, where metrics are logged as well.
        keep: "best" to keep the weights of the best evaluation.

    Raises:
        UserError: if `out`, `log` or `keep` can't be used, or `init` does not fit the config.
    """
    require_instance("cfg", cfg, TrainConfig)
    out = require_path("out", out)
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other; choose one")
    sinks = tuple(find_sink(name) for name in dict.fromkeys(require_several("log", log)))
    if keep is not None:
        keep = require_choice("keep", keep, runs.KEPT)
    if init is not None:
        init = check_state_dict(cfg.model, init, "init")
        check_finite(init, "init")
    request = RunRequest(cfg, out, init, resume, overwrite, sinks, keep)
    request.check_folder()
    return request


def refuse_to_replace(path: Path, overwrite: bool) -> None:
    """Raise a UserError if `path` holds a run, unless `overwrite` is set and it can be replaced."""
    if not (path / runs.CONFIG).exists():
        return
    if not overwrite:
        raise UserError(
            f"{path} already holds a run; pass --resume to go on with it, --overwrite to replace "
            "it, or choose another --out"
        )
    replaced_files(path)


def refuse_orphans(path: Path) -> None:
    """Raise a UserError if a folder holds results of a run, but not the run's config."""
    if (path / runs.CONFIG).exists():
        return
    later = [step for file in (path / runs.SNAPSHOTS).glob("*") if (step := step_of(file.name))]
    names = [*RESULTS, *map(weights_name, sorted(later))]
    if found := [name for name in names if (path / name).exists()]:
        raise UserError(
            f"{path} holds {several(found)} but no {runs.CONFIG}, the run's config; put that file "
            "back, or choose another --out"
        )


def replaced_files(path: Path) -> list[Path]:
    """List the files to delete when a new run replaces the run in a folder.

    Weights & Biases keeps the runs of a folder side by side: of its files, only the one by which it
    would go on is deleted.

    Raises:
        UserError: if the folder holds another program's config, or a file that no run wrote where
            only a run writes.
    """
    if not (path / runs.CONFIG).exists():
        return []
    check_is_run(path)
    snapshots, events = path / runs.SNAPSHOTS, path / runs.TENSORBOARD
    of_folders = [
        *files_of(snapshots, lambda name: step_of(name) is not None),
        *files_of(events, lambda name: EVENTS.fullmatch(name) is not None),
    ]
    names = [*RESULTS, runs.REPORT, f"{runs.WANDB}/wandb-resume.json"]
    files = [*(path / name for name in names), *of_folders]
    found = [file for file in files if file.is_symlink() or file.exists()]
    if odd := [file for file in found if file.is_dir() and not file.is_symlink()]:
        raise UserError(f"{odd[0]} is a folder, but a run has a file of that name; move it away")
    return found


def files_of(folder: Path, is_ours: Callable[[str], bool]) -> list[Path]:
    """List the files in a subfolder of a run, such as its snapshots, that a run wrote.

    Raises:
        UserError: if the folder is a link, or holds anything else.
    """
    check_own_folder(folder)
    names = sorted(file.name for file in folder.iterdir()) if folder.exists() else []
    if others := [name for name in names if not is_ours(name_before(name))]:
        raise UserError(f"{folder} holds {several(others)}, which no run wrote; move them away")
    return [folder / name for name in names if not is_aside(name)]


def check_is_run(path: Path) -> None:
    """Raise a UserError unless a folder holds a run's config. The task's module is not imported."""
    file = path / runs.CONFIG
    record = read_checked_record(file, "run", runs.FORMAT_VERSION, needed=("engine", "versions"))
    try:
        sections = [record.get(name) for name in SECTIONS]
        if not all(isinstance(section, dict) for section in sections):
            raise UserError(f"the config must have the sections {', '.join(SECTIONS)}")
        HookedTransformerConfig.from_dict(record["model"])
        checked_fields(TrainConfig, record["train"])
    except UserError as error:
        raise UserError(
            f"{file} is not a valid config, so its run can't be replaced: {error}"
        ) from error
