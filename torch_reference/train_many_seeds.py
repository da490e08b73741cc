"""Training of TransformerLens' model with many seeds, as a reference for other engines."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from revinc import TrainConfig, UserError
from revinc.config import differences
from revinc.dataset import make_dataset
from revinc.interrupts import lasting_interrupts
from revinc.memory_estimate import bytes_of_outcome, require_memory
from revinc.seed_outcomes import Outcomes, made_by, outcome, run_history
from torch_reference.engine import TorchEngine
from torch_reference.training import initial_weights

BYTES_OF_PROCESS = 2**27
"""The least memory of a process that has imported torch and TransformerLens."""

DECISIVE = ("torch", "transformer-lens", "cpu")
"""Parts of the record that all seeds of a file share, because a seed's outcome depends on them."""


def train_population(
    cfg: TrainConfig, seeds: Collection[int], out: Path, jobs: int, command: str
) -> Outcomes:
    """Train a config with each seed that the file `out` lacks, and add each outcome to the file.

    The file is replaced whole after every seed, so an interruption loses only the runs in progress.

    Args:
        cfg: the training config.
        seeds: the seeds, each of which sets the init, data and split seed.
        out: the file of outcomes.
        jobs: processes that train side by side.
        command: what to record as the command that made the outcomes.

    Raises:
        UserError: if `out` is no table of outcomes, or holds outcomes of another config or of other
            package versions.
        Diverged: if the loss of a run becomes NaN or infinite.
    """
    n_outcomes = f"the outcomes of {len(seeds):,} seeds"
    require_memory(n_outcomes, len(seeds) * bytes_of_outcome(cfg), "number of seeds")
    jobs = max(1, min(jobs, len(seeds)))
    require_memory(f"{jobs:,} processes with torch", jobs * BYTES_OF_PROCESS, "number of jobs")
    if not out.exists():
        cfg.require_unseen_answers()
    out.parent.mkdir(parents=True, exist_ok=True)
    outcomes = Outcomes(
        cfg, pd.DataFrame(), made_by(command, cpu=torch.backends.cpu.get_cpu_capability())
    )
    if out.exists():
        outcomes = continued(outcomes, out)
    rows: list[Any] = outcomes.table.to_dict("records")
    missing = sorted(set(seeds) - {row["seed"] for row in rows})
    # Only the parent handles Ctrl-C: leaving the pool ends its processes at once.
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with pool, lasting_interrupts() as raise_if_interrupted:
        runs = pool.imap_unordered(partial(train_one, cfg), missing)
        for row in track(runs, "training", total=len(missing)):
            rows.append(row)
            table = pd.DataFrame(rows).sort_values("seed", ignore_index=True)
            outcomes = Outcomes(cfg, table, outcomes.made_by)
            outcomes.save(out)
            raise_if_interrupted()
    return outcomes


def continued(new: Outcomes, out: Path) -> Outcomes:
    """Read the outcomes in the file `out`; raise a UserError if their config or versions differ."""
    old = Outcomes.load(out)
    changed = differences(old.config, new.config)
    changed += [
        f"{part}: {old.made_by.get(part)} here, {new.made_by[part]} there"
        for part in DECISIVE
        if old.made_by.get(part) != new.made_by[part]
    ]
    if changed:
        raise UserError(
            f"{out} holds outcomes of another training config or version ({'; '.join(changed)}); "
            "choose another file"
        )
    return Outcomes(new.config, old.table, new.made_by)


def train_one(cfg: TrainConfig, seed: int) -> dict[str, object]:
    """Train with one seed from TransformerLens' initial weights; return the run's outcome.

    It uses one thread.
    """
    torch.set_num_threads(1)
    cfg = cfg.with_seed(seed)
    data = make_dataset(cfg)
    return outcome(seed, run_history(data, TorchEngine(cfg, "cpu", data), initial_weights(cfg)))
