"""The command line ``jax-revinc``: train models, inspect them and write pages about them."""

from __future__ import annotations

import argparse
import importlib
import logging
from functools import partial
from typing import NoReturn

from revinc.command_errors import add_command, add_version, run_command
from revinc.interrupts import run_to_exit
from revinc.terminal import PlainFormatter, PlainParser

COMMANDS = {
    "train": "train a model and write a run folder",
    "inspect": "print attention patterns, MLP outputs and weights, and tables of what was learned",
    "population": "train a population of models into a folder",
    "atlas": "write the page and the tables of a population",
    "export": "take a model out of a population, as a run folder",
    "report": "write the page of a run, of a model of a population, or of two runs compared",
    "build": "build the fused engine's programs ahead of a training",
}
"""By subcommand, its line of help. The module `jax_revinc.commands` has one of each name."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser that finds the subcommand, which parses the words after its name itself."""
    parser = PlainParser(prog="jax-revinc", description=__doc__)
    add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, help in COMMANDS.items():
        add_command(commands, name, help, partial(run_subcommand, name))
    return parser


def run_subcommand(name: str, words: list[str]) -> None:
    """Import and run a subcommand. JAX is imported no sooner, so that ``--help`` is quick."""
    from jax_revinc.compilation.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    importlib.import_module(f"jax_revinc.commands.{name}").run_command(words)


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("jax_revinc").setLevel(logging.INFO)
    return run_command(make_parser())


def command_line() -> NoReturn:
    """The entry point of the command ``jax-revinc``: run `main`, then exit the process."""
    run_to_exit(main)


if __name__ == "__main__":
    command_line()
