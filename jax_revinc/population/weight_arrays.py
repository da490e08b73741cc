"""A population's weights on disk: a Zarr array for every parameter, with the model axis first.

Without compression Zarr 3 is simple: one file describes an array, and each piece of it is a file of
numbers. They are written here without a library, so that every file is whole or absent, and a piece
is read without trusting the files beside it.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from revinc import HookedTransformerConfig, UserError
from revinc.atomic_files import remove_leftovers, write_bytes
from revinc.folders import check_own_folder, make_own_folder
from revinc.json_records import read_json, write_record
from revinc.weights import StateDict, parameter_shapes

DESCRIPTION = "zarr.json"
PIECES = "c"
"""The folder of an array's pieces: piece 3 of a matrix is ``c/3/0/0``."""

GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}

WRITERS = 8
"""The number of files that are written at the same time."""


class WeightArrays:
    """A population's weights on disk, an array per parameter, in pieces (files) of `width` models.

    Rows that were never written are NaN.

    Args:
        folder: the folder of the arrays.
        cfg: the model's config.
        width: the number of models in a piece.
    """

    def __init__(self, folder: Path, cfg: HookedTransformerConfig, width: int) -> None:
        self.folder, self.width = folder, width
        self._dtype = np.dtype(cfg.dtype).newbyteorder("<")
        self._shapes = parameter_shapes(cfg)

    def check(self) -> None:
        """Raise a UserError if an array on disk has another shape or its folder is a link."""
        for name in self._shapes:
            check_own_folder(self.folder / name)
            check_own_folder(self.folder / name / PIECES)
            self._rows_described(name)

    def make_room(self, n_pieces: int) -> None:
        """Create the arrays, or extend them, so that each has room for `n_pieces` pieces of models.

        Raises:
            UserError: if the folder holds other arrays.
        """
        make_own_folder(self.folder)
        if not (self.folder / DESCRIPTION).exists():
            write_record(self.folder / DESCRIPTION, GROUP)
        for name in self._shapes:
            rows = self._rows_described(name)
            remove_leftovers(make_own_folder(self.folder / name), DESCRIPTION.__eq__)
            if rows is None or rows < n_pieces * self.width:
                write_record(self._description_file(name), self._description(name, n_pieces))

    def write(self, piece: int, weights: StateDict) -> None:
        """Write the weights [models, ...] of one piece, a file per parameter.

        If a piece has fewer models than `width`, the rows after them become NaN.

        Raises:
            OSError: if the disk is full or not writable.
            UserError: if there is a link where a folder should be.
        """

        def write_one(name: str) -> None:
            file = self._file(name, piece)
            folder = self.folder
            for part in file.parent.relative_to(folder).parts:
                folder = make_own_folder(folder / part)
            remove_leftovers(folder, file.name.__eq__)
            write_bytes(file, self._filled_up(weights[name]).tobytes())

        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(write_one, weights):
                pass

    def read(self, piece: int) -> StateDict:
        """Read the weights [width, ...] of one piece of `width` models, by parameter.

        Raises:
            UserError: if they can't be read.
        """
        return {name: self._read_one(name, piece) for name in self._shapes}

    def files(self, piece: int) -> list[Path]:
        """The paths of the files that hold one piece of models: one per parameter, if it exists."""
        return [file for name in self._shapes if (file := self._file(name, piece)).exists()]

    def last_piece(self) -> int:
        """The highest number of a piece (file) of any array; -1 if there are no pieces."""
        return max((piece for name in self._shapes for piece in self._pieces(name)), default=-1)

    def _pieces(self, name: str) -> Iterator[int]:
        folder = self.folder / name / PIECES
        for file in folder.iterdir() if folder.is_dir() else ():
            if file.name.isascii() and file.name.isdigit():
                yield int(file.name)

    def _file(self, name: str, piece: int) -> Path:
        return self.folder / name / PIECES / "/".join([str(piece), *"0" * len(self._shapes[name])])

    def _description_file(self, name: str) -> Path:
        return self.folder / name / DESCRIPTION

    def _read_one(self, name: str, piece: int) -> np.ndarray:
        shape = (self.width, *self._shapes[name])
        try:
            content = read_exactly(self._file(name, piece), math.prod(shape) * self._dtype.itemsize)
        except FileNotFoundError:
            return np.full(shape, np.nan, self._dtype)
        except OSError as error:
            raise UserError(f"the weights of shard {piece} can't be read: {error}") from error
        return (
            np.frombuffer(content, self._dtype).reshape(shape).astype(self._dtype.newbyteorder("="))
        )

    def _description(self, name: str, n_pieces: int) -> dict[str, Any]:
        shape = self._shapes[name]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [n_pieces * self.width, *shape],
            "data_type": self._dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.width, *shape]},
            },
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": "NaN",
        }

    def _rows_described(self, name: str) -> int | None:
        """The number of models that an array's ``zarr.json`` states; None without such a file."""
        file = self._description_file(name)
        if not file.exists():
            return None
        if not file.is_file():
            raise UserError(
                f"{file}, which describes weights of the population, is not a regular file; move "
                "it away, and --resume writes a new one"
            )
        try:
            found = read_json(file)
            rows = found["shape"][0]
            expected = self._description(name, 0)
            expected["shape"] = [rows, *expected["shape"][1:]]
            fits = isinstance(rows, int) and all(found.get(k) == v for k, v in expected.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}, which describes weights of the population, is damaged ({error}); move it "
                "away, and --resume writes a new one"
            ) from error
        if not fits:
            raise UserError(
                f"{file} is the header of an array of other shapes or types than this population's "
                "weights; put the population's own file back, or move this one away and run with "
                "--resume, which writes a new one"
            )
        return int(rows)

    def _filled_up(self, array: np.ndarray) -> np.ndarray:
        filled = np.full((self.width, *array.shape[1:]), np.nan, self._dtype)
        filled[: len(array)] = array
        return filled


def read_exactly(file: Path, n_bytes: int) -> bytes:
    """Read a regular file that must have exactly `n_bytes` bytes.

    Raises:
        OSError: if it is not a regular file, or has another size; then nothing is read.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"the file of weights {file} is not a regular file")
    if status.st_size != n_bytes:
        raise OSError(
            f"the file of weights {file} has {status.st_size} bytes, but should have {n_bytes}"
        )
    return file.read_bytes()
