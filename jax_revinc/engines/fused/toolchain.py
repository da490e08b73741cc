"""Find what compiling needs on this machine: its CPU's instruction sets, and a C++ compiler."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jax_revinc.engines.fused.errors import CannotBuild

BYTES_OF_VECTORS = {"avx512f": 64, "avx2": 32}
BYTES_OF_SHORT_VECTORS = 16  # SSE, NEON

SECONDS_TO_COMPILE = 1800.0
"""The time limit to compile a program: the largest that are built take some minutes."""

SECONDS_TO_ANSWER = 60.0
"""The time limit for a compiler to say its version."""


@functools.cache
def cpu_features() -> frozenset[str]:
    """The instruction sets of this CPU, as the operating system names them, in lower case; empty if
    unknown.
    """
    try:
        said = _sysctl() if sys.platform == "darwin" else _first_of_cpuinfo()
    except OSError:
        return frozenset()
    return frozenset(said.lower().split())


def _first_of_cpuinfo() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:  # x86 and ARM
            return value
    return ""


def _sysctl() -> str:
    # An x86 lists its features; an Apple chip has a name that implies them.
    names = ("features", "leaf7_features", "brand_string")
    command = ["sysctl", "-n", *(f"machdep.cpu.{name}" for name in names)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def native_flags() -> list[str]:
    """The flags by which a C++ compiler optimises for this CPU; none if the CPU is unknown."""
    if not cpu_features():
        return []
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return ["-mcpu=native"]
    # Some compilers halve 64-byte vectors on CPUs that once slowed down for them.
    return ["-march=native", "-mprefer-vector-width=512"]


def lane_width(dtype: npt.DTypeLike, features: frozenset[str] | None = None) -> int:
    """The number of lanes of this CPU: the elements of type `dtype` in one SIMD vector.

    More lanes spill registers: a program with 16 lanes runs 3.7 times slower on AVX2 than with 8.

    Args:
        dtype: of an element, float32 or float64.
        features: the instruction sets of another CPU. With the compiler flag ``-march=haswell``
            they are ``{"avx2"}``, with ``-march=nehalem`` ``{"sse4_2"}``.
    """
    features = cpu_features() if features is None else features
    widths = [width for feature, width in BYTES_OF_VECTORS.items() if feature in features]
    return max(widths, default=BYTES_OF_SHORT_VECTORS) // np.dtype(dtype).itemsize


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler of this machine: the command that starts it, and its version.

    Attributes:
        command: starts it.
        version: its answer to ``--version``.
    """

    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        """The first line of the compiler's version, such as ``g++ (Debian 12.2.0-14) 12.2.0``."""
        return self.version.partition("\n")[0] or shlex.join(self.command)

    def compile(self, source: str, flags: Sequence[str], library: Path) -> None:
        """Compile C++17 source to a shared object, the file `library`.

        Args:
            source: the program.
            flags: for compiling, not for linking.
            library: the path of the shared object; its folder holds temporary files too.

        Raises:
            CannotBuild: with the compiler's first error; or if it makes nothing or does not end, or
                if a file can't be written.
        """
        text = library.with_name("program.cpp")
        try:
            text.write_text(source)
        except OSError as why:
            raise CannotBuild(
                f"the generated C++ file {text} can't be written ({why.strerror}): set TMPDIR to a "
                "folder with free space"
            ) from why
        self._run(library.parent, *flags, "-std=c++17", "-fPIC", "-c", "program.cpp")
        # A separate call: if it saw -ffast-math, GCC would link start-up code that switches off
        # denormal numbers in the whole process.
        self._run(library.parent, "-shared", "-pthread", "-Wl,-S", "program.o", "-o", library.name)
        if not library.is_file():
            raise CannotBuild(
                f"the compiler {self} reports success, but wrote no compiled program: set CXX to a "
                "C++ compiler"
            )

    def _run(self, folder: Path, *arguments: str) -> None:
        try:
            said = _run([*self.command, *arguments], folder, SECONDS_TO_COMPILE)
        except (OSError, subprocess.TimeoutExpired) as why:
            raise CannotBuild(
                f"the compiler {self} could not compile the program: {_cause(why)}"
            ) from why
        if said.returncode != 0:
            lines = said.stderr.splitlines() or [f"exit status {said.returncode}"]
            error = next((line for line in lines if "error" in line), lines[0])
            raise CannotBuild(f"the compiler {self} could not compile the program: {error}")


def find_compiler() -> Compiler:
    """Find a working C++ compiler: the one named by the environment variable ``CXX``; without it,
    one of the system's or that of the Python package ``ziglang``.

    Raises:
        CannotBuild: if there is none, or if the command in ``CXX`` does not run.
    """
    why = ""
    for words in _candidates():
        command = (str(Path(shutil.which(words[0]) or words[0]).absolute()), *words[1:])
        try:
            said = _run([*command, "--version"], Path.cwd(), SECONDS_TO_ANSWER)
        except (OSError, subprocess.TimeoutExpired) as error:
            why = f" ({_cause(error)})"
            continue
        if said.returncode == 0:  # macOS has a c++ that only tells how to get one
            return Compiler(command, said.stdout)
    if chosen := os.environ.get("CXX"):
        raise CannotBuild(
            f"the environment has CXX={chosen}, which is no C++ compiler that runs here{why}: "
            "unset CXX, or set it to another compiler"
        )
    raise CannotBuild(
        "the fused engine finds no C++ compiler here (c++, g++ or clang++): install one, "
        "or run pip install 'jax-revinc[fused]', which brings one"
    )


def _candidates() -> Iterator[list[str]]:
    if chosen := os.environ.get("CXX"):
        try:
            words = shlex.split(chosen)
        except ValueError as why:
            raise CannotBuild(
                f"the environment has CXX={chosen}, which can't be read as a command ({why}): "
                "unset CXX or correct it"
            ) from why
        if words:
            yield words
        return
    yield from (["c++"], ["g++"], ["clang++"])
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++"]


def _cause(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it did not end within {error.timeout:g} s"
    return error.strerror or str(error)


_running: set[subprocess.Popen[str]] = set()


def end_compilers() -> None:
    """End the C++ compilers that this process runs now, in all threads."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a compiler and the processes that it has started."""
    if process.returncode is None:  # otherwise its id may be another process's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _run(command: Sequence[str], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command and return its exit status and output. It runs in a process group of its own,
    which is killed if it takes too long or is interrupted.

    Raises:
        TimeoutExpired: if it takes longer.
        OSError: if it can't be started.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        _running.add(process)
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            _end(process)
            raise
        finally:
            _running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)
