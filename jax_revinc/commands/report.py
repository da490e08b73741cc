"""The command ``jax-revinc report``, which writes the page of a run again."""

from __future__ import annotations

import argparse

from jax_revinc.commands.run_argument import add_run
from jax_revinc.report.page import write_report
from jax_revinc.training import Run
from revinc.memory_estimate import require_room_to_look_into
from revinc.terminal import PlainConsole, PlainParser


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the words after ``jax-revinc report``."""
    parser = PlainParser(prog="jax-revinc report", description=__doc__)
    add_run(parser)
    return parser.parse_args(words)


def run_command(words: list[str]) -> None:
    args = parse(words)
    run, console = Run.load(args.run, args.task), PlainConsole()
    require_room_to_look_into(run.config)
    with console.status("Writing the page ..."):
        page = write_report(run)
    console.print(f"Page to open: {page}", soft_wrap=True)
