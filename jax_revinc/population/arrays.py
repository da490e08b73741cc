"""The weights of a population on disk: a Zarr array for every parameter, with the model axis first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from revinc import HookedTransformerConfig, UserError
from revinc.atomic import write_atomically
from revinc.weights import StateDict, parameter_shapes

GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}


class WeightArrays:
    """The arrays in a folder, in pieces of `width` models, each of which is a file that is whole or absent.

    Rows that were never written are NaN.
    """

    def __init__(self, folder: Path, cfg: HookedTransformerConfig, width: int) -> None:
        self.folder, self.width = folder, width
        self._dtype = cfg.dtype
        self._shapes = parameter_shapes(cfg)

    def make_room(self, n_pieces: int) -> None:
        """Create the arrays, or let them grow, to `n_pieces`.

        Raises:
            UserError: if what is there can't be read.
        """
        self.folder.mkdir(exist_ok=True)
        write_atomically(self.folder / "zarr.json", lambda file: file.write_text(json.dumps(GROUP)))
        try:
            for name, shape in self._shapes.items():
                exists = (self.folder / name / "zarr.json").exists()
                array = self._open(name) if exists else self._create(name, shape)
                array.resize(exclusive_max=(n_pieces * self.width, *shape)).result()
        except ValueError as error:
            raise UserError(f"{self.folder} can't be used: {first_sentence(error)}") from error

    def write(self, piece: int, weights: StateDict) -> None:
        """Write the first models of a piece, [models, ...], and let the others be NaN.

        Raises:
            OSError: if the disk is full or not writable.
        """
        try:
            pending = [
                self._open(name)[self._rows(piece)].write(self._filled_up(array))
                for name, array in weights.items()
            ]
            # All come to their end before the first error is raised: none leaves its lock file behind.
            failed = [error for write in pending if (error := write.exception()) is not None]
            if failed:
                raise failed[0]
        except ValueError as error:
            raise OSError(f"the weights can't be written: {first_sentence(error)}") from error

    def read(self, piece: int) -> StateDict:
        """The weights of a piece, [width, ...].

        Raises:
            UserError: if they can't be read.
        """
        try:
            pending = {name: self._open(name)[self._rows(piece)].read() for name in self._shapes}
            return {name: read.result() for name, read in pending.items()}
        except ValueError as error:
            raise UserError(f"its weights can't be read: {first_sentence(error)}") from error

    def _open(self, name: str, **how: Any) -> Any:
        place = {"driver": "file", "path": f"{self.folder / name}/"}
        return tensorstore.open({"driver": "zarr3", "kvstore": place, **how}).result()

    def _create(self, name: str, shape: tuple[int, ...]) -> Any:
        pieces = {"name": "regular", "configuration": {"chunk_shape": [self.width, *shape]}}
        little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
        metadata = {
            "shape": [0, *shape],
            "data_type": self._dtype,
            "chunk_grid": pieces,
            "codecs": [little_endian],
            "fill_value": "NaN",
        }
        return self._open(name, create=True, metadata=metadata)

    def _rows(self, piece: int) -> slice:
        return slice(piece * self.width, (piece + 1) * self.width)

    def _filled_up(self, array: np.ndarray) -> np.ndarray:
        filled = np.full((self.width, *array.shape[1:]), np.nan, self._dtype)
        filled[: len(array)] = array
        return filled


def first_sentence(error: Exception) -> str:
    """What TensorStore says is wrong, without where in its sources it was noticed."""
    return str(error).split(" [", 1)[0]
