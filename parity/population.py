"""L7: whether many seeds come to the same ends in both frameworks.

Training is chaotic: no seed ends alike on both sides, but the ends of many seeds must be distributed alike.
TransformerLens takes half a minute a seed, so its side is stored, with the command and the versions that
made it; the first steps of a few seeds are run again, to see that this program still makes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.progress import track

from jax_revinc.engines import XlaEngine
from jax_revinc.training import draw_weights
from parity.distributions import POWER, compare_outcomes, figures
from parity.levels import Level, Row
from revinc import TrainConfig, UserError
from revinc.config import differences
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.outcomes import FIRST_LOSSES, Outcomes, made_by, outcome, run_history
from revinc.provenance import installed_versions
from revinc.weights import StateDict
from torch_reference import TorchEngine
from torch_reference.installed import VERSION
from torch_reference.training import initial_weights

STORED = Path(__file__).parent / "data" / "torch_population.parquet"
"""What became of many seeds of the tutorial's recipe in TransformerLens 3.9."""

FALSE_ALARMS = 1e-3
"""How often the level may fail although both sides' outcomes are of one distribution."""

FEWEST_SEEDS = 20
"""With fewer, no test could fail."""

RERUNS = 3
"""Stored seeds whose first steps are run again."""

NUDGES = 4
"""Runs of the same steps from weights all moved by an ulp."""

RERUN_BOUND = 100.0
"""How many times as far from the stored losses a rerun may be as the furthest nudged run has been. Of 80
reruns with other instruction sets, 79 were at most 7 times as far, and one was 34 times, as it took off
before the nudged ones. With a weight decay of 1e-4 for 1e-2, four seeds were 380 to 18,500 times as far."""


@dataclass(frozen=True)
class Rerun:
    """The first losses of a stored seed, and of the same run here and now.

    Attributes:
        apart: their largest difference, in nats.
        effects: their largest difference, in effects that an ulp has had by then.
        known: why they are known to differ, if they are: then agreement is what fails.
    """

    name: str
    apart: float
    effects: float
    known: str = ""

    @property
    def passed(self) -> bool:
        """False for a NaN too."""
        return (self.effects <= RERUN_BOUND) != bool(self.known)

    def cells(self) -> dict[str, str]:
        """See `parity.levels.Row`."""
        verdict = "differs, as known" if self.known else "ok"
        return {
            "compared": self.name,
            "torch": f"{self.apart:.1e} apart",
            "JAX": "",
            "would be seen": "",
            "found": f"{self.effects:.2g} ulps",
            "fails": f"> {RERUN_BOUND:g} ulps",
            "verdict": verdict if self.passed else "FAIL",
        }


def check_population(
    cfg: TrainConfig,
    reference: Path = STORED,
    make_engine: Callable[[TrainConfig], Engine] = XlaEngine,
) -> Level:
    """L7: as many seeds in JAX as are stored of torch, from other weights and batches, end as those do.

    Raises:
        UserError: if `reference` is unreadable, of another recipe than `cfg`, or of too few seeds.
        Diverged: if the loss of a run becomes NaN or infinite.
    """
    theirs = Outcomes.load(reference)
    require_recipe(cfg, theirs, reference)
    seeds = theirs.table["seed"].to_numpy()
    if len(seeds) < FEWEST_SEEDS:
        raise UserError(f"{reference} has {len(seeds)} seeds, and needs at least {FEWEST_SEEDS}")
    reruns = [run_again(theirs, i) for i in np.linspace(0, len(seeds) - 1, RERUNS).astype(int)]
    others = range(seeds.max() + 1, seeds.max() + 1 + len(seeds))
    ours = train_population(theirs.config, others, make_engine)
    said = remarks(theirs, ours)
    if not all(row.passed for row in reruns):
        said.append(why_not_again(theirs))
    rows: list[Row] = [*reruns, *compare_outcomes(theirs, ours, FALSE_ALARMS)]
    return Level("L7", cfg.model.dtype, rows, said, figures(theirs, ours))


def is_stored(cfg: TrainConfig) -> bool:
    """Whether the stored reference is of this recipe, whatever its seeds and snapshots."""
    return not other_recipe(cfg, Outcomes.load(STORED))


def other_recipe(cfg: TrainConfig, theirs: Outcomes) -> list[str]:
    """A phrase for every field in which the recipes differ, other than seeds and snapshots."""
    return differences(*(replace(c.with_seed(0), snapshots=()) for c in (cfg, theirs.config)))


