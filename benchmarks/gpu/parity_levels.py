"""The stage of the parity check: JAX on the GPU against torch on the CPU."""

from __future__ import annotations

from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.process import in_a_process
from benchmarks.gpu.stages import Findings, Setting, Stage

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5")


def check_parity(setting: Setting) -> Findings:
    """Check the levels on a fresh model of the tutorial's.

    Raises:
        StageFailed: if a level fails; names the first.
    """
    cfg = setting.sizes.parity
    told = in_a_process(
        "benchmarks.gpu.check_levels:check_levels", cfg=cfg.to_dict(), levels=list(LEVELS)
    )
    if told["failed"]:
        raise StageFailed(told["failed"][0])
    where = f"JAX on {told['device']}, torch on the CPU, L5 over {cfg.steps} steps"
    return Findings([where, *told["passed"]])


PARITY = Stage(
    "parity", "compares JAX with TransformerLens on the CPU, levels L0 to L5", check_parity
)
