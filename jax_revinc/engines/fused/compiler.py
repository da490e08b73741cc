"""The C++ compiler of this machine."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


class CannotBuild(RuntimeError):
    """No compiled program can be had here; the message is one sentence that says why."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the `command` that starts it, and all that it says of its `version`."""

    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        """The first line of the version: ``g++ (Debian 12.2.0-14) 12.2.0``."""
        return self.version.partition("\n")[0]

    @property
    def is_clang(self) -> bool:
        """Whether it takes clang's flags (as ziglang does), not GCC's."""
        return "clang" in self.version

    def compile(self, source: str, flags: Sequence[str], library: Path) -> None:
        """Compile C++17 to the shared object `library`, with temporary files beside it.

        Raises:
            CannotBuild: with the compiler's first error, if it refuses.
            OSError: if a file can't be written.
        """
        library.with_name("program.cpp").write_text(source)
        self._run(library.parent, *flags, "-std=c++17", "-fPIC", "-c", "program.cpp")
        # Linked apart: with -ffast-math in sight, GCC would link start-up code that switches off
        # denormal numbers in the whole process.
        self._run(library.parent, "-shared", "-pthread", "-Wl,-S", "program.o", "-o", library.name)

    def _run(self, folder: Path, *arguments: str) -> None:
        said = _run([*self.command, *arguments], folder)
        if said.returncode != 0:
            lines = said.stderr.splitlines() or [f"exit status {said.returncode}"]
            error = next((line for line in lines if "error" in line), lines[0])
            raise CannotBuild(f"{self} could not compile the program: {error}")


def find_compiler() -> Compiler:
    """The compiler that ``CXX`` names, else the system's, else the ``ziglang`` wheel's.

    Raises:
        CannotBuild: if there is none, or if ``CXX`` names none.
    """
    for words in _candidates():
        command = (str(Path(shutil.which(words[0]) or words[0]).absolute()), *words[1:])
        try:
            said = _run([*command, "--version"], Path.cwd())
        except OSError:
            continue
        if said.returncode == 0:  # macOS has a c++ that only tells how to get one
            return Compiler(command, said.stdout)
    if chosen := os.environ.get("CXX"):
        raise CannotBuild(f"CXX={chosen} is no compiler that runs here: unset it or name another.")
    raise CannotBuild(
        "There is no C++ compiler here (c++, g++ or clang++): install one, "
        "or run pip install 'jax-revinc[fused]', which brings one."
    )


def _candidates() -> Iterator[list[str]]:
    if chosen := os.environ.get("CXX"):
        yield shlex.split(chosen)
        return
    yield from (["c++"], ["g++"], ["clang++"])
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++"]


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    english = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        command,
        cwd=folder,
        env=english,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
