"""Parity level L6: JAX and torch runs must diverge no earlier than runs with added rounding noise.

Training is chaotic: it magnifies rounding until two runs have nothing in common. So the step at
which a JAX run and a torch run part says little by itself. It is compared with the step at which a
run parts from a perturbed copy of itself:

- nudged: one of its initial weights is moved by an ulp;
- jittered: every weight is moved by an ulp, up or down at random, before every update.

Two correct programs round every product differently, which perturbs more than a nudge, or another
order of a batch's rows: some pairs of programs part long before any nudged run. Jitter perturbs
enough: however two programs round an updated weight, each is off by half an ulp at most. On 32
seeds of the tutorial's model, JAX and torch were 0.01 to 3 times as far apart as a run and its
jittered copy, and 0.4 times in the geometric mean. The share of a run's rounding that lies in the
growing direction is luck, and all of it then grows at the same rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from jax_revinc.engines.xla import Gradient
from parity.levels import Level, share_of
from parity.perturbed_runs import (
    Perturbed,
    RunInTorch,
    Runs,
    by_seed,
    run_in_jax,
    run_in_torch,
    starts,
)
from parity.training_levels import in_float64
from revinc import TrainConfig
from torch_reference import adapter

PARTED = 1e-6
"""Two runs part at the first batch whose losses differ by more, in nats."""

FALSE_ALARMS = 1e-3
"""The chance that the level fails although JAX and torch differ only as much as jitter does."""

STEPS = 350
"""The most updates of every run."""

SEEDS = 8
"""The number of seeds: those of the training config, and the next ones."""


PERTURBED = {"JAX": Perturbed(nudged=4, jittered=12), "torch": Perturbed(nudged=2, jittered=2)}
"""By framework. JAX makes all runs at once, torch one after the other."""


@dataclass(frozen=True)
class Partings:
    """The steps at which the losses of one seed's runs begin to differ (the runs part).

    Attributes:
        name: the seed.
        never: the number of steps, for runs that never part.
        cross: the step at which JAX parts from torch.
        nudged, jittered: by framework, the steps at which a run parts from its perturbed copies.
        finite: whether all losses of the JAX runs are finite.
    """

    name: str
    never: int
    cross: int
    nudged: dict[str, list[int]]
    jittered: dict[str, list[int]]
    finite: bool = True

    known: ClassVar[str] = ""
    used: ClassVar[float] = 0.0

    @property
    def passed(self) -> bool:
        """Whether the JAX losses are finite; `Verdict` says whether runs differ too early."""
        return self.finite

    @property
    def ranked(self) -> list[int]:
        """The first steps with different losses: of JAX and torch, then plain and jittered runs."""
        return [self.cross, *chain(*self.jittered.values())]

    def cells(self) -> dict[str, str]:
        """The seed's row in the table of a report, as a dict from column heading to text."""
        _, *envelope = self.ranked
        return {
            "parted at": self.name,
            "JAX, torch": self._span([self.cross]),
            **{f"{side}, nudged": self._span(steps) for side, steps in self.nudged.items()},
            **{f"{side}, jittered": self._span(steps) for side, steps in self.jittered.items()},
            "found": f"{rankdata(self.ranked)[0]:g} of {len(self.ranked)}",
            "fails": "",
            "verdict": self._verdict(self.cross < min(envelope), self.cross > max(envelope)),
        }

    def _verdict(self, early: bool, late: bool) -> str:
        if not self.finite:
            return "NaN in JAX"
        return "before all" if early else "after all" if late else "inside"

    def _span(self, steps: list[int]) -> str:
        ends = dict.fromkeys((min(steps), max(steps)))
        return "-".join("never" if step == self.never else str(step) for step in ends)


class Distances(NamedTuple):
    """The losses of one seed's runs in JAX and torch, for a figure of how far they are apart."""

    ours: Runs
    theirs: Runs


class PartingSteps(NamedTuple):
    """The steps at which each seed's runs begin to differ, from which a figure is drawn."""

    rows: list[Partings]


@dataclass(frozen=True)
class Verdict:
    """The result of the test over all seeds whether JAX and torch differ earlier than by rounding.

    Attributes:
        p: see `p_value`.
        known: why TransformerLens is known to train differently, if it is: then agreement fails.
    """

    p: float
    known: str = ""
    name: str = "all seeds"

    @property
    def passed(self) -> bool:
        return (self.p > FALSE_ALARMS) != bool(self.known)

    @property
    def used(self) -> float:
        """The accepted chance of a false alarm divided by the p-value; the test fails from 1 on."""
        return share_of(FALSE_ALARMS, self.p)

    def cells(self) -> dict[str, str]:
        """The test's row in the table of a report, as a dict from column heading to text."""
        verdict = "differs, as known" if self.known else "ok"
        return {
            "parted at": self.name,
            "JAX, torch": "",
            **{f"{side}, {kind}": "" for kind in Perturbed._fields for side in PERTURBED},
            "found": f"p = {self.p:.2g}",
            "fails": f"p ≤ {FALSE_ALARMS:g}",
            "verdict": verdict if self.passed else "FAIL",
        }


