"""The JSON files with the config of a run or population, and safe reading of any JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revinc.atomic_files import write_text
from revinc.errors import UserError, sentence

SECTIONS = ("model", "task", "train")
"""The sections of a record that are a config."""

MOST_BYTES = 2**24
"""The size of the largest record that is read; records have some thousand bytes."""

LARGEST_INTEGER = 2**63
"""The bound of the absolute value of integers in a record."""


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON record to a file, whole or not at all."""
    write_text(file, json.dumps(record, indent=2) + "\n")


def read_record(file: Path, kind: str) -> dict[str, Any]:
    """Read the JSON record of a run or population folder, of any format version.

    Args:
        file: the record.
        kind: the kind of folder for errors, such as "run".

    Raises:
        UserError: if it is missing, damaged, or another program's.
    """
    if not file.is_file():
        raise UserError(f"{file.parent} is not a {kind} folder: it has no {file.name}")
    try:
        record = read_json(file)
        if not isinstance(record, dict) or "format_version" not in record:
            raise ValueError("the record has no format_version")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is damaged or not a {kind}'s config ({sentence(error)})"
        ) from error
    return record


def read_checked_record(
    file: Path, kind: str, format_version: int, needed: tuple[str, ...]
) -> dict[str, Any]:
    """Read the JSON record of a folder, and check that this program reads its format.

    Args:
        file: the record.
        kind: the kind of folder for errors, such as "run".
        format_version: the format version that this program reads.
        needed: required sections whose values are all strings, such as the versions.

    Raises:
        UserError: if it is missing, damaged, or of another format version.
    """
    record = read_record(file, kind)
    check_format_version(file, record, format_version)
    missing = [key for key in needed if key not in record]
    if missing:
        raise UserError(f"{file} is damaged: it has no section {', '.join(missing)}")
    for key in needed:
        if not is_texts(record[key]):
            raise UserError(f"{file} is damaged: its section {key} must hold strings by name")
    return record


def check_format_version(file: Path, record: Mapping[str, Any], format_version: int) -> None:
    """Raise a UserError unless a file's record has the format version that this program reads."""
    version = record["format_version"]
    if type(version) is not int or version != format_version:
        raise UserError(
            f"{file} has format version {str(version)[:80]}, and this program reads "
            f"{format_version}; use the version of jax-revinc that wrote it"
        )


def is_texts(value: Any) -> bool:
    """Whether a value is a dict whose values are strings."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def read_json(file: Path) -> Any:
    """Read a JSON file that may be damaged or hostile, with limits on its size and nesting.

    Raises:
        ValueError: if it is not JSON in UTF-8, is too large or nests too deeply, or holds an object
            with a key twice, or an integer that is too large.
        OSError: if it can't be read.
    """
    with file.open("rb") as opened:
        return parse_json(opened.read(MOST_BYTES + 1))


def parse_json(content: bytes) -> Any:
    """Parse JSON text that may be damaged or hostile, with limits on its size and nesting.

    Raises:
        ValueError: as `read_json`.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"the JSON text is larger than {MOST_BYTES // 2**20} MiB")
    try:
        value = json.loads(
            content.decode("utf-8"), parse_int=_bounded, object_pairs_hook=_without_twins
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses half a surrogate pair
    except RecursionError:
        raise ValueError("the JSON text nests too deeply") from None
    return value


def config_digest(sections: Mapping[str, Any], engine: Mapping[str, str]) -> str:
    """A hash of a run's config and engine, which its files record to show which run they are of.

    Args:
        sections: the config's sections as they are on disk, so that a field of a later version does
            not change the hash.
        engine: the engine's record.
    """
    config = {name: sections[name] for name in SECTIONS}
    return hashlib.sha256(json.dumps([config, engine], sort_keys=True).encode()).hexdigest()


def _bounded(digits: str) -> int:
    if len(digits) > len(str(LARGEST_INTEGER)) or abs(int(digits)) >= LARGEST_INTEGER:
        raise ValueError(f"the JSON text holds an integer that is too large: {len(digits)} digits")
    return int(digits)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twins = [name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])]
        raise ValueError(f"an object in the JSON text holds the key {twins[0]!r} twice")
    return found
