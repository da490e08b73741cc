"""Runs a function in a process of its own, so that the command itself never takes the GPU.

    python -m benchmarks.gpu.process MODULE:FUNCTION ARGUMENTS FILE

calls the function with the keyword arguments of a JSON text, and writes what it returns as JSON. What
the function prints appears where the command's own words do.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.failure import StageFailed
from revinc.errors import one_line

PATIENCE = 600.0
"""Seconds that a process gets."""


def in_a_process(function: str, **arguments: Any) -> Any:
    """Call a function in a process of its own.

    Args:
        function: ``module:name``.
        arguments: keyword arguments, as JSON can hold them.

    Raises:
        StageFailed: with the error of the function, or the status of a process that died.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        status = run_process(__spec__.name, function, json.dumps(arguments), str(file))
        if not file.exists():
            raise StageFailed(f"the process of {function} died with status {status}")
        answer = json.loads(file.read_text())
    if "error" in answer:
        raise StageFailed(answer["error"])
    return answer["returned"]


def run_process(module: str, *words: str) -> int:
    """Run ``python -m module``; its exit status.

    Raises:
        StageFailed: if it takes longer than `PATIENCE`.
    """
    command = [sys.executable, "-m", module, *words]
    try:
        return subprocess.run(command, check=False, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        raise StageFailed(
            f"python -m {module} was ended, because it took more than {PATIENCE:g} seconds"
        ) from None


def main() -> None:
    function, arguments, file = sys.argv[1:]
    module, _, name = function.partition(":")
    try:
        returned = getattr(importlib.import_module(module), name)(**json.loads(arguments))
        answer = {"returned": returned}
    except Exception as error:  # whatever it is, the stage has failed
        answer = {"error": f"{type(error).__name__}: {one_line(error)}"}
    Path(file).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