def require_recipe(cfg: TrainConfig, theirs: Outcomes, reference: Path) -> None:
    """Raise a UserError unless `cfg` is the stored recipe, whatever its seeds and snapshots."""
    if changed := other_recipe(cfg, theirs):
        raise UserError(
            f"{reference} is of another recipe ({'; '.join(changed)}); python -m torch_reference "
            "population makes a reference of a preset, and torch_reference.population's "
            "train_population one of any recipe"
        )


def run_again(theirs: Outcomes, index: int) -> Rerun:
    """The first steps of a stored seed, judged by how far rounding alone can take them.

    Another processor rounds otherwise, and training magnifies it: by how much, runs from weights that are
    moved by an ulp tell, at every step by the furthest that any has been so far.
    """
    row = theirs.table.iloc[index]
    cfg = theirs.config.with_seed(row["seed"])
    weights = initial_weights(cfg)
    losses = first_losses(cfg, weights, len(row["losses"]))
    nudged = [first_losses(cfg, nudge(weights, i), len(losses)) for i in range(NUDGES)]
    effect = np.maximum.accumulate(np.abs(nudged - losses).max(axis=0))
    ulp = np.finfo(cfg.model.dtype).eps * losses
    apart = np.abs(row["losses"] - losses)
    return Rerun(
        f"seed {row['seed']} run again",
        float(apart.max()),
        float((apart / np.maximum(effect, ulp)).max()),
        other_world(theirs),
    )


def other_world(theirs: Outcomes) -> str:
    """Why a rerun is known to differ: TransformerLens 3.9 and 4.x draw other initial weights."""
    version = theirs.made_by["transformer-lens"]
    same = version.split(".")[0] == VERSION.split(".")[0]
    return "" if same else f"TransformerLens {version} drew other initial weights than {VERSION}"


def why_not_again(theirs: Outcomes) -> str:
    """What a failed rerun may come from."""
    here = installed_versions()
    packages = {name: theirs.made_by.get(name) for name in ("torch", "transformer-lens")}
    made = ", ".join(f"{name} {there} (here {here[name]})" for name, there in packages.items())
    return (
        f"the stored losses are not this program's: they are of {made}; if these draw the same initial "
        "weights, the reference has changed since, and must be made again"
    )


def first_losses(cfg: TrainConfig, weights: StateDict, n_steps: int) -> Float[np.ndarray, " steps"]:
    """The batch losses of a torch run's first updates."""
    engine = TorchEngine(cfg, "cpu")
    batches = make_dataset(cfg).batches(0, n_steps)
    return engine.advance(engine.start(weights), batches)[1]


def nudge(weights: StateDict, seed: int) -> StateDict:
    """All weights, each moved by an ulp, up or down at random."""
    rng = np.random.default_rng(seed)
    towards = {
        name: rng.choice([-np.inf, np.inf], weight.shape).astype(weight.dtype)
        for name, weight in weights.items()
    }
    return {name: np.nextafter(weight, towards[name]) for name, weight in weights.items()}


def train_population(
    cfg: TrainConfig, seeds: Sequence[int], make_engine: Callable[[TrainConfig], Engine] = XlaEngine
) -> Outcomes:
    """Train ``cfg`` in JAX with every seed, a thread for every core: XLA releases Python's lock."""

    def train_one(seed: int) -> dict[str, object]:
        seeded = cfg.with_seed(seed)
        return outcome(seed, run_history(seeded, make_engine(seeded), draw_weights(seeded)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(train_one, seeds)
        rows = list(track(runs, "training in JAX", total=len(seeds), transient=True))
    return Outcomes(cfg, pd.DataFrame(rows), made_by("python -m parity check --levels L7"))


def remarks(theirs: Outcomes, ours: Outcomes) -> list[str]:
    """Where the torch side comes from, and how to read the rows."""
    seeds = {name: outcomes.table["seed"] for name, outcomes in (("torch", theirs), ("JAX", ours))}
    ranges = {name: f"{len(s)} seeds, {s.min()} to {s.max()}" for name, s in seeds.items()}
    versions = ", ".join(
        f"{name} {version}" for name, version in theirs.made_by.items() if name != "command"
    )
    return [
        f"torch: {ranges['torch']}, stored; made by {theirs.made_by['command']} with {versions}",
        f"JAX: {ranges['JAX']}, trained now",
        f"seeds run again: their first {FIRST_LOSSES} losses, apart by so many times what moving all "
        "weights by an ulp does to them",
        "seeds compared: means of losses and accuracies, medians of steps, with 95% intervals; p: whether "
        "one distribution can have made both (Anderson-Darling, by permutation); would be seen: where "
        f"JAX's number would have to be to fail in {POWER:.0%} of cases. A JAX that is right fails one of "
        f"the tests in {FALSE_ALARMS:.1%} of cases at most",
    ]
