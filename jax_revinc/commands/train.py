"""The command ``jax-revinc train``, which trains one model into a run folder, with its page."""

from __future__ import annotations

import argparse

from jax_revinc.engines.engine_choice import add_engine_flag
from jax_revinc.training import train
from revinc import TrainConfig
from revinc.config_parser import add_run_flags, make_config_parser, parse_config, preset_or_run
from revinc.memory_estimate import require_room_to_look_into
from revinc.progress_output import Reporter


def parse(words: list[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the words after ``jax-revinc train`` into a training config and the other flags."""
    parser = make_config_parser("jax-revinc train")
    add_run_flags(parser)
    add_engine_flag(parser)
    return parse_config(parser, words, preset_or_run)


def run_command(words: list[str]) -> None:
    cfg, args = parse(words)
    require_room_to_look_into(cfg)
    reporter = Reporter(verbose=args.verbose)
    run = train(
        cfg,
        args.out,
        resume=args.resume,
        overwrite=args.overwrite,
        engine=args.engine,
        reporter=reporter,
        log=args.log,
        keep=args.keep,
    )
    reporter.finished(run)
    with reporter.busy("Writing the page ..."):
        from jax_revinc.report.page import write_report  # once the weights are on disk: it is slow

        page = write_report(run)
    reporter.say(f"Page to open: {page}")
