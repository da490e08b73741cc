"""Who may write a population's folder: one job at a time, which begins it, or goes on with it and adds to it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from jax_revinc.population import store as names
from jax_revinc.population.chunks import provenance
from jax_revinc.population.store import Store, read_store
from revinc import TrainConfig, UserError
from revinc.atomic import write_atomically
from revinc.folders import LOCK, make_folder
from revinc.records import write_record
from revinc.sweep import new_models, other_recipe

SECONDS_BETWEEN_LOOKS = 0.2

SECONDS_TO_APPEAR = 60.0
"""How long a file that another machine wrote may take until it is seen here."""


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
    if any((path / names.METRICS).glob("*.parquet")):
        raise UserError(
            f"{path} holds finished models, but no {names.CONFIG} that says of what recipe; choose another --out"
        )
    for folder in (names.WEIGHTS, names.METRICS):
        shutil.rmtree(path / folder, ignore_errors=True)
    (path / names.METRICS).mkdir()
    recipe = names.recipe_of(cfg.to_dict(), engine)
    keep_plan(Store(path, cfg, engine, names.NO_MODELS, recipe).with_models(models))
    record = {
        "format_version": names.FORMAT_VERSION,
        "engine": engine,
        **provenance(),
        **cfg.to_dict(),
    }
    write_record(path / names.CONFIG, record)


def add(store: Store, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame) -> None:
    """Plan the models that the store does not have yet."""
    check_same_population(store, cfg, engine)
    keep_plan(store.with_models(models))


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


def planned(path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame) -> Store:
    """The store in folder `path`, where the first process of this job has planned all of `models`.

    Raises:
        UserError: if the population there is of another recipe, engine or models.
    """
    give_up_at = time.monotonic() + SECONDS_TO_APPEAR
    while True:
        if (path / names.CONFIG).exists():
            store = read_store(path)
            if not len(new_models(models, store.models)):
                check_same_population(store, cfg, engine)
                return store
        if time.monotonic() > give_up_at:
            raise UserError(
                f"{path} has not the models that are to be trained; give every process the same options, "
                "and an --out that all of them see"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def discard_damaged(store: Store, say: Callable[[str], None]) -> None:
    """Let chunks that are damaged be trained again, after naming them."""
    for chunk in store.finished_chunks():
        if problem := store.chunks.problem(chunk, store.in_chunk(chunk)):
            say(f"chunk {chunk} is trained again: {problem}")
            store.chunks.path(chunk).unlink()
