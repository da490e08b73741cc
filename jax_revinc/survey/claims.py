"""Measure the tutorial's claims on every model of a population; a file keeps the results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Int

from jax_revinc.analysis import claims
from jax_revinc.analysis.claims import Claims
from jax_revinc.analysis.increment import component_labels, heads_among_components
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.model import HookedTransformer
from jax_revinc.objective import Params
from jax_revinc.population import Population
from jax_revinc.population.shards import digest
from revinc import HookedTransformerConfig, Task, TrainConfig
from revinc.parquet_tables import UNREADABLE, read_table, write_table
from revinc.provenance import source_digest
from revinc.tasks import eval_positions
from revinc.weights import StateDict

Numbers = Int[np.ndarray, " models"]

FORMAT_VERSION = 1

ANSWERING = ("jax-revinc", "jax", "jaxlib", "numpy")
"""The packages that the answers depend on."""

WEIGHTS = "weights"
"""The column with the digest of the weights that a row is about."""

BLOCK = 16
"""Models that are evaluated side by side. On a CPU wider blocks are no faster, and need more
memory."""

MOST_SEQUENCES = 4096
"""Sequences that a block evaluates at once; for a larger task the blocks are narrower."""

READ_AT_ONCE = 128
"""The fewest models whose weights are read together, since shards may be small."""


def claim_columns(cfg: HookedTransformerConfig, task: Task) -> dict[str, list[str]]:
    """For each of the tutorial's claims, its columns in a table, like ``increment_share.L0H0``."""
    components = component_labels(cfg)
    heads = components[heads_among_components(cfg)]
    answers = [task.position_labels[position] for position in eval_positions(task)]
    parts = dict.fromkeys(Claims._fields, components)
    parts["head_reverses"] = heads
    parts["reading"] = tuple(f"{head}.{answer}" for head in heads for answer in answers)
    of_the_model = ("accuracy", "solved", "attention_reverses")
    return {
        field: [field] if field in of_the_model else [f"{field}.{part}" for part in parts[field]]
        for field in Claims._fields
    }


def claims_of(row: Mapping[Any, Any], cfg: HookedTransformerConfig, task: Task) -> Claims:
    """Make the `Claims` about one model from its row of a table of claims."""
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


def survey_claims(
    population: Population,
    numbers: Numbers,
    file: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Measure the tutorial's claims on models of a population; return a table with a row per model.

    Answers are kept in `file`, with the digest of the weights. A model that was trained again is
    evaluated again. Memory grows with the table alone.

    Args:
        population: the population.
        numbers: the numbers of its models [models].
        file: where answers are kept. A damaged file, or one whose record is another, is
            replaced.
        progress: called with the number of models that were done since the last call.

    Raises:
        UserError: if a shard is damaged.
        OSError: if `file` can't be written.
    """
    cfg, task = population.config.model, population.config.task
    columns = claim_columns(cfg, task)
    record = record_of_claims(population.config)
    known = load_answers(file, record, columns)
    answers = known.iloc[:0]
    width, at_once = block_width(task), max(int(population.engine["width"]), READ_AT_ONCE)
    try:
        for some in batched(numbers, at_once):
            params = population.params(some)
            keys = pd.MultiIndex.from_arrays([some, digests(params)], names=["model", WEIGHTS])
            new = np.flatnonzero(~keys.isin(known.index))
            answers = concatenate(answers, known.loc[keys.delete(new)])
            progress(len(some) - len(new))
            for block in batched(new, width):
                found = ask_block(cfg, task, width, {name: a[block] for name, a in params.items()})
                answers = concatenate(answers, as_table(found, columns).set_index(keys[block]))
                progress(len(block))
    finally:  # also after Ctrl-C, so that no answer is lost
        unused = known.drop(answers.index, errors="ignore")
        save_answers(concatenate(answers, unused), file, record)
    return answers.droplevel(WEIGHTS).loc[numbers]


def batched(numbers: Numbers, size: int) -> Iterator[Numbers]:
    """Split an array of model numbers into batches of at most `size`."""
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def concatenate(upper: pd.DataFrame, lower: pd.DataFrame) -> pd.DataFrame:
    """Put one table above another. An empty table has no column types, so it is left out."""
    return pd.concat([part for part in (upper, lower) if len(part)] or [upper])


def block_width(task: Task) -> int:
    """The number of models on which one program measures the tutorial's claims side by side."""
    return max(1, min(BLOCK, MOST_SEQUENCES // len(task.sequences())))


def ask_block(cfg: HookedTransformerConfig, task: Task, width: int, params: StateDict) -> Claims:
    """Measure the tutorial's claims on 1 to `width` models, always by the same compiled program."""
    n = len(next(iter(params.values())))
    rows = np.minimum(np.arange(width), n - 1)
    with numerics(cfg):
        found = _ask(cfg, task, {name: array[rows] for name, array in params.items()})
    return jax.tree.map(lambda array: np.asarray(array)[:n], found)


@functools.partial(jax.jit, static_argnames=("cfg", "task"))
def _ask(cfg: HookedTransformerConfig, task: Task, params: Params) -> Claims:
    return jax.vmap(lambda p: claims.claims(HookedTransformer(cfg, params=p), task))(params)


def as_table(found: Claims, columns: dict[str, list[str]]) -> pd.DataFrame:
    """Claims about several models as a table with a row per model."""
    return pd.DataFrame(
        {
            name: array.reshape(len(array), -1)[:, i]
            for (field, names), array in zip(columns.items(), found, strict=True)
            for i, name in enumerate(names)
        }
    )


def digests(params: StateDict) -> list[str]:
    """For each of several models, a hash of its weights."""
    n = len(next(iter(params.values())))
    return [digest({name: array[i] for name, array in params.items()}) for i in range(n)]


def record_of_claims(config: TrainConfig) -> dict[str, Any]:
    """What measured claims depend on besides the weights: code, packages, model config and task."""
    sections = config.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "questions": source_digest("revinc", "jax_revinc"),
        "versions": {package: metadata.version(package) for package in ANSWERING},
        "model": sections["model"],
        "task": sections["task"],
        # A user's own task may change under the same name.
        "sequences": digest({"sequences": config.task.sequences()}),
    }


def load_answers(file: Path, record: dict[str, Any], columns: dict[str, list[str]]) -> pd.DataFrame:
    """Read measured claims from a file; an empty table if they are damaged or out of date."""
    names = [name for of_field in columns.values() for name in of_field]
    nothing = pd.DataFrame(columns=["model", WEIGHTS, *names])
    try:
        table, its_record = read_table(file)
        is_same = its_record == record
        kept = table.to_pandas()[["model", WEIGHTS, *names]]
    except (KeyError, *UNREADABLE):
        is_same, kept = False, nothing
    return (kept if is_same else nothing).set_index(["model", WEIGHTS])


def save_answers(answers: pd.DataFrame, file: Path, record: dict[str, Any]) -> None:
    """Write a table of measured claims, with a record of what they depend on, to a file."""
    write_table(file, answers.reset_index(), record)
