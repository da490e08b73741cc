"""``python -m benchmarks``: JAX against TransformerLens on this machine, interleaved."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import jax
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.interleaving import Timing
from benchmarks.steps import time_steps
from benchmarks.whole_runs import time_whole_runs
from revinc.cli import run_command
from revinc.provenance import installed_versions


def benchmark_command(args: argparse.Namespace) -> None:
    console = Console(highlight=False)
    machine = describe_machine()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results = {"one step": time_steps(args.rounds)}
    console.print(timing_table("one step", results["one step"], unit="us", scale=1e6))
    if not args.quick:
        title = f"whole run, {args.steps} steps"
        results[title] = time_whole_runs(args.whole_runs, args.steps)
        console.print(timing_table(title, results[title], unit="s", scale=1.0))
    if args.json:
        seconds = {
            title: {name: timing.seconds for name, timing in timings.items()}
            for title, timings in results.items()
        }
        args.json.write_text(json.dumps({"machine": machine, "seconds": seconds}, indent=2) + "\n")


def timing_table(title: str, timings: dict[str, Timing], unit: str, scale: float) -> Table:
    """Medians and ranges; the speed-up is over the last one, the reference."""
    table = Table("contender", title=title, title_justify="left", title_style="bold", box=None)
    for heading in (f"median {unit}", "min .. max", "speed-up"):
        table.add_column(heading, justify="right")
    reference = list(timings.values())[-1]
    for timing in timings.values():
        low, high = (scale * bound for bound in (min(timing.seconds), max(timing.seconds)))
        table.add_row(
            timing.name,
            f"{scale * timing.median:,.1f}",
            f"{low:,.1f} .. {high:,.1f}",
            f"{reference.ratio_to(timing):.1f}",
        )
    return table


def describe_machine() -> dict[str, str]:
    """What the numbers depend on."""
    device = jax.devices()[0]
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "jax device": f"{device.platform} ({device.device_kind})",
        "torch device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch threads": str(torch.get_num_threads()),
        **installed_versions(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="single steps only, no whole runs")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of single steps (15)")
    parser.add_argument("--whole-runs", type=int, default=3, help="rounds of whole runs (3)")
    parser.add_argument("--steps", type=int, default=4000, help="steps of a whole run (4000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every time here")
    parser.set_defaults(command=benchmark_command)
    return run_command(parser)


if __name__ == "__main__":
    sys.exit(main())
