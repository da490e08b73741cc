"""Many seeds of the reference, several at a time: the outcomes that other engines are compared with."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from revinc import TrainConfig, UserError
from revinc.config import differences
from revinc.outcomes import Outcomes, made_by, outcome, run_history
from torch_reference.engine import TorchEngine
from torch_reference.training import initial_weights


def train_population(
    cfg: TrainConfig, seeds: Iterable[int], out: Path, jobs: int, command: str
) -> Outcomes:
    """Train ``cfg`` with every seed that `out` does not hold yet, and keep each run's outcome there.

    The file is replaced whole after every seed, so whatever stops this loses the runs in flight alone.

    Raises:
        UserError: if `out` holds another recipe's outcomes.
        Diverged: if the loss of a run becomes NaN or infinite.
    """
    outcomes = Outcomes.load(out) if out.exists() else None
    if outcomes and (changed := differences(outcomes.config, cfg)):
        raise UserError(f"{out} holds outcomes of another recipe ({'; '.join(changed)})")
    rows: list[Any] = outcomes.table.to_dict("records") if outcomes else []
    missing = sorted(set(seeds) - {row["seed"] for row in rows})
    how = made_by(command, cpu=torch.backends.cpu.get_cpu_capability())
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(train_one, cfg, seed) for seed in missing]
        for done in track(as_completed(running), "training", total=len(missing)):
            rows.append(done.result())
            table = pd.DataFrame(rows).sort_values("seed", ignore_index=True)
            outcomes = Outcomes(cfg, table, how)
            outcomes.save(out)
    assert outcomes is not None
    return outcomes


def train_one(cfg: TrainConfig, seed: int) -> dict[str, object]:
    """The outcome of one seed, from TransformerLens' own initial weights, on one thread."""
    torch.set_num_threads(1)
    cfg = cfg.with_seed(seed)
    return outcome(seed, run_history(cfg, TorchEngine(cfg, "cpu"), initial_weights(cfg)))
