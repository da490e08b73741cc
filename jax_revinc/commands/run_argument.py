"""The argument of commands that open a run folder."""

from __future__ import annotations

import argparse

from revinc.command_errors import add_task_of
from revinc.flag_values import path


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, a finished run folder, and the flag ``--task`` to a parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a finished run folder")
    add_task_of(parser, "the run")
