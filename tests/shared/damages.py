"""Ways in which files from elsewhere may be wrong, as hypothesis strategies: each damages one file of a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

DEEP, DIGITS = "@deep@", "@digits@"
"""Marks of values that `json` can't write: 200,000 nested lists, and an integer of 400 digits."""

HOSTILE = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**7,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "1",
    "evil:Class",
    "this:d",
    "[/b]",
    "\x1b]0;owned\x07",
    "../../x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"name": "xla"},
    DEEP,
    DIGITS,
)
"""Values that a field of a JSON file may turn out to have."""


@dataclass(frozen=True)
class Damage:
    """What is done to one file.

    Attributes:
        kind: a word for it, to count by.
        file: the file's path below the folder.
        details: what tells one damage of a kind from another.
        apply: does it, to the file and given its namesake in another folder of the same kind.
    """

    kind: str
    file: str
    details: str
    apply: Callable[[Path, Path], object]

    def __repr__(self) -> str:
        return f"{self.kind} of {self.file}: {self.details}"

    def to(self, folder: Path, other: Path) -> None:
        """Damage `folder`; `other` is an undamaged folder of the same kind."""
        self.apply(folder / self.file, other / self.file)


def damages(folder: Path) -> st.SearchStrategy[Damage]:
    """One damage of one file that `folder` holds."""
    files = sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".lock"
    )
    # Stores hold hundreds of weight files, which must not crowd out the few others.
    weights = [name for name in files if name.startswith("weights/")]
    others = [name for name in files if name not in weights]
    pools = [st.sampled_from(pool) for pool in (others, others, weights) if pool]
    return st.one_of(pools).flatmap(lambda file: damage_of(file, files))


def damage_of(file: str, files: list[str]) -> st.SearchStrategy[Damage]:
    """A damage that fits the file's format, or one that any file may have."""
    suffix = Path(file).suffix
    of_format = {".json": edits, ".jsonl": edits, ".safetensors": tensors, ".parquet": tables}.get(
        suffix
    )
    anything = st.one_of(cuts(file), flips(file), swaps(file, files), others(file))
    return anything if of_format is None else st.one_of(anything, of_format(file), of_format(file))


def cuts(file: str) -> st.SearchStrategy[Damage]:
    """The file ends early, or is empty."""

    def cut(share: float) -> Damage:
        def apply(path: Path, _: Path) -> None:
            whole = path.read_bytes()
            path.write_bytes(whole[: int(share * len(whole))])

        return Damage("truncation", file, f"to {share:.0%}", apply)

    return st.floats(0, 0.999).map(cut)


def flips(file: str) -> st.SearchStrategy[Damage]:
    """One bit is another."""

    def flip(share: float, bit: int) -> Damage:
        def apply(path: Path, _: Path) -> None:
            content = bytearray(path.read_bytes())
            content[int(share * len(content))] ^= 1 << bit
            path.write_bytes(content)

        return Damage("flipped bit", file, f"{bit} at {share:.3f}", apply)

    return st.builds(flip, st.floats(0, 0.9999), st.integers(0, 7))


def swaps(file: str, files: list[str]) -> st.SearchStrategy[Damage]:
    """The file holds what another of the folder does."""
    alike = [name for name in files if Path(name).suffix == Path(file).suffix]

    def swap(source: str) -> Damage:
        def apply(path: Path, _: Path) -> None:
            folder = path.parents[len(Path(file).parts) - 1]
            shutil.copyfile(folder / source, path) if source != file else path.unlink()

        return Damage("swap", file, f"with {source}", apply)

    return st.sampled_from(alike).map(swap)


def others(file: str) -> st.SearchStrategy[Damage]:
    """The file is gone, is another run's, is a folder, holds zeros, noise, or more than it should."""
    ways: dict[str, Callable[[Path, Path], object]] = {
        "missing": lambda path, _: path.unlink(),
        "another run's": lambda path, other: other.exists() and shutil.copyfile(other, path),
        "folder": lambda path, _: (path.unlink(), path.mkdir()),
        "zeros": lambda path, _: path.write_bytes(bytes(path.stat().st_size)),
        "noise": lambda path, _: path.write_bytes(np.random.default_rng(0).bytes(1000)),
        "longer": lambda path, _: path.write_bytes(path.read_bytes() + b"\0 {}"),
        "10 GB header": lambda path, _: path.write_bytes(
            (10 * 2**30).to_bytes(8, "little") + path.read_bytes()[8:]
        ),
        "deep": lambda path, _: path.write_text("[" * 200_000 + "]" * 200_000),
        "other encoding": lambda path, _: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    }
    return st.sampled_from(sorted(ways)).map(lambda way: Damage(way, file, "", ways[way]))


