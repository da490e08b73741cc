"""The command ``jax-revinc build``, which builds the fused engine's programs ahead of a training."""

from __future__ import annotations

import argparse
import time

from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible
from jax_revinc.engines.fused_engine import fused_programs, is_built
from revinc import TrainConfig, UserError
from revinc.config_parser import make_config_parser, parse_config, preset
from revinc.terminal import PlainConsole

COMMANDS = {"train": False, "population": True}
"""The commands that use a program of the fused engine, and whether it trains many models."""


def parse(words: list[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the words after ``jax-revinc build`` into a training config and the other flags."""
    parser = make_config_parser("jax-revinc build")
    parser.add_argument(
        "--for",
        dest="commands",
        nargs="+",
        choices=COMMANDS,
        default=list(COMMANDS),
        help="the commands whose programs are built (default: both)",
    )
    return parse_config(parser, words, preset)


def run_command(words: list[str]) -> None:
    cfg, args = parse(words)
    key, console = make_program_key(cfg), PlainConsole()
    for command in dict.fromkeys(args.commands):
        many = COMMANDS[command]
        if is_built(key, many=many):
            console.print(f"The program for jax-revinc {command} is there already.")
            continue
        begun = time.monotonic()
        try:
            with console.status(f"Building the program for jax-revinc {command} ..."):
                fused_programs(key, many=many)
        except (NotFusible, CannotBuild) as error:
            raise UserError(f"the fused engine can't train this model: {error}") from error
        seconds = time.monotonic() - begun
        console.print(f"Built the program for jax-revinc {command} in {seconds:.0f} s.")
