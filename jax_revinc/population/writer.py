"""Who may write a population's folder: one job at a time, which begins it, or goes on with it and adds to it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from jax_revinc.population import store as names
from jax_revinc.population.store import Store, placed, read_store
from revinc import TrainConfig, UserError
from revinc.atomic import write_atomically
from revinc.folders import LOCK, make_folder
from revinc.provenance import installed_versions, source_commit
from revinc.records import write_record
from revinc.sweep import new_models, other_recipe

SECONDS_BETWEEN_LOOKS = 0.2


@contextmanager
def claimed(
    path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame, resume: bool
) -> Iterator[Store]:
    """The store in folder `path` with all of `models`, locked for as long as the context lasts.

    Raises:
        UserError: if the folder holds a population and `resume` is not asked for; if it holds something else;
            if another process is writing it; or if the population there is of another recipe or engine.
    """
    make_folder(
        path, "population", names.CONFIG, {names.MODELS, names.METRICS, names.WEIGHTS, names.ATLAS}
    )
    try:
        with FileLock(path / LOCK, timeout=0):
            # Only now: until the lock was ours another process may have begun one here.
            if not (path / names.CONFIG).exists():
                begin(path, cfg, engine, models)
            else:
                if not resume:
                    raise UserError(
                        f"{path} already holds a population; pass --resume to go on with it or add to it, "
                        "or choose another --out"
                    )
                add(read_store(path), cfg, engine, models)
            yield read_store(path)
    except Timeout as error:
        raise UserError(f"{path} is being written by another process") from error


def begin(path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame) -> None:
    """Write a store without finished models. Its config comes last: only a folder that has one is a store."""
    for folder in (names.WEIGHTS, names.METRICS):
        shutil.rmtree(path / folder, ignore_errors=True)
    (path / names.METRICS).mkdir()
    keep_plan(Store(path, cfg, engine, placed(models, 0)))
    record = {
        "format_version": names.FORMAT_VERSION,
        "engine": engine,
        "versions": installed_versions(),
        "commit": source_commit(),
        **cfg.to_dict(),
    }
    write_record(path / names.CONFIG, record)


def add(store: Store, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame) -> None:
    """Plan the models that the store does not have yet, from a new chunk on."""
    check_same_population(store, cfg, engine)
    missing = new_models(models, store.models)
    if len(missing):
        added = placed(missing, store.n_chunks * store.width)
        plan = pd.concat([store.models, added], ignore_index=True)
        keep_plan(Store(store.path, store.config, store.engine, plan))


def keep_plan(store: Store) -> None:
    """Make room for all models, then say which they are."""
    store.arrays.make_room(store.n_chunks)
    write_atomically(store.path / names.MODELS, lambda f: store.models.to_parquet(f, index=False))


def check_same_population(store: Store, cfg: TrainConfig, engine: dict[str, str]) -> None:
    """Raise a UserError unless models of this recipe and engine belong into the store."""
    if changed := other_recipe(store.config, cfg):
        raise UserError(
            f"{store.path} holds models of another recipe ({'; '.join(changed)}); leave these options out, "
            "or begin another population"
        )
    if store.engine != engine:
        raise UserError(
            f"{store.path} was trained by engine {store.engine}; {engine} can't go on with it, for its "
            "rounding differs"
        )


def wait_for_plan(
    path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame
) -> Store:
    """The store in folder `path`, once another process of this job has planned all of `models` there.

    Raises:
        UserError: if the population there is of another recipe or engine.
    """
    while True:
        if (path / names.CONFIG).exists():
            store = read_store(path)
            check_same_population(store, cfg, engine)
            if not len(new_models(models, store.models)):
                return store
        time.sleep(SECONDS_BETWEEN_LOOKS)


def missing_chunks(store: Store, chunks: Iterable[int], say: Callable[[str], None]) -> list[int]:
    """Those of `chunks` that are still to be trained. A damaged one is, after it is named."""
    there, missing = set(store.finished_chunks()), []
    for chunk in chunks:
        problem = store.chunks.problem(chunk, store.in_chunk(chunk)) if chunk in there else None
        if problem:
            say(f"chunk {chunk} is trained again: {problem}")
            store.chunks.path(chunk).unlink()
        if problem or chunk not in there:
            missing.append(chunk)
    return missing
