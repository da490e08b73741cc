"""What tests of the product share: the command line, its processes, and models set by hand."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
from typing import NamedTuple

import pytest


class Outcome(NamedTuple):
    status: int
    out: str
    err: list[str]


@pytest.fixture
def run_cli(capsys):
    """A function that runs the command line in this process."""
    from jax_revinc.__main__ import make_parser
    from revinc.command_errors import run_command

    def run(*argv):
        capsys.readouterr()
        try:
            status = run_command(make_parser(), list(map(str, argv)))
        except SystemExit as stop:  # argparse
            status = stop.code
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err.splitlines())

    return run


@pytest.fixture
def start_process():
    """A function that starts a command, which Ctrl-C can stop, and which ends with the test."""
    # A child inherits an ignored SIGINT (that of a shell's background job), but no handler.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = []

    def start(command, **how):
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how))
        return started[-1]

    yield start
    signal.signal(signal.SIGINT, handler)
    for process in started:
        with process:  # which closes its pipes
            process.kill()


@pytest.fixture(scope="session")
def hand_built():
    """`hand_built.hand_built`; each model is made once."""
    from hand_built import hand_built

    return functools.cache(hand_built)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Ten models in three chunks, the last of which is not full; every second diverges. Copy its folder before you
    change it."""
    from populations import RECIPE, SMALL, WIDTH

    from jax_revinc.population import train_population

    out = tmp_path_factory.mktemp("populations") / "small"
    return train_population(RECIPE, SMALL, out, width=WIDTH)


@pytest.fixture
def folder(small, tmp_path):
    """A copy of the store of `small`, to add to or damage."""
    return shutil.copytree(small.path, tmp_path / "copy")
