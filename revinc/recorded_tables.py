"""Tables as Parquet files that say, beside their rows, where these come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from revinc.atomic import write_atomically

RECORD = b"jax-revinc"
"""The key in a file's metadata under which its record stands, as JSON."""

UNREADABLE = (OSError, pa.ArrowException, ValueError)
"""What reading a file raises that is missing, damaged or some other program's."""


def write_table(path: Path, table: pd.DataFrame, record: Mapping[str, Any]) -> None:
    """Write the columns of a table and a record, whole or not at all; every page has a checksum.

    Raises:
        OSError: if the disk is full or not writable.
    """
    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata(
        {**(rows.schema.metadata or {}), RECORD: json.dumps(record)}
    )
    write_atomically(path, lambda file: pq.write_table(rows, file, write_page_checksum=True))


def read_table(path: Path, columns: Sequence[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """A table, in those of `columns` that it has (all by default), and its record; empty if it has none.

    Raises:
        OSError, pyarrow.ArrowException, ValueError: those of `UNREADABLE`.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        record = json.loads((file.schema_arrow.metadata or {}).get(RECORD, b"{}"))
        return file.read(columns=None if columns is None else list(columns)), record


def said(error: Exception) -> str:
    """What is wrong, on one line; Arrow's may be many."""
    return " ".join(str(error).split())
