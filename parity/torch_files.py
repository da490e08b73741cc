"""Read files of torch without running code that they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from revinc import UserError
from revinc.errors import one_line, shown
from revinc.foreign_arrays import as_array
from revinc.validation import require_path


def load_torch(path: str | Path) -> Any:
    """Read a file of ``torch.save``, such as a ``.pt`` or ``.pth``, with its tensors as numpy arrays.

    Nothing in the file is run: it may hold tensors, numbers, texts, and dicts and lists of them.
    What lies nested in it stays nested; give the dict of weights by name to
    ``model.load_state_dict``.

    Args:
        path: the file.

    Returns:
        What was saved; bfloat16 tensors as float32 arrays.

    Raises:
        UserError: if the file is missing or damaged, or holds anything else, such as a whole model.
    """
    file = require_path("path", path)
    if not file.is_file():
        raise UserError(f"{file} {'is no file' if file.exists() else 'does not exist'}")
    try:
        return with_arrays(torch.load(file, map_location="cpu", weights_only=True))
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{file} {error}") from error
    except Exception as error:  # torch raises many kinds for a file of another format
        raise UserError(f"{file} {why_not_read(one_line(error))}") from error


def with_arrays(value: Any) -> Any:
    """What a file of torch holds, with numpy arrays for tensors, in dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        array = as_array(value)
        if array.shape != tuple(value.shape):
            raise UserError(f"holds a tensor that numpy has no array for: {shown(value)}")
        return array
    if isinstance(value, Mapping):
        return {key: with_arrays(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_arrays(each) for each in value)
    return value


def why_not_read(message: str) -> str:
    """The rest of a sentence about a file that torch refused with `message`."""
    if named := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"holds {named[1]}, which can't be read without running code of the file; save only the "
            "weights, by torch.save(model.state_dict(), path), where the file was made"
        )
    return "is damaged, or no file of torch.save"