def edits(file: str) -> st.SearchStrategy[Damage]:
    """A value of a JSON file, or of a line of one, is another, or a key is missing or too much."""
    by_lines = file.endswith(".jsonl")

    def edit(at: float, value: Any, how: str) -> Damage:
        def apply(path: Path, _: Path) -> None:
            text = path.read_text()
            record = [*map(json.loads, text.splitlines())] if by_lines else json.loads(text)
            places = list(json_places(record))
            owner, key = places[int(at * len(places))]
            if how == "remove":
                del owner[key]
            elif how == "add" and isinstance(owner, dict):
                owner["odd"] = value
            else:
                owner[key] = value
            text = (
                "".join(json.dumps(line) + "\n" for line in record)
                if by_lines
                else json.dumps(record, indent=2)
            )
            text = text.replace(json.dumps(DEEP), "[" * 200_000 + "]" * 200_000)
            path.write_text(text.replace(json.dumps(DIGITS), "9" * 400))

        return Damage("edit", file, f"{how} {value!r} at {at:.4f}", apply)

    hows = st.sampled_from(["set", "set", "set", "add", "remove"])
    return st.builds(edit, st.floats(0, 0.99999), st.sampled_from(HOSTILE), hows)


def json_places(record: Any) -> Any:
    """Every (container, key) of a JSON value."""
    for key in list(record) if isinstance(record, dict) else range(len(record)):
        yield record, key
        if isinstance(record[key], dict | list):
            yield from json_places(record[key])


def tensors(file: str) -> st.SearchStrategy[Damage]:
    """A tensor of a safetensors file is of another shape, type or value, or has another name."""
    ways: dict[str, Callable[[dict[str, np.ndarray], str], object]] = {
        "NaN": lambda all_, name: all_[name].fill(np.nan),
        "one NaN": lambda all_, name: all_[name].__setitem__((0,) * all_[name].ndim, np.nan),
        "infinity": lambda all_, name: all_[name].fill(np.inf),
        "other value": lambda all_, name: all_[name].__iadd__(np.array(1, all_[name].dtype)),
        "float16": lambda all_, name: all_.update({name: all_[name].astype(np.float16)}),
        "int64": lambda all_, name: all_.update({name: all_[name].astype(np.int64)}),
        "bool": lambda all_, name: all_.update({name: all_[name].astype(bool)}),
        "other shape": lambda all_, name: all_.update({name: all_[name][None]}),
        "empty": lambda all_, name: all_.update({name: all_[name].ravel()[:0]}),
        "missing tensor": lambda all_, name: all_.pop(name),
        "odd name": lambda all_, name: all_.update({"\x1b[31m[/b]": all_[name]}),
    }

    def change(at: float, way: str) -> Damage:
        def apply(path: Path, _: Path) -> None:
            arrays = {name: np.array(array) for name, array in load_file(path).items()}
            name = sorted(arrays)[int(at * len(arrays))]
            with np.errstate(invalid="ignore"):
                if arrays[name].size and (arrays[name].dtype.kind == "f" or "NaN" not in way):
                    ways[way](arrays, name)
            save_file(arrays, path)

        return Damage(f"tensor: {way}", file, f"at {at:.3f}", apply)

    return st.builds(change, st.floats(0, 0.999), st.sampled_from(sorted(ways)))


def tables(file: str) -> st.SearchStrategy[Damage]:
    """A table has other rows, columns, types or values, or says nothing of where it is from."""
    ways: dict[str, Callable[[pd.DataFrame, str], pd.DataFrame]] = {
        "no rows": lambda table, _: table.iloc[:0],
        "fewer rows": lambda table, _: table.iloc[:-1],
        "rows twice": lambda table, _: pd.concat([table, table]),
        "rows in reverse": lambda table, _: table.iloc[::-1],
        "a column less": lambda table, column: table.drop(columns=column),
        "a column more": lambda table, _: table.assign(odd=1),
        "renamed": lambda table, column: table.rename(columns={column: "\x1b[31m[/b]"}),
        "text": lambda table, column: table.assign(**{column: table[column].astype(str)}),
        "missing values": lambda table, column: table.assign(**{column: None}),
        "huge numbers": lambda table, column: table.assign(**{column: 2.0**62}),
        "lists": lambda table, column: table.assign(**{column: [[1]] * len(table)}),
    }

    def change(at: float, way: str, with_record: bool) -> Damage:
        def apply(path: Path, _: Path) -> None:
            found = pq.read_table(path)
            rows = found.to_pandas(ignore_metadata=True)
            changed = ways[way](rows, rows.columns[int(at * len(rows.columns))])
            written = pa.Table.from_pandas(changed, preserve_index=False)
            if with_record:
                written = written.replace_schema_metadata(found.schema.metadata)
            pq.write_table(written, path)

        details = f"at {at:.3f}{'' if with_record else ', without its record'}"
        return Damage(f"table: {way}", file, details, apply)

    return st.builds(change, st.floats(0, 0.999), st.sampled_from(sorted(ways)), st.booleans())