def check_free_running(
    cfg: TrainConfig, gradient: Gradient | None = None, in_torch: RunInTorch | None = None
) -> Level:
    """Check parity level L6: JAX and torch diverge no earlier than runs with rounding noise do.

    Args:
        cfg: the training config.
        gradient: computes loss and gradient in JAX; XLA's by default.
        in_torch: gives the losses of the torch runs; `run_in_torch` by default.

    Raises:
        Diverged: if a loss of a torch run becomes NaN or infinite.
    """
    cfg = replace(in_float64(cfg), steps=min(cfg.steps, STEPS), snapshots=())
    seeds = [
        replace(cfg, init_seed=(cfg.init_seed + i) % 2**32, data_seed=(cfg.data_seed + i) % 2**32)
        for i in range(SEEDS)
    ]
    rng = np.random.default_rng(0)
    jax_starts, torch_starts = (
        [start for seed in seeds for start in starts(seed, perturbed, rng)]
        for perturbed in PERTURBED.values()
    )
    ours = by_seed(run_in_jax(cfg, jax_starts, gradient), PERTURBED["JAX"])
    theirs = by_seed((in_torch or run_in_torch)(cfg, torch_starts, rng), PERTURBED["torch"])
    rows = [
        find_partings(*seed_and_runs) for seed_and_runs in zip(seeds, ours, theirs, strict=True)
    ]
    p = p_value(np.array([row.ranked for row in rows]))
    known = next((x.why for x in adapter.KNOWN_DIFFERENCES if x.level == "L6"), "")
    evidence = {
        f"{rows[0].name}: how far apart its runs are": Distances(ours[0], theirs[0]),
        "all seeds: when their runs part": PartingSteps(rows),
    }
    return Level("L6", "float64", [*rows, Verdict(p, known)], remarks(rows), evidence)


def find_partings(cfg: TrainConfig, ours: Runs, theirs: Runs) -> Partings:
    """Find the steps at which the runs of one seed begin to differ, from their losses."""
    sides = dict(zip(PERTURBED, (ours, theirs), strict=True))
    seeds = dict.fromkeys((cfg.init_seed, cfg.data_seed))
    return Partings(
        f"seed {', '.join(map(str, seeds))}",
        cfg.steps,
        int(parting(ours.plain, theirs.plain)),
        {side: parting(runs.plain, runs.nudged).tolist() for side, runs in sides.items()},
        {side: parting(runs.plain, runs.jittered).tolist() for side, runs in sides.items()},
        all(bool(np.isfinite(losses).all()) for losses in ours),
    )


def parting(
    first: Float[np.ndarray, "*runs steps"], second: Float[np.ndarray, "*runs steps"]
) -> Int[np.ndarray, "*runs"]:
    """The step at which the losses of two runs begin to differ, or the number of steps if never.

    A NaN in a loss counts as a difference.
    """
    together = np.abs(first - second) <= PARTED
    return np.where(together.all(-1), together.shape[-1], together.argmin(-1))


def p_value(partings: Int[np.ndarray, "seeds runs"]) -> float:
    """The p-value of a test whether JAX and torch differ earlier than runs with rounding noise.

    If the torch run is as far from the JAX run as a jittered copy, each seed's cross parting might
    as well be any other of its row. The p-value is the share of all such choices, one for each
    seed, whose sum of ranks is at most that of the cross partings. This is an exact permutation
    test for any distribution of partings, with ties and pairs that never part. It is one-sided:
    runs can't agree too well.

    Measured on the tutorial's model with the numbers of seeds and runs above, the level fails in at
    most 0.1% of cases if JAX and torch are as far apart as jitter takes a run, in 72% if 5 times as
    far, in 92% if 10 times, and in all if 50 times. A learning rate that is wrong by 1e-13 of
    itself is such a fault.

    Args:
        partings: for each seed, the step of the cross parting, then those of the jittered runs.
    """
    doubled = (2 * rankdata(partings, axis=-1)).astype(int)  # ranks of ties have halves
    sums = np.ones(1)
    for ranks in doubled:
        sums = np.convolve(sums, np.bincount(ranks) / len(ranks))
    return float(sums[: doubled[:, 0].sum() + 1].sum())


def remarks(rows: Sequence[Partings]) -> list[str]:
    """Remarks on how to read parity level L6's table, and a warning if the runs are too short."""
    never = rows[0].never
    of_jittered = [step for row in rows for step in row.ranked[1:]]
    apart = sum(step < never for step in of_jittered)
    found = [
        f"parted at: the first of {never} steps whose batch losses differ by more than {PARTED:g}; "
        "nudged: a run and a copy with one initial weight moved by an ulp; jittered: a run and a "
        "copy with every weight moved by an ulp before every update",
        "found: the rank of JAX and torch among the jittered runs, where 1 is the earliest; p: how "
        "often the ranks of all seeds would be so early if torch were as far from JAX as jitter "
        "takes a run",
    ]
    if 2 * apart < len(of_jittered):
        found.append(
            f"only {apart} of {len(of_jittered)} jittered runs part within {never} steps: an error "
            "that is not many times as large as rounding goes unseen"
        )
    return found
