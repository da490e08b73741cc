"""All that can be asked of a GPU, in order: tests, parity, equal bits, times. Stops at a failure."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import tempfile
from pathlib import Path

import jax

from benchmarks.gpu.card import require_gpu
from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.marked_tests import MARKED_TESTS
from benchmarks.gpu.page import write_page
from benchmarks.gpu.parity_levels import PARITY
from benchmarks.gpu.process import in_a_process
from benchmarks.gpu.record import Record
from benchmarks.gpu.same_bits import SAME_BITS
from benchmarks.gpu.sizes import FULL, TINY
from benchmarks.gpu.stages import Setting, run_stages
from benchmarks.gpu.table import GROKKING, TABLE
from benchmarks.machine import describe_machine
from jax_revinc.compilation.quick_jit import FLAGS
from revinc.command_errors import add_version, fail, run_command
from revinc.flag_values import folder
from revinc.interrupts import run_to_exit
from revinc.terminal import PlainConsole, PlainParser

STAGES = (MARKED_TESTS, PARITY, SAME_BITS, TABLE, GROKKING)
OUT = Path("build/gpu")

SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""The environment in which several processes share the GPU."""

WITHOUT_GPU = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "XLA_FLAGS": FLAGS,
}
"""The environment of a dry run: no GPU is seen, and programs compile quickly, to slower code."""


def gpu_command(args: argparse.Namespace) -> int:
    """Run the stages, and write what was found after each of them."""
    os.environ.update(WITHOUT_GPU if args.dry_run else SHARED)
    jax.config.update("jax_platforms", "cpu")  # of this process; the GPU is for those of the stages
    console = PlainConsole()
    try:
        card = in_a_process("benchmarks.gpu.card:describe_card")
    except StageFailed as error:
        return fail(args.parser, f"the card can't be described: {error}", 1)
    if not args.dry_run:
        require_gpu(card)
    console.print(", ".join(f"{name}: {value}" for name, value in card.items()), soft_wrap=True)
    words = ["python", "-m", "benchmarks.gpu", *(["--dry-run"] if args.dry_run else [])]
    record = Record(
        command=shlex.join(words),
        dry_run=args.dry_run,
        machine=card | describe_machine(),
        stages={stage.name: stage.title for stage in STAGES},
    )
    args.out.mkdir(parents=True, exist_ok=True)
    save(record, args.out)
    with tempfile.TemporaryDirectory() as home:
        setting = Setting(TINY if args.dry_run else FULL, Path(home), console)
        for outcome in run_stages(STAGES, setting):
            record = dataclasses.replace(record, outcomes=[*record.outcomes, outcome])
            page = save(record, args.out)
    console.print(f"Page: {page}", soft_wrap=True)
    if outcome.failure:
        return fail(args.parser, f"the stage {outcome.name} failed: {outcome.failure}", 1)
    return 0


def save(record: Record, out: Path) -> Path:
    """Write the record and its page; the page's path."""
    record.save(out)
    return write_page(record, out)


def make_parser() -> PlainParser:
    parser = PlainParser(prog="python -m benchmarks.gpu", description=__doc__)
    add_version(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="no GPU: every stage at a tiny size on the CPU, to see that the command works",
    )
    parser.add_argument(
        "--out", type=folder, default=OUT, metavar="FOLDER", help=f"where results go ({OUT})"
    )
    parser.set_defaults(command=gpu_command, parser=parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(make_parser(), argv)


if __name__ == "__main__":
    run_to_exit(main)
