"""The table of a population's models, finished or not, which is checked whenever it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jax_revinc.population.typed_tables import (
    INTEGERS,
    NUMBERS,
    TEXT,
    Damaged,
    read_typed_table,
)
from revinc import TrainConfig, UserError
from revinc.config_fields import parse_fields
from revinc.sweep import (
    IDENTITY,
    MOST_MODELS,
    check_number_of_models,
    kind_of,
    later_columns,
    with_column_types,
)
from revinc.validation import plain

IDENTITY_KINDS = {
    name: {float: NUMBERS, int: INTEGERS, str: TEXT}[kind_of(name)] for name in IDENTITY
}
"""The kinds of the columns of `IDENTITY` on disk."""


def parse_models(models: Any, what: str = "models") -> pd.DataFrame:
    """Check a table of models to train; return its columns of swept fields and seeds.

    Args:
        models: the table to check.
        what: what errors call it.

    Raises:
        UserError: if it lacks a column, has values that the config refuses, or has too many rows.
    """
    if not isinstance(models, pd.DataFrame):
        raise UserError(
            f"{what} must be a table of models as revinc.sweep.sweep makes it, not a "
            f"{type(models).__name__}"
        )
    columns = list(models.columns)
    if wrong := [name for name in IDENTITY if columns.count(name) != 1]:
        raise UserError(
            f"{what}: the table of models must have one column {wrong[0]!r}, not "
            f"{columns.count(wrong[0])}; revinc.sweep.sweep makes such tables"
        )
    check_number_of_models(len(models))
    for name in IDENTITY:
        check_column(what, models[name])
    return with_column_types(models[list(IDENTITY)])


def check_column(what: str, column: pd.Series[Any]) -> None:
    """Raise a UserError if a column of a table of models has a value that the config refuses."""
    is_number = column.dtype.kind in "iuf" and len(column)
    # Among numbers the extremes tell: a missing value, NaN, is both.
    values = [column.min(skipna=False), column.max(skipna=False)] if is_number else column.tolist()
    for value in values:
        try:
            parse_fields(TrainConfig, {str(column.name): plain(value)})
        except UserError as error:
            raise UserError(f"{what}: the table of models has a wrong value: {error}") from None


def read_plan(path: Path, width: int, cfg: TrainConfig) -> pd.DataFrame:
    """Read the table of a population's models: swept fields, seeds and rows in the weight arrays.

    Args:
        path: the store's ``models.parquet``.
        width: models of a shard; models that are added later begin a new shard.
        cfg: the store's config, whose values missing columns of later versions have.

    Raises:
        UserError: if it can't be read, or is not the plan of a population.
    """
    models, _ = read_typed_table(
        path, {"row": INTEGERS, **IDENTITY_KINDS}, MOST_MODELS, defaults=later_columns(cfg)
    )
    rows = models["row"].to_numpy()
    identity = parse_models(models, f"{path} is damaged")
    previous = np.concatenate([[-1], rows[:-1]])
    if not ((rows == previous + 1) | (rows == (previous // width + 1) * width)).all():
        raise Damaged(
            f"{path} is damaged: its column `row` does not number the models in order, in shards "
            f"of {width} models; put the right file back"
        )
    if identity.duplicated().any():
        raise Damaged(f"{path} is damaged: it lists a model twice; put the right file back")
    return identity.assign(row=rows.astype("int64"))[["row", *IDENTITY]].rename_axis("model")
