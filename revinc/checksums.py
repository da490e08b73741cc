"""The journal of a run: the file with the checksums of its files, to detect later changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from revinc.atomic_files import append_bytes, write_bytes
from revinc.config import MOST_PAUSES
from revinc.errors import UserError, sentence
from revinc.json_records import check_format_version, parse_json, read_json

CHECKSUMS = "checksums.jsonl"
"""The journal: a header, then a line for each file. A later line for the same file replaces."""

EARLIER_CHECKSUMS = "checksums.json"
"""The file in which earlier versions kept the same, written anew for each file."""

FORMAT_VERSION = 1

LONGEST_LINE = 256
"""The most bytes of a line; ours have at most 170."""

MOST_LINES = 3 * MOST_PAUSES
"""The most lines. A run has little more than `MOST_PAUSES` files, and a resume may repeat each."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A file's size in bytes and the SHA-256 of its content."""

    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Checksum:
        """The checksum of a file that holds `content`."""
        return cls(len(content), hashlib.sha256(content).hexdigest())

    def fits(self, path: Path) -> bool:
        """Whether a file has this size and SHA-256; it is read only if its size is right."""
        return path.stat().st_size == self.n_bytes and sha256_of(path) == self.sha256


@dataclass(frozen=True)
class Checksums:
    """The checksums that a run recorded when it wrote its files.

    Attributes:
        recipe: the digest of the run's config, from `revinc.json_records.config_digest`.
        files: checksums by the files' names, such as ``snapshots/000000.safetensors``.
        source: name of the file that holds them.
    """

    recipe: str
    files: Mapping[str, Checksum] = field(default_factory=dict)
    source: str = CHECKSUMS

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the recorded checksums from a run folder; None if the run is too old to have any.

        A folder may hold both files, if a resume was killed between writing the journal, which
        holds all that the earlier file does, and deleting that file. So the journal is read.

        Raises:
            UserError: if they can't be read.
        """
        for name, read in ((CHECKSUMS, read_journal), (EARLIER_CHECKSUMS, read_earlier)):
            path = folder / name
            if not path.exists():
                continue
            try:
                recipe, files = read(path)
            except UserError:
                raise
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path} is damaged ({sentence(error)}); restore it from a copy, or move it "
                    "away to read the run unchecked"
                ) from error
            return cls(recipe, files, name)
        return None

    def allow(self, folder: Path, name: str) -> bool:
        """Whether an existing file has the checksum that the run recorded for it."""
        return name in self.files and self.files[name].fits(folder / name)

    def check(self, folder: Path, name: str) -> None:
        """Raise a UserError unless an existing file has the checksum that the run recorded."""
        path, known = folder / name, self.files.get(name)
        if known is None:
            raise UserError(
                f"{path} was not written by this run: {self.source} does not list it; move it away"
            )
        if known.fits(path):
            return
        raise UserError(
            f"{path} {self._what_is_there(path, known)}: its checksum is not the one that the run "
            f"recorded in {self.source}; restore it from a copy, or train the run again"
        )

    def _what_is_there(self, path: Path, known: Checksum) -> str:
        n_bytes = path.stat().st_size
        alike = {name: each for name, each in self.files.items() if each.n_bytes == n_bytes}
        sha256 = sha256_of(path) if alike else None
        others = [name for name, each in alike.items() if each.sha256 == sha256]
        if others:
            return f"holds what belongs in {others[0]}"
        if n_bytes < known.n_bytes:
            return f"is truncated, to {n_bytes} of {known.n_bytes} bytes"
        return "is damaged, or another run's"


class Journal:
    """Writes the file of a run's checksums. The caller must hold the lock of the run folder.

    A file's checksum is added before the file is written: whenever the writer is killed, each of
    its files has one. The first addition writes the journal anew, whole or not at all: without
    repeated lines, without a line that was cut short, and with what an earlier version kept.
    Later additions append lines, so that the cost of one does not grow with the number of files.
    """

    def __init__(self, folder: Path, checksums: Checksums) -> None:
        """Begin with the checksums that the run folder has already (none for a new run)."""
        self._folder = folder
        self._before: Checksums | None = checksums

    def add(self, contents: Mapping[str, bytes]) -> None:
        """Add the checksums of files that are about to be written.

        Args:
            contents: what the files will hold, by their names.

        Raises:
            OSError: if the disk is full or the folder not writable.
        """
        added = {name: Checksum.of(content) for name, content in contents.items()}
        path = self._folder / CHECKSUMS
        if self._before is None:
            append_bytes(path, _lines(added))
            return
        header = _line({"format_version": FORMAT_VERSION, "recipe": self._before.recipe})
        write_bytes(path, header + _lines({**self._before.files, **added}))
        (self._folder / EARLIER_CHECKSUMS).unlink(missing_ok=True)
        self._before = None


def read_journal(path: Path) -> tuple[str, dict[str, Checksum]]:
    """Read a checksum journal: returns the run's config digest and each file's last checksum."""
    lines = whole_lines(path)
    header = parse_json(next(lines, b""))
    check_format_version(path, header, FORMAT_VERSION)
    files = {}
    for line in lines:
        entry = parse_json(line)
        files[_text(entry["file"])] = _checksum(entry)
    return _text(header["recipe"]), files


def read_earlier(path: Path) -> tuple[str, dict[str, Checksum]]:
    """Read the checksum file of earlier versions: returns the config digest and the checksums."""
    record = read_json(path)
    check_format_version(path, record, FORMAT_VERSION)
    files = {name: _checksum(entry) for name, entry in record["files"].items()}
    return _text(record["recipe"]), files


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a journal of checksums, without a last line that a killed process cut short."""
    with path.open("rb") as file:
        for number in range(MOST_LINES + 1):
            line = file.readline(LONGEST_LINE)
            if not line.endswith(b"\n"):
                if len(line) == LONGEST_LINE:
                    raise ValueError(f"line {number + 1} is longer than {LONGEST_LINE} bytes")
                return
            yield line
    raise ValueError(f"the file has more than {MOST_LINES:,} lines")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(files: Mapping[str, Checksum]) -> bytes:
    entries = (
        {"file": name, "bytes": checksum.n_bytes, "sha256": checksum.sha256}
        for name, checksum in files.items()
    )
    return b"".join(map(_line, entries))


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _checksum(entry: Any) -> Checksum:
    n_bytes, sha256 = entry["bytes"], _text(entry["sha256"])
    if type(n_bytes) is not int or len(sha256) != 64:
        raise ValueError("each checksum entry must hold a size and the 64 digits of a SHA-256")
    return Checksum(n_bytes, sha256)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a checksum entry holds {value!r:.40} instead of a string")
    return value
