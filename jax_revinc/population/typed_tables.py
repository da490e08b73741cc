"""Reading Parquet files whose columns, types and size are checked before their values are used."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from revinc import UserError
from revinc.errors import one_line
from revinc.parquet_tables import UNREADABLE, read_table


class Damaged(UserError):
    """A file in a population's folder is damaged: its content has changed since it was written."""


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_curve(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


INTEGERS = "integers"
NUMBERS = "numbers"
TEXT = "text"
CURVES = "lists of numbers"

IS_KIND: dict[str, Callable[[pa.DataType], bool]] = {
    INTEGERS: pa.types.is_signed_integer,
    NUMBERS: pa.types.is_floating,
    TEXT: _is_text,
    CURVES: _is_curve,
}


def read_typed_table(
    path: Path,
    kinds: Mapping[str, str],
    most_rows: int,
    may_lack_values: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read and check columns of a Parquet file; return them, ordered as `kinds`, and its metadata.

    Args:
        path: the file.
        kinds: the columns to read, with the kind that each must have.
        most_rows: the largest number of rows that is accepted.
        may_lack_values: columns, beside those of numbers, whose values may be missing.
        defaults: columns that the file may lack, with the value that all of their rows have then.

    Raises:
        Damaged: if the file can't be read, or lacks a column, or has one of another kind.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("the path is not a regular file")
        defaults = defaults or {}
        there = check_columns(path, kinds, most_rows, defaults)
        rows, record = read_table(path, there)
        for name in there:
            may_lack = kinds[name] == NUMBERS or name in may_lack_values
            if rows[name].null_count and not may_lack:
                raise ValueError(f"the table's column {name} has missing values")
        table = rows.to_pandas(ignore_metadata=True)
        lacking = {name: defaults[name] for name in kinds if name not in there}
        table = table.assign(**lacking)[list(kinds)]
    except UNREADABLE as error:
        raise Damaged(f"{path} is damaged: {one_line(error)}") from error
    return table, record


def check_columns(
    path: Path, kinds: Mapping[str, str], most_rows: int, defaults: Mapping[str, Any]
) -> list[str]:
    """Check a Parquet file's columns and size; return which of the columns in `kinds` it has.

    Args:
        path: the file.
        kinds: the columns to look for, with the kind that each must have.
        most_rows: the largest number of rows that is accepted.
        defaults: columns that the file may lack.

    Raises:
        ValueError: if a column without a default is missing, or the file is of another kind.
    """
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:  # Arrow opens only UTF-8 paths
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
    there = [name for name in kinds if name in schema.names]
    if lacking := kinds.keys() - {*there, *defaults}:
        raise ValueError(f"the table lacks the columns {', '.join(sorted(lacking))}")
    for name in there:
        kind = kinds[name]
        fields = [schema.field(i) for i in schema.get_all_field_indices(name)]
        if len(fields) > 1:
            raise ValueError(f"the table has more than one column {name}")
        if not IS_KIND[kind](fields[0].type):
            raise ValueError(f"the table's column {name} holds {fields[0].type}, not {kind}")
    if not 0 <= n_rows <= most_rows:
        raise ValueError(
            f"the table has {n_rows} rows, more than the {most_rows} that are possible"
        )
    return there
