"""Many seeds of the reference, several at a time: the outcomes that other engines are compared with."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from revinc import TrainConfig, UserError
from revinc.config import differences
from revinc.outcomes import Outcomes, made_by, outcome, run_history
from torch_reference.engine import TorchEngine
from torch_reference.training import initial_weights

DECISIVE = ("torch", "transformer-lens", "cpu")
"""Parts of the record that all seeds of a file share: with another, the same seed ends otherwise."""


def train_population(
    cfg: TrainConfig, seeds: Iterable[int], out: Path, jobs: int, command: str
) -> Outcomes:
    """Train ``cfg`` with every seed that `out` does not hold yet, and keep each run's outcome there.

    The file is replaced whole after every seed, so whatever stops this loses the runs in flight alone.

    Raises:
        UserError: if `out` is no table of outcomes, or holds those of another recipe or other packages.
        Diverged: if the loss of a run becomes NaN or infinite.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    outcomes = Outcomes(
        cfg, pd.DataFrame(), made_by(command, cpu=torch.backends.cpu.get_cpu_capability())
    )
    if out.exists():
        outcomes = continued(outcomes, out)
    rows: list[Any] = outcomes.table.to_dict("records")
    missing = sorted(set(seeds) - {row["seed"] for row in rows})
    # Ctrl-C is the parent's: leaving the pool ends its processes at once.
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


@contextmanager
def lasting_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C as ever, and a function that raises `KeyboardInterrupt` if there has been one.

    Python raises it wherever the program happens to be, and drops it where that is a finalizer.
    """
    happened = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal happened
        happened = True
        signal.default_int_handler(number, frame)

    def raise_if_interrupted() -> None:
        if happened:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield raise_if_interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def continued(new: Outcomes, out: Path) -> Outcomes:
    """The outcomes in `out` under the record of `new`; a UserError if these could not be more of them."""
    old = Outcomes.load(out)
    changed = differences(old.config, new.config)
    changed += [
        f"{part}: {old.made_by.get(part)} here, {new.made_by[part]} there"
        for part in DECISIVE
        if old.made_by.get(part) != new.made_by[part]
    ]
    if changed:
        raise UserError(f"{out} holds other outcomes ({'; '.join(changed)}); choose another file")
    return Outcomes(new.config, old.table, new.made_by)


def train_one(cfg: TrainConfig, seed: int) -> dict[str, object]:
    """The outcome of one seed, from TransformerLens' own initial weights, on one thread."""
    torch.set_num_threads(1)
    cfg = cfg.with_seed(seed)
    return outcome(seed, run_history(cfg, TorchEngine(cfg, "cpu"), initial_weights(cfg)))
