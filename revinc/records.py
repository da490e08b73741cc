"""The JSON file that says what a folder holds: its config, and the version of its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revinc.atomic import write_atomically
from revinc.errors import UserError


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write `record` whole or not at all."""
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(file, lambda temporary: temporary.write_text(text))


def read_record(file: Path, kind: str) -> dict[str, Any]:
    """The record of a `kind` of folder such as "run", of whatever format version.

    Raises:
        UserError: if it is missing, damaged, or some other program's.
    """
    if not file.is_file():
        raise UserError(f"{file.parent} is no {kind} folder: it has no {file.name}")
    try:
        record = json.loads(file.read_text())
        record["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged or not a {kind}'s config ({error!r})") from error
    return dict(record)


def read_checked_record(
    file: Path, kind: str, format_version: int, needed: tuple[str, ...]
) -> dict[str, Any]:
    """The record of a `kind` of folder, once it is sure that this program can read it.

    Raises:
        UserError: if it is missing, damaged, or of another format version.
    """
    record = read_record(file, kind)
    if record["format_version"] != format_version:
        raise UserError(
            f"{file} has format version {record['format_version']}, and this program reads "
            f"{format_version}; use the version of jax-revinc that wrote it"
        )
    missing = [key for key in needed if key not in record]
    if missing:
        raise UserError(f"{file} is damaged: {', '.join(missing)} is missing")
    return record
