"""The claims put to every model of a population; what was answered before is kept, and only new models are asked."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Int

from jax_revinc.analysis import attention, claims, increment
from jax_revinc.analysis.claims import Claims
from jax_revinc.analysis.increment import component_labels, heads_among_components
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from jax_revinc.objective import Params
from jax_revinc.population import Population
from jax_revinc.population.chunks import digest
from revinc import HookedTransformerConfig, Task, TrainConfig
from revinc.recorded_tables import UNREADABLE, read_table, write_table
from revinc.tasks import predicted_positions
from revinc.weights import StateDict

Numbers = Int[np.ndarray, " models"]

FORMAT_VERSION = 1

WEIGHTS = "weights"
"""The column that tells of which weights a row is."""

BLOCK = 16
"""Models that are asked side by side. On a CPU wider blocks cost each model no less, and need more memory."""

MOST_SEQUENCES = 4096
"""Sequences that a block works on at once; of a larger task the blocks are narrower."""

READ_AT_ONCE = 128
"""Models whose weights are read together, at least: chunks may be small."""


def claim_columns(cfg: HookedTransformerConfig, task: Task) -> dict[str, list[str]]:
    """For every field of `Claims` the columns that hold it, such as ``increment_share.L0H0``."""
    components = component_labels(cfg)
    heads = components[heads_among_components(cfg)]
    answers = [task.position_labels[position] for position in predicted_positions(task)]
    parts = dict.fromkeys(Claims._fields, components)
    parts["head_reverses"] = heads
    parts["reading"] = tuple(f"{head}.{answer}" for head in heads for answer in answers)
    of_the_model = ("accuracy", "solved", "attention_reverses")
    return {
        field: [field] if field in of_the_model else [f"{field}.{part}" for part in parts[field]]
        for field in Claims._fields
    }


def claims_of(row: Mapping[Any, Any], cfg: HookedTransformerConfig, task: Task) -> Claims:
    """The claims on one model, from its row of the table."""
    shapes: dict[str, tuple[int, ...]] = {
        "accuracy": (),
        "solved": (),
        "attention_reverses": (),
        "head_reverses": (cfg.n_layers, cfg.n_heads),
        "reading": (cfg.n_layers, cfg.n_heads, -1),
    }
    fields: dict[str, Any] = {
        field: np.array([row[name] for name in names]).reshape(shapes.get(field, (-1,)))
        for field, names in claim_columns(cfg, task).items()
    }
    return Claims(**fields)


def survey(
    population: Population,
    numbers: Numbers,
    file: Path,
    moved: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """The claims on models of a population: a row each, with the columns of `claim_columns`.

    Answers are kept in `file`, each with the digest of the weights that gave it: a model that was trained
    again is asked again. Memory does not grow with the models but for the table.

    Args:
        population: whose models.
        numbers: which.
        file: where answers are kept. A damaged one, or one of other questions, is written anew.
        moved: called with how many more models are done.

    Raises:
        UserError: if a chunk is damaged.
        OSError: if `file` can't be written.
    """
    cfg, task = population.config.model, population.config.task
    columns = claim_columns(cfg, task)
    record = asked(population.config)
    known = remembered(file, record, columns)
    answers = known.iloc[:0]
    width, at_once = block_width(task), max(int(population.engine["width"]), READ_AT_ONCE)
    try:
        for some in batched(numbers, at_once):
            params = population.params(some)
            keys = pd.MultiIndex.from_arrays([some, digests(params)], names=["model", WEIGHTS])
            new = np.flatnonzero(~keys.isin(known.index))
            answers = stacked(answers, known.loc[keys.delete(new)])
            moved(len(some) - len(new))
            for block in batched(new, width):
                found = ask_block(cfg, task, width, {name: a[block] for name, a in params.items()})
                answers = stacked(answers, as_table(found, columns).set_index(keys[block]))
                moved(len(block))
    finally:
        # After Ctrl-C too: what was answered need not be asked again.
        keep(stacked(answers, known.drop(answers.index, errors="ignore")), file, record)
    return answers.droplevel(WEIGHTS).loc[numbers]


def batched(numbers: Numbers, size: int) -> Iterator[Numbers]:
    """The numbers, at most `size` at a time."""
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def stacked(upper: pd.DataFrame, lower: pd.DataFrame) -> pd.DataFrame:
    """One table on top of the other. An empty one, whose columns have no type yet, leaves the other's alone."""
    return pd.concat([part for part in (upper, lower) if len(part)] or [upper])


def block_width(task: Task) -> int:
    """Models of a block."""
    return max(1, min(BLOCK, MOST_SEQUENCES // len(task.sequences())))


def ask_block(cfg: HookedTransformerConfig, task: Task, width: int, params: StateDict) -> Claims:
    """The claims on at most `width` models, arrays [models, ...], by one program for blocks of any size."""
    n = len(next(iter(params.values())))
    rows = np.minimum(np.arange(width), n - 1)
    with numerics(cfg):
        found = _ask(cfg, task, {name: array[rows] for name, array in params.items()})
    return jax.tree.map(lambda array: np.asarray(array)[:n], found)


@functools.partial(jax.jit, static_argnames=("cfg", "task"))
def _ask(cfg: HookedTransformerConfig, task: Task, params: Params) -> Claims:
    return jax.vmap(lambda p: claims.claims(HookedTransformer(cfg, params=p), task))(params)


def as_table(found: Claims, columns: dict[str, list[str]]) -> pd.DataFrame:
    """Claims on several models, a row each."""
    return pd.DataFrame(
        {
            name: array.reshape(len(array), -1)[:, i]
            for (field, names), array in zip(columns.items(), found, strict=True)
            for i, name in enumerate(names)
        }
    )


def digests(params: StateDict) -> list[str]:
    """Of each of several models, what tells whether its weights are the same bits."""
    n = len(next(iter(params.values())))
    return [digest({name: array[i] for name, array in params.items()}) for i in range(n)]


def asked(config: TrainConfig) -> dict[str, Any]:
    """What was asked of which kind of model. The questions' source counts: asked otherwise, answers may differ."""
    source = "".join(inspect.getsource(module) for module in (attention, increment, claims))
    sections = config.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "questions": hashlib.sha256(source.encode()).hexdigest(),
        "model": sections["model"],
        "task": sections["task"],
    }


def remembered(file: Path, record: dict[str, Any], columns: dict[str, list[str]]) -> pd.DataFrame:
    """Earlier answers to the same questions, by number and weights; none if the file is not there or damaged."""
    names = [name for of_field in columns.values() for name in of_field]
    nothing = pd.DataFrame(columns=["model", WEIGHTS, *names])
    try:
        table, its_record = read_table(file)
        is_same = its_record == record
        kept = table.to_pandas()[["model", WEIGHTS, *names]]
    except (KeyError, *UNREADABLE):
        is_same, kept = False, nothing
    return (kept if is_same else nothing).set_index(["model", WEIGHTS])


def keep(answers: pd.DataFrame, file: Path, record: dict[str, Any]) -> None:
    """Write answers for the next time."""
    write_table(file, answers.reset_index(), record)
