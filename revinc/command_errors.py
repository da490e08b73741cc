"""Running a command: errors become one sentence and an exit status, instead of a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from revinc.errors import UserError, sentence
from revinc.memory_estimate import LESS_MEMORY, is_out_of_memory
from revinc.printable_text import printable
from revinc.terminal import CLOSED_PIPE, PlainParser, drop_output, plain_output
from revinc.trainer import Diverged, Interrupted

Command = Callable[[argparse.Namespace], int | None]


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse the command line, call the subcommand's function, and print its error, if any.

    Args:
        parser: sets ``command`` to a `Command`.
        argv: the words of the command line; by default those of this process.

    Returns:
        The exit status: 0, 2 for bad input, 1 for a diverged run or exhausted memory, 130 after
        Ctrl-C, 141 if nobody reads the output.
    """
    with plain_output():
        try:
            try:
                return _outcome(parser, sys.argv[1:] if argv is None else argv)
            finally:
                sys.stdout.flush()  # here, because errors at the interpreter's end can't be handled
        except BrokenPipeError:
            drop_output()
            return CLOSED_PIPE


def _outcome(parser: argparse.ArgumentParser, words: list[str]) -> int:
    for word in words:
        if word.startswith("--") and word.endswith("=--"):  # argparse makes an empty list of it
            return fail(parser, f"{word.removesuffix('=--')} must have a value, not --", 2)
    try:
        args = parser.parse_args(words)
        command: Command = args.command
        return command(args) or 0
    except Interrupted as error:
        return fail(parser, str(error), 130)
    except KeyboardInterrupt:
        return fail(parser, "interrupted", 130)
    except Diverged as error:
        return fail(parser, str(error), 1)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        return fail(parser, sentence(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return fail(parser, f"out of memory: {LESS_MEMORY}", 1)


def fail(parser: argparse.ArgumentParser, message: str, status: int) -> int:
    """Print an error on stderr, and return the exit status `status`."""
    print(f"{parser.prog}: {printable(message)}", file=sys.stderr)
    return status


def words_parser(prog: str, command: Callable[[list[str]], int | None]) -> argparse.ArgumentParser:
    """Make a parser for `run_command` that leaves all words to the function `command`."""
    parser = PlainParser(prog=prog, add_help=False, prefix_chars="\0")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parser.set_defaults(command=lambda args: command(args.words))
    return parser


def add_command(commands: Any, name: str, help: str, command: Callable[[list[str]], None]) -> None:
    """Add a subcommand whose function is given the words after its name, and parses them itself.

    Args:
        commands: the result of ``parser.add_subparsers``.
        name: the subcommand's name.
        help: its line in the list of subcommands.
        command: the function that is called with all words after the name.
    """
    parser = commands.add_parser(name, help=help, add_help=False, prefix_chars="\0")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parser.set_defaults(command=lambda args: command(args.words))


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--version``, which prints the version of this package."""
    version = f"jax-revinc {metadata.version('jax-revinc')}"
    parser.add_argument("--version", action="version", version=version, help="print the version")


def add_task_of(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the flag ``--task``, by which a user allows a task class of their own to be imported.

    Args:
        parser: the parser of a command that opens a file or folder.
        what: the thing that it opens, in words, such as "the run".
    """
    parser.add_argument(
        "--task",
        metavar="MODULE:CLASS",
        help=f"the task of {what}, if you wrote it yourself: lets its module be imported, also "
        "from the current directory",
    )
