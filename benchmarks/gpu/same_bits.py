"""The stage of equal bits: one run, trained in two processes."""

from __future__ import annotations

from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.process import in_a_process
from benchmarks.gpu.stages import Findings, Setting, Stage


def train_twice(setting: Setting) -> Findings:
    """Train the run in two processes.

    Raises:
        StageFailed: if their weights differ in a bit.
    """
    cfg = setting.sizes.run
    first, second = (
        in_a_process(
            "benchmarks.gpu.train_once:train_once",
            cfg=cfg.to_dict(),
            folder=str(setting.home / name),
        )
        for name in ("first", "second")
    )
    if first["hash"] != second["hash"]:
        raise StageFailed(
            f"two processes trained the same run of {cfg.steps} steps to different weights: the "
            f"hashes of their files begin with {first['hash'][:12]} and {second['hash'][:12]}"
        )
    return Findings(
        [
            f"after {cfg.steps} steps on {first['device']} both processes wrote the same bytes of "
            f"weights, sha256 {first['hash']}"
        ]
    )


SAME_BITS = Stage("bits", "trains one run in two processes, each of which compiles it", train_twice)
