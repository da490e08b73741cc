"""Training a population: from a recipe and a table of models to a finished store."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from jax_revinc.engines import POPULATION_ENGINES
from jax_revinc.engines.choice import choose_engine
from jax_revinc.population.chunks import DIVERGED, curve_names
from jax_revinc.population.handle import Population
from jax_revinc.population.processes import announced, wait_for_first
from jax_revinc.population.progress import Progress
from jax_revinc.population.store import CONFIG, Store, read_store
from jax_revinc.population.writer import claimed, discard_damaged, planned
from jax_revinc.training import draw_weights
from revinc import TrainConfig, UserError
from revinc.dataset import make_dataset, many_batches
from revinc.engine import METRICS, PopulationEngine, evaluation_steps
from revinc.sweep import IDENTITY, run_of
from revinc.trainer import Interrupted, boundaries
from revinc.validation import require_int
from revinc.weights import StateDict

SECONDS_BETWEEN_LOOKS = 1.0


def train_population(
    cfg: TrainConfig,
    models: pd.DataFrame,
    out: str | Path,
    *,
    resume: bool = False,
    engine: str = "auto",
    width: int | None = None,
    progress: Progress | None = None,
) -> Population:
    """Train every model of a population that the store `out` does not hold yet.

    All devices of this process train at once, a chunk each. If this is one of several processes
    (``jax.distributed``), each takes its share of the chunks; the first keeps the store and returns last.
    On CPUs of one kind a model's bits depend on nothing but the recipe, its row in `models` and the width.

    Args:
        cfg: the recipe.
        models: from `revinc.sweep.sweep`, or several of its tables in one; those that the store has already
            are left alone.
        out: the store's folder.
        resume: go on with the population in `out`, or add to it.
        engine: ``xla``, ``fused`` or ``auto``: see `jax_revinc.engines.choice.choose_engine`.
        width: models that a device trains side by side; by default the store's, or what suits the engine.
        progress: where progress is shown; silent by default.

    Raises:
        UserError: if `out` can't be used, there are no models, or the recipe asks for snapshots.
        OSError: if the disk is full; what is finished stays.
        Interrupted: on Ctrl-C; what is finished stays.
    """
    if cfg.snapshots:
        raise UserError("a population keeps the final weights alone; leave snapshots out")
    if not len(models):
        raise UserError("there are no models to train")
    path, progress = Path(out), progress or Progress(quiet=True)
    process, n_processes = jax.process_index(), jax.process_count()
    begun = read_store(path) if (path / CONFIG).exists() else None
    if begun and width is None:
        width = begun.width
    if width is not None:
        require_int("width", width, at_least=1)
    with progress.busy("Getting the engine ready ..."):
        resumed = begun.engine["name"] if begun else None
        choice = choose_engine(engine, cfg, len(models), resumed)
        progress.say(choice.sentence)
        engines: list[PopulationEngine] = [
            POPULATION_ENGINES[choice.name](cfg, width, device) for device in jax.local_devices()
        ]
    identity = engines[0].identity
    with ExitStack() as stack, resumable(path):
        if process == 0:
            with announced():
                store = stack.enter_context(claimed(path, cfg, identity, models, resume))
                discard_damaged(store, progress.say)
        else:
            wait_for_first()
            store = planned(path, cfg, identity, models)
        share = set(range(process, store.n_chunks, n_processes))
        done = share.intersection(store.finished_chunks())
        missing = sorted(share - done)
        progress.header(store, engines[0].device, len(engines), process, n_processes)
        with progress.training(store, missing, done):
            train_chunks(store, engines, missing, progress)
            if process == 0:
                wait_for_others(store, progress)
    return Population(read_store(path))


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Lets Ctrl-C say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is finished stays, to go on: --out {path} --resume"
        ) from None


def train_chunks(
    store: Store, engines: Sequence[PopulationEngine], missing: list[int], progress: Progress
) -> None:
    """Train chunks, one on every engine at a time, and write each as it is finished."""
    idle: queue.SimpleQueue[PopulationEngine] = queue.SimpleQueue()
    for engine in engines:
        idle.put(engine)
    stop = threading.Event()

    def moved(n_model_steps: int) -> None:
        if stop.is_set():
            raise Interrupted
        progress.moved(n_model_steps)

    def train_one(chunk: int) -> None:
        if stop.is_set():
            return
        models, engine = store.in_chunk(chunk), idle.get()
        try:
            measured, weights = train_chunk(engine, store.config, models, moved)
        finally:
            idle.put(engine)
        store.chunks.write(chunk, measured, weights)
        progress.finished(measured)

    with ThreadPoolExecutor(len(engines)) as pool:
        try:
            running = [pool.submit(train_one, chunk) for chunk in missing]
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for one in ended:
        one.result()


def train_chunk(
    engine: PopulationEngine,
    cfg: TrainConfig,
    models: pd.DataFrame,
    moved: Callable[[int], None],
) -> tuple[pd.DataFrame, StateDict]:
    """Train models side by side: what was measured of each, and their final weights, stacked.

    Args:
        engine: what trains them.
        cfg: the recipe.
        models: at most as many as the engine is wide.
        moved: called after some steps, with the steps of all models together.
    """
    runs = [run_of(cfg, model) for model in models.to_dict("records")]
    datasets = [make_dataset(run) for run in runs]
    initial = [draw_weights(run) for run in runs]
    state = engine.start(runs, {name: np.stack([w[name] for w in initial]) for name in initial[0]})
    evaluations = [engine.evaluate(state)]
    diverged_at = np.where(is_finite(evaluations[0]), cfg.steps + 1, 0)
    evaluated = set(evaluation_steps(cfg))
    for start, stop in pairwise(boundaries(cfg)):
        batches = many_batches(datasets, start, stop)
        state, losses = engine.advance(state, batches)
        diverged_at = np.minimum(diverged_at, start + first_broken(losses, cfg.steps + 1 - start))
        if stop in evaluated:
            evaluations.append(engine.evaluate(state))
            broken = ~is_finite(evaluations[-1])
            diverged_at = np.minimum(diverged_at, np.where(broken, stop, cfg.steps + 1))
        moved((stop - start) * len(runs))
    return measured(cfg, models, evaluations, diverged_at), engine.weights(state)


def measured(
    cfg: TrainConfig,
    models: pd.DataFrame,
    evaluations: Sequence[dict[str, np.ndarray]],
    diverged_at: np.ndarray,
) -> pd.DataFrame:
    """A row per model: number, identity, where it diverged if it did, metrics at the end and all along.

    A model that diverged has no accuracy from there on: the answers of NaN are none.
    """
    curves = {name: np.stack([e[name] for e in evaluations], axis=1) for name in METRICS}
    broken = np.array(evaluation_steps(cfg)) >= diverged_at[:, None]
    curves = {name: np.where(broken, np.nan, curve) for name, curve in curves.items()}
    diverged = pd.Series(diverged_at, index=models.index, dtype="Int64")
    return (
        models[list(IDENTITY)]
        .assign(
            **{DIVERGED: diverged.mask(diverged > cfg.steps)},
            **{name: curve[:, -1] for name, curve in curves.items()},
            **{
                column: list(curve)
                for column, curve in zip(curve_names(), curves.values(), strict=True)
            },
        )
        .rename_axis("model")
        .reset_index()
    )


def first_broken(losses: np.ndarray, otherwise: int) -> np.ndarray:
    """For each model the first step whose loss is NaN or infinite."""
    broken = ~np.isfinite(losses)
    return np.where(broken.any(axis=1), broken.argmax(axis=1), otherwise)


def is_finite(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """For each model whether both losses of an evaluation are finite."""
    return np.isfinite(metrics["train_loss"]) & np.isfinite(metrics["holdout_loss"])


def wait_for_others(store: Store, progress: Progress) -> None:
    """Return once all chunks are there, of whatever process. If one of them ended, this waits for its successor."""
    while missing := store.n_chunks - len(store.finished_chunks()):
        progress.waiting(missing)
        time.sleep(SECONDS_BETWEEN_LOOKS)
