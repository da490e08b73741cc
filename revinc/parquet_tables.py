"""Writing and reading of tables as Parquet files, with a JSON record in the file's metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from revinc.atomic_files import write_atomically
from revinc.errors import UserError, one_line
from revinc.json_records import parse_json

if TYPE_CHECKING:
    import pandas as pd

RECORD = b"jax-revinc"
"""The key of the record in a file's metadata; the record is JSON."""

UNREADABLE = (OSError, pa.ArrowException, ValueError, MemoryError)
"""The errors of reading a file that is missing, damaged or another program's."""


def write_table(path: Path, table: pd.DataFrame, record: Mapping[str, Any]) -> None:
    """Write a table and a JSON record to a Parquet file, whole or not at all.

    The record is in the file's metadata, and every page of the file has a checksum.

    Args:
        path: the Parquet file.
        table: its columns are written, its index is not.
        record: JSON values by name.

    Raises:
        OSError: if the disk is full or not writable.
    """
    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata(
        {**(rows.schema.metadata or {}), RECORD: json.dumps(record)}
    )
    write_atomically(path, lambda file: pq.write_table(rows, file, write_page_checksum=True))


def read_table(path: Path, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table and its JSON record from a Parquet file; a file without a record gives ``{}``.

    Args:
        path: the Parquet file.
        columns: the columns to read, those that exist; all by default.

    Raises:
        OSError, pyarrow.ArrowException, ValueError, MemoryError: see `UNREADABLE`.
    """
    with (
        path.open("rb") as opened,  # Arrow opens only UTF-8 paths
        pq.ParquetFile(opened, page_checksum_verification=True) as file,
    ):
        record = parse_record((file.schema_arrow.metadata or {}).get(RECORD, b"{}"))
        return file.read(columns=None if columns is None else list(columns)), record


def parse_record(text: bytes) -> dict[str, Any]:
    """Parse the JSON record in a table's metadata.

    Raises:
        ValueError: if it is not a JSON object.
    """
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError("the table's record is not a JSON object")
    return record


def numbers_as_bytes(columns: Mapping[str, Shaped[np.ndarray, " rows"]]) -> bytes:
    """The bytes of a Parquet file that holds a table of numbers, given as its columns."""
    # `pa.table` would import pandas, which takes longer than training a run.
    arrays = [
        pa.Array.from_buffers(pa.from_numpy_dtype(c.dtype), len(c), [None, pa.py_buffer(c)])
        for c in columns.values()
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), buffer)
    return buffer.getvalue()


def read_numbers(path: Path, steps: Sequence[int], columns: Sequence[str]) -> pd.DataFrame:
    """Read a run's table of numbers by step, checked to have the expected steps and columns.

    Args:
        path: the Parquet file.
        steps: the values that its column "step" must have.
        columns: the other columns, of float64.

    Raises:
        UserError: if it can't be read, or has other steps, columns or values that are not finite.
    """
    import pandas as pd

    wanted = {"step": pa.int64(), **dict.fromkeys(columns, pa.float64())}
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
            if list(zip(schema.names, schema.types, strict=True)) != list(wanted.items()):
                raise ValueError(f"the table must have columns of numbers: {', '.join(wanted)}")
            if file.metadata.num_rows != len(steps):
                raise ValueError(
                    f"the table has {file.metadata.num_rows} rows instead of {len(steps)}"
                )
            rows = file.read()
        table = pd.DataFrame({name: rows.column(name).to_numpy() for name in wanted})
        if not np.array_equal(table["step"], steps):
            raise ValueError("the table's steps are not those of the run")
        if not np.isfinite(table.to_numpy()).all():
            raise ValueError("the table holds NaN or infinite values")
    except UNREADABLE as error:
        raise UserError(f"{path} can't be read: {one_line(error)}") from error
    return table
