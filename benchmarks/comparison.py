"""The command line of a small benchmark: a few programs timed in turn, ours first."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.interleaving import Timing
from benchmarks.machine import describe_machine, in_a_line
from benchmarks.tables import timing_sheet
from revinc.command_errors import run_command
from revinc.flag_values import count
from revinc.terminal import PlainConsole, PlainParser


@dataclass(frozen=True)
class Comparison:
    """A command that measures, and prints a table and how many times faster ours is.

    Attributes:
        module: the module that is run, such as ``benchmarks.grokking``.
        description: what ``--help`` says.
        measure: from rounds to the seconds that our first call takes, compilation included, and the
            timings by program.
        what: what is timed, such as a step.
        first: the words for our first call.
    """

    module: str
    description: str
    measure: Callable[[int], tuple[float, dict[str, Timing]]]
    what: str
    first: str

    def main(self) -> int:
        """Run the command; its exit status."""
        parser = make_parser(self.module, self.description, rounds=7)
        parser.set_defaults(command=self._command)
        return run_command(parser)

    def _command(self, args: argparse.Namespace) -> None:
        console = PlainConsole()
        print_machine(console)
        first, by_program = self.measure(args.rounds)
        ours, *others = timings = list(by_program.values())
        console.print(timing_sheet(self.what, timings, unit="ms", scale=1e3).for_terminal())
        for sentence in compared(ours, others):
            console.print(sentence)
        console.print(f"{self.first}, compilation included, took {first:.1f} s")


def make_parser(module: str, description: str, rounds: int) -> PlainParser:
    """The flags that all small benchmarks have."""
    parser = PlainParser(prog=module, description=description)
    parser.add_argument(
        "--rounds", type=count, default=rounds, help=f"rounds of measurements ({rounds})"
    )
    return parser


def print_machine(console: PlainConsole) -> None:
    """Print what the numbers depend on, in a line."""
    console.print(in_a_line(describe_machine()))


def compared(ours: Timing, others: list[Timing]) -> Iterator[str]:
    """How much faster ours is than each of the others: the median over rounds, and the range."""
    for other in others:
        ratios = other.ratios_to(ours)
        low, high = ratios.range
        yield (
            f"{ours.name} is {ratios.median:,.3g} ({low:,.3g} .. {high:,.3g}) times as fast as "
            f"{other.name}"
        )
