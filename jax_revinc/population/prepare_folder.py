"""Prepare a population's folder for training: lock it, then fill a new one or add to an old one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from jax_revinc.population.model_origin import Origin
from jax_revinc.population.shards import NAME, provenance
from jax_revinc.population.store import (
    ATLAS,
    CONFIG,
    FORMAT_VERSION,
    KEY,
    METRICS,
    MODELS,
    NO_MODELS,
    WEIGHTS,
    Store,
    read_store,
)
from jax_revinc.population.weight_arrays import DESCRIPTION
from revinc import TrainConfig, UserError
from revinc.atomic_files import remove_leftovers, target_of, write_atomically
from revinc.errors import several
from revinc.folders import (
    check_folder,
    check_own_folder,
    lock,
    make_folder,
    make_own_folder,
    name_before,
    set_aside,
)
from revinc.json_records import write_record
from revinc.sweep import new_models, shared_differences

SECONDS_BETWEEN_LOOKS = 0.2

SECONDS_TO_APPEAR = 60.0
"""The longest time until a file that another machine wrote is seen here."""

PARTS = {MODELS, METRICS, WEIGHTS, ATLAS, KEY}
"""The names that a store's folder may hold before its config is written, beside the lock."""


@contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """A context in which this process alone may write the folder `path`, which is made if needed.

    Raises:
        UserError: if the folder holds anything but a population, or another process writes it.
    """
    make_folder(path, "population", CONFIG, PARTS)
    held = lock(path)
    try:
        yield
    finally:
        held.release()


def check_store(path: Path) -> None:
    """Raise a UserError if `path` exists and is not the folder of a population."""
    check_folder(path, "population", CONFIG, PARTS)


def prepare(
    path: Path,
    cfg: TrainConfig,
    engine: dict[str, str],
    models: pd.DataFrame,
    resume: bool,
    say: Callable[[str], None],
) -> Store:
    """Begin a population in the locked folder `path`, or check the one there and add models to it.

    Everything is checked before anything changes. Then damaged shards are set aside.

    Args:
        path: the folder; this process holds its lock.
        cfg: the training config that all models share.
        engine: the name, version and width of the engine.
        models: the models that the store shall have, beside those that it has.
        resume: whether the folder may hold a store.
        say: called with a sentence for every shard that is set aside.

    Raises:
        UserError: if the folder holds a population and `resume` is False; if that population is of
            another config or engine; or if it holds files that its config or plan do not explain.
    """
    # Checked only under the lock: before, another process may have begun a store here.
    if not (path / CONFIG).exists():
        begin(path, cfg, engine, models)
        return read_store(path)
    if not resume:
        raise UserError(
            f"{path} already holds a population; pass --resume to go on with it or add to it, "
            "or choose another --out"
        )
    store = read_store(path)
    check_same_population(store, cfg, engine)
    damaged = find_damage(store)
    write_plan(store.with_models(models))
    for shard, problem in damaged.items():
        say(f"shard {shard} is trained again: {problem}")
        store.shards.set_aside(shard)
    return read_store(path)


def begin(path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame) -> None:
    """Write a new population's table of models, then its config, which makes the folder complete.

    Raises:
        UserError: if there are finished models without a config.
    """
    store = Store(path, cfg, engine, NO_MODELS, Origin.of(cfg.to_dict(), engine))
    check_remnants(path)
    remove_remnants(path)
    write_plan(store.with_models(models))
    record = {
        "format_version": FORMAT_VERSION,
        "engine": engine,
        **provenance(),
        **cfg.to_dict(),
    }
    write_record(path / CONFIG, record)


def check_remnants(path: Path) -> None:
    """Raise a UserError if a folder without a population's config holds models or other files."""
    metrics = path / METRICS
    check_own_folder(metrics)
    left = [file.name for file in metrics.iterdir()] if metrics.exists() else []
    if any(NAME.fullmatch(name) for name in left):
        raise UserError(
            f"{path} holds finished models, but no {CONFIG} with their config; choose another --out"
        )
    if others := [name for name in left if not NAME.fullmatch(name_before(name))]:
        raise UserError(
            f"{metrics} holds files that belong to no population ({several(others)}); choose "
            "another --out"
        )
    check_own_folder(path / WEIGHTS)


def remove_remnants(path: Path) -> None:
    """Remove or rename the weights that a killed process left: they may be of another config."""
    weights = path / WEIGHTS
    if has_pieces(weights):
        set_aside(weights)
    elif weights.exists():
        for file in sorted(weights.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        weights.rmdir()


def has_pieces(weights: Path) -> bool:
    """Whether a folder of weights holds weights, and not only files that describe its arrays."""
    return any(
        file.is_symlink() or (file.is_file() and target_of(file.name) != DESCRIPTION)
        for file in weights.rglob("*")
    )


def find_damage(store: Store) -> dict[int, str]:
    """Check all finished shards (models stored together); return what is damaged in each.

    Raises:
        UserError: if it holds files that its config or plan do not explain, or links out of it.
    """
    for folder in (METRICS, WEIGHTS):
        check_own_folder(store.path / folder)
    damaged = {
        shard: problem
        for shard in store.finished_shards()
        if (problem := store.shards.problem(shard, store.in_shard(shard)))
    }
    if (last := store.last_shard_there()) >= store.n_shards:
        raise UserError(
            f"{store.path / MODELS} lists the models of {store.n_shards} shards, numbered from 0, "
            f"but the folder holds shard {last}; that file is an older one or belongs to another "
            "population: put the right one back"
        )
    store.arrays.check()
    return damaged


def write_plan(store: Store) -> None:
    """Make room on disk for the weights of a population's models, then write their table."""
    metrics = make_own_folder(store.path / METRICS)
    remove_leftovers(metrics, lambda name: NAME.fullmatch(name) is not None)
    remove_leftovers(store.path, {MODELS, CONFIG}.__contains__)
    store.arrays.make_room(store.n_shards)
    write_atomically(store.path / MODELS, lambda f: store.models.to_parquet(f, index=False))


def check_same_population(store: Store, cfg: TrainConfig, engine: dict[str, str]) -> None:
    """Raise a UserError if the population on disk has another config or engine than those given."""
    if changed := shared_differences(store.config, cfg):
        raise UserError(
            f"{store.path} holds models of another config ({'; '.join(changed)}); give the "
            "population's own values, or choose another --out"
        )
    if store.engine != engine:
        raise UserError(
            f"the population in {store.path} was trained by the engine {store.engine}; {engine} "
            "can't go on with it, because it rounds differently; use the same engine, versions and "
            "width, or choose another --out"
        )


def wait_for_plan(
    path: Path, cfg: TrainConfig, engine: dict[str, str], models: pd.DataFrame
) -> Store:
    """Wait until the first process has listed all `models` in the folder `path`, then open it.

    Raises:
        UserError: if the population there is of another config, engine or models.
    """
    give_up_at = time.monotonic() + SECONDS_TO_APPEAR
    while True:
        if (path / CONFIG).exists():
            store = read_store(path)
            if not len(new_models(models, store.models)):
                check_same_population(store, cfg, engine)
                return store
        if time.monotonic() > give_up_at:
            raise UserError(
                f"the population in {path} does not list all models that this process was asked to "
                "train; give every process the same options, and an --out that all of them can read"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)
