"""Reading of safetensors files, whose header is checked before any array is read."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from revinc.errors import UserError

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # widened to float32 when read
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    "BOOL": "?",
}
"""The types that can be read, and their NumPy types."""


@dataclass(frozen=True)
class Tensor:
    """The type and shape of an array in a safetensors file, and the position of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    begin: int


@dataclass(frozen=True)
class TensorFile:
    """An opened safetensors file, whose header was checked against the file's size."""

    path: Path
    tensors: dict[str, Tensor]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Open a safetensors file, and read its header only.

        Raises:
            UserError: if the file is missing, truncated or of another format.
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        try:
            with safe_open(path, framework="numpy"):  # checks every size and position
                pass
            with path.open("rb") as file:
                (n_bytes,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(n_bytes))
        except (SafetensorError, ValueError, struct.error) as error:
            raise UserError(
                f"{path} is not a readable safetensors file; it is truncated or of another format "
                f"({error})"
            ) from error
        header.pop("__metadata__", None)
        return cls(
            path,
            {
                name: Tensor(
                    tensor["dtype"],
                    tuple(tensor["shape"]),
                    8 + n_bytes + tensor["data_offsets"][0],
                )
                for name, tensor in header.items()
            },
        )

    def read(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Read arrays by name, all by default; bfloat16 becomes float32.

        Raises:
            UserError: if one has a type that is not among `DTYPES`, or they are too large.
        """
        names = self.tensors if names is None else names
        try:
            with self.path.open("rb") as file:
                return {name: self._array(file, name) for name in names}
        except (MemoryError, OverflowError) as error:
            raise UserError(f"{self.path} is too large to be read into memory") from error

    def _array(self, file: BinaryIO, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        if tensor.dtype not in DTYPES:
            raise UserError(
                f"{self.path} holds {name} as {tensor.dtype}, which can't be read; convert it to "
                "float32"
            )
        dtype = np.dtype(DTYPES[tensor.dtype])
        n_bytes = dtype.itemsize * math.prod(tensor.shape)
        file.seek(tensor.begin)
        content = bytearray(file.read(n_bytes))
        if len(content) < n_bytes:
            raise UserError(f"{self.path} is truncated; it became shorter while it was read")
        array = np.frombuffer(content, dtype).reshape(tensor.shape)
        if tensor.dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(array.dtype.newbyteorder("="), copy=False)
