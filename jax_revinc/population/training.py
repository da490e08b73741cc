"""Training a population: from a config and a table of models to a folder with all of them."""

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

from jax_revinc.engines import JaxPopulation
from jax_revinc.engines.device import device_memory
from jax_revinc.engines.engine_choice import choose_engine
from jax_revinc.population.model_table import parse_models
from jax_revinc.population.prepare_folder import check_store, prepare, store_lock, wait_for_plan
from jax_revinc.population.process_messages import announce_end, job_key, wait_for_first
from jax_revinc.population.progress import Progress
from jax_revinc.population.read_population import Population
from jax_revinc.population.shards import DIVERGED, are_finite, curve_names
from jax_revinc.population.store import CONFIG, Store, read_store
from jax_revinc.training import draw_weights
from revinc import TrainConfig, UserError
from revinc.dataset import make_dataset, rows_of_runs
from revinc.engine import METRICS, PopulationEngine, evaluation_steps
from revinc.interrupts import lasting_interrupts
from revinc.memory_estimate import require_room_to_train
from revinc.sweep import IDENTITY, MOST_MODELS, run_of
from revinc.tasks import Task, task_flag
from revinc.trainer import Interrupted, boundaries
from revinc.validation import require_instance, require_int, require_path
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
    """Train every model of a population that is not yet finished in the folder `out`.

    All devices of this process train at once, one shard each. If this is one of several processes
    (``jax.distributed``), each trains its part of the shards; the first one returns last.
    On CPUs of one kind a model's bits depend only on its config, the engine and the width.

    Args:
        cfg: the training config that all models share.
        models: the models, a table from `revinc.sweep.sweep` or several of them in one. Models that
            are finished in the store are not trained again.
        out: the store's folder.
        resume: go on with the population in `out`, or add to it.
        engine: ``xla``, ``fused`` or ``auto``: see `jax_revinc.engines.engine_choice.choose_engine`.
        width: models that a device trains side by side; by default the store's or the engine's.
        progress: where progress is shown; silent by default.

    Returns:
        The population, opened.

    Raises:
        UserError: if `out` can't be used, `models` is not a table of models or is empty, or the
            config asks for snapshots.
        OSError: if the disk is full; finished models stay.
        Interrupted: on Ctrl-C; finished models stay.
    """
    require_instance("cfg", cfg, TrainConfig)
    if cfg.snapshots:
        raise UserError(
            "a population can't keep snapshots, only final weights; leave snapshots out of its "
            "config"
        )
    models = parse_models(models)
    if models.empty:
        raise UserError("there are no models to train: the table of models is empty")
    path, progress = require_path("out", out), progress or Progress(quiet=True)
    check_store(path)
    process, n_processes = jax.process_index(), jax.process_count()
    earlier = read_store(path) if (path / CONFIG).exists() else None
    if earlier is None:
        cfg.require_unseen_answers()
    if earlier and width is None:
        width = earlier.width
    if width is not None:
        width = require_int("width", width, at_least=1, below=MOST_MODELS)
    require_room_to_train(cfg, width or 1, available=device_memory())
    with progress.busy("Getting the engine ready ..."):
        resumed = earlier.engine.get("name") if earlier else None
        choice = choose_engine(engine, cfg, len(models), resumed)
        progress.say(choice.sentence)
        engines: list[PopulationEngine] = [
            JaxPopulation(cfg, choice.programs, width, device) for device in jax.local_devices()
        ]
        require_room_to_train(cfg, engines[0].width, choice.engine_name == "xla", device_memory())
    identity = engines[0].identity
    with ExitStack() as stack, resumable(path, cfg.task):
        if process == 0:
            with announce_end(path):
                stack.enter_context(store_lock(path))
                stack.enter_context(job_key(path))
                store = prepare(path, cfg, identity, models, resume, progress.say)
        else:
            wait_for_first(path)
            store = wait_for_plan(path, cfg, identity, models)
        share = set(range(process, store.n_shards, n_processes))
        done = share.intersection(store.finished_shards())
        missing = sorted(share - done)
        progress.header(store, engines[0].device, len(engines), process, n_processes)
        with progress.training(store, missing, done):
            train_shards(store, engines, missing, progress)
            if process == 0:
                wait_for_others(store, progress)
    return Population(read_store(path))


@contextmanager
def resumable(path: Path, task: Task) -> Iterator[None]:
    """A context in which Ctrl-C raises an `Interrupted` that says how to resume the training."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; finished models are kept; to go on, run the command again with --out "
            f"{path} --resume{task_flag(task)}"
        ) from None


def train_shards(
    store: Store, engines: Sequence[PopulationEngine], missing: list[int], progress: Progress
) -> None:
    """Train the `missing` shards (groups of models), one per engine at a time, and write them."""
    idle: queue.SimpleQueue[PopulationEngine] = queue.SimpleQueue()
    for engine in engines:
        idle.put(engine)
    stop = threading.Event()

    def advance(n_model_steps: int) -> None:
        raise_if_interrupted()
        if stop.is_set():
            raise Interrupted
        progress.advance(n_model_steps)

    def train_one(shard: int) -> None:
        if stop.is_set():
            return
        models, engine = store.in_shard(shard), idle.get()
        try:
            metrics, weights = train_shard(engine, store.config, models, advance)
        finally:
            idle.put(engine)
        store.shards.write(shard, metrics, weights)
        progress.finished(metrics)

    with lasting_interrupts() as raise_if_interrupted, ThreadPoolExecutor(len(engines)) as pool:
        try:
            running = [pool.submit(train_one, shard) for shard in missing]
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for one in ended:
        one.result()


def train_shard(
    engine: PopulationEngine,
    cfg: TrainConfig,
    models: pd.DataFrame,
    progress: Callable[[int], None],
) -> tuple[pd.DataFrame, StateDict]:
    """Train the models of one shard side by side; return their metrics and final weights.

    Args:
        engine: the engine that trains them.
        cfg: the training config that they share.
        models: the models, at most as many as the engine's width.
        progress: called during training with the number of steps just made, summed over models.

    Returns:
        The models' metrics, see `metrics_table`, and their final weights [models, ...].
    """
    runs = [run_of(cfg, model) for model in models.to_dict("records")]
    data = [make_dataset(run) for run in runs]
    initial = [draw_weights(run) for run in runs]
    state = engine.start(data, {name: np.stack([w[name] for w in initial]) for name in initial[0]})
    evaluations = [engine.evaluate(state)]
    diverged_at = np.where(is_finite(evaluations[0]), cfg.steps + 1, 0)
    evaluated = set(evaluation_steps(cfg))
    for start, stop in pairwise(boundaries(cfg)):
        state, losses = engine.advance(state, rows_of_runs(data, start, stop))
        diverged_at = np.minimum(diverged_at, start + first_broken(losses, cfg.steps + 1 - start))
        if stop in evaluated:
            evaluations.append(engine.evaluate(state))
            broken = ~is_finite(evaluations[-1])
            diverged_at = np.minimum(diverged_at, np.where(broken, stop, cfg.steps + 1))
        progress((stop - start) * len(runs))
    weights = engine.weights(state)
    broken = ~are_finite(weights, len(runs))  # perhaps in weights that no loss depends on
    diverged_at = np.minimum(diverged_at, np.where(broken, cfg.steps, cfg.steps + 1))
    return metrics_table(cfg, models, evaluations, diverged_at), weights


def metrics_table(
    cfg: TrainConfig,
    models: pd.DataFrame,
    evaluations: Sequence[dict[str, np.ndarray]],
    diverged_at: np.ndarray,
) -> pd.DataFrame:
    """Make a table with a row per model: final metrics, curves of metrics and step of divergence.

    Metrics are NaN from the step on at which a model diverged.

    Args:
        cfg: the training config that the models share.
        models: a row per model.
        evaluations: the metrics [models] of every evaluation.
        diverged_at: [models] the step at which each diverged; ``cfg.steps + 1`` if it did not.
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
    """For each model, the first step whose loss is not finite; `otherwise` if all are finite."""
    broken = ~np.isfinite(losses)
    return np.where(broken.any(axis=1), broken.argmax(axis=1), otherwise)


def is_finite(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """For every model, whether both of its losses in an evaluation are finite."""
    return np.isfinite(metrics["train_loss"]) & np.isfinite(metrics["holdout_loss"])


def wait_for_others(store: Store, progress: Progress) -> None:
    """Wait until all processes have finished their models, even if some are started again."""
    while missing := store.n_shards - len(store.finished_shards()):
        progress.waiting(missing)
        time.sleep(SECONDS_BETWEEN_LOOKS)
