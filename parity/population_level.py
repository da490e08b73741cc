"""Parity level L7: whether outcomes of many seeds have the same distribution in JAX and torch.

Training is chaotic: no seed ends alike in both frameworks, but the outcomes of many seeds must have
the same distribution. TransformerLens takes half a minute a seed, so its outcomes are stored, with
the command and the versions that made them. The first steps of a few seeds are run again, to check
that the installed program still gives them.
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

from jax_revinc import engines
from jax_revinc.training import draw_weights
from parity.jitter import jitter
from parity.levels import Level, Row, share_of
from parity.outcome_comparison import POWER, compare_outcomes, quantity_distributions
from parity.progress import follow
from revinc import TrainConfig, UserError
from revinc.config import differences
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.provenance import installed_versions
from revinc.seed_outcomes import FIRST_LOSSES, Outcomes, made_by, outcome, run_history
from revinc.weights import StateDict
from torch_reference import TorchEngine
from torch_reference.installed_transformer_lens import VERSION
from torch_reference.training import initial_weights

STORED = Path(__file__).parent / "data" / "torch_population.parquet"
"""The stored outcomes of many seeds of the tutorial's training config in TransformerLens 3.9."""

MADE_WITH = ("torch", "transformer-lens")
"""The packages whose versions a file of outcomes must name."""

FALSE_ALARMS = 1e-3
"""The chance that the level fails although both frameworks' outcomes have one distribution."""

FEWEST_SEEDS = 20
"""The fewest seeds with which a test can fail."""

RERUNS = 3
"""The number of stored seeds whose first steps are run again."""

JITTERED = 4
"""The number of runs of the same steps from jittered weights."""

RERUN_BOUND = 100.0
"""The bound on a rerun's distance from the stored losses, over the largest effect of jitter.

Of 80 reruns with other instruction sets, 79 were at most 7 times as far, and one 34 times, as it
diverged before the jittered runs. With a weight decay of 1e-4 instead of 1e-2, four seeds were 380
to 18,500 times as far.
"""


@dataclass(frozen=True)
class Rerun:
    """The first losses of a stored torch run, compared with those of the same run made again.

    Attributes:
        name: the seed.
        apart: the largest difference, in nats.
        effects: the largest difference over the effect of jitter by then.
        known: why they are known to differ, if they are: then agreement fails.
    """

    name: str
    apart: float
    effects: float
    known: str = ""

    @property
    def passed(self) -> bool:
        """Whether the losses are close or, for a known difference, far apart.

        NaNs are not close.
        """
        return (self.effects <= RERUN_BOUND) != bool(self.known)

    @property
    def used(self) -> float:
        """The difference of the losses divided by the bound on it; above 1 the rerun fails."""
        return share_of(self.effects, RERUN_BOUND)

    def cells(self) -> dict[str, str]:
        """The rerun's row in the table of a report, as a dict from column heading to text."""
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
    make_engine: Callable[[TrainConfig], Engine] = engines.make_engine,
) -> Level:
    """Check parity level L7: many seeds' outcomes in JAX are distributed like torch's stored ones.

    Args:
        cfg: the training config.
        reference: the file of torch's outcomes.
        make_engine: makes the engine that trains in JAX.

    Raises:
        UserError: if `reference` is unreadable, of another training config, or of too few seeds.
        Diverged: if the loss of a run becomes NaN or infinite.
    """
    theirs = Outcomes.load(reference)
    require_torchs(theirs, reference)
    require_config(cfg, theirs, reference)
    seeds = theirs.table["seed"].to_numpy()
    if len(seeds) < FEWEST_SEEDS:
        raise UserError(
            f"{reference} has outcomes of {len(seeds)} seeds, and parity level L7 needs at least "
            f"{FEWEST_SEEDS}; train more seeds into the file"
        )
    reruns = [
        run_again(theirs, i)
        for i in follow(np.linspace(0, len(seeds) - 1, RERUNS).astype(int).tolist(), "L7: torch")
    ]
    others = range(seeds.max() + 1, seeds.max() + 1 + len(seeds))
    ours = train_population(theirs.config, others, make_engine)
    said = remarks(theirs, ours)
    if not all(row.passed for row in reruns):
        said.append(why_not_again(theirs))
    rows: list[Row] = [*reruns, *compare_outcomes(theirs, ours, FALSE_ALARMS)]
    return Level("L7", cfg.model.dtype, rows, said, quantity_distributions(theirs, ours))


def is_stored(cfg: TrainConfig) -> bool:
    """Whether the stored torch outcomes are of a config, ignoring seeds and snapshots."""
    return not config_differences(cfg, Outcomes.load(STORED))


def config_differences(cfg: TrainConfig, theirs: Outcomes) -> list[str]:
    """Describe how a config differs from that of stored outcomes, except in seeds and snapshots."""
    return differences(*(replace(c.with_seed(0), snapshots=()) for c in (cfg, theirs.config)))


def require_config(cfg: TrainConfig, theirs: Outcomes, reference: Path) -> None:
    """Raise a UserError if the stored torch outcomes are of another config; seeds may differ."""
    if changed := config_differences(cfg, theirs):
        raise UserError(
            f"{reference} has outcomes of another training config ({'; '.join(changed)}); "
            "to make outcomes of yours, run python -m torch_reference population for a preset, or "
            "call torch_reference.train_many_seeds.train_population for any other training config"
        )


def require_torchs(theirs: Outcomes, reference: Path) -> None:
    """Raise a UserError unless outcomes record the versions of torch and TransformerLens used."""
    lacking = [name for name in MADE_WITH if not isinstance(theirs.made_by.get(name), str)]
    if lacking:
        raise UserError(
            f"{reference} does not say which version of {' and '.join(lacking)} made its outcomes; "
            "make the file again"
        )


def run_again(theirs: Outcomes, index: int) -> Rerun:
    """Repeat the first steps of a stored torch run, and compare their losses with the stored ones.

    Another processor rounds differently, and training magnifies that. Runs from jittered weights
    show by how much: at every step, by the largest distance so far.
    """
    row = theirs.table.iloc[index]
    cfg = theirs.config.with_seed(row["seed"])
    weights = initial_weights(cfg)
    losses = first_losses(cfg, weights, len(row["losses"]))
    jittered = [first_losses(cfg, jitter_all(weights, i), len(losses)) for i in range(JITTERED)]
    effect = np.maximum.accumulate(np.abs(jittered - losses).max(axis=0))
    ulp = np.finfo(cfg.model.dtype).eps * losses
    apart = np.abs(row["losses"] - losses)
    return Rerun(
        f"seed {row['seed']} run again",
        float(apart.max()),
        float((apart / np.maximum(effect, ulp)).max()),
        other_version(theirs),
    )


def other_version(theirs: Outcomes) -> str:
    """Why a rerun must differ from the stored run, if TransformerLens' version does; else empty."""
    version = theirs.made_by["transformer-lens"]
    same = version.split(".")[0] == VERSION.split(".")[0]
    return "" if same else f"TransformerLens {version} drew other initial weights than {VERSION}"


def why_not_again(theirs: Outcomes) -> str:
    """A remark on why a rerun of a stored torch run may have given other losses."""
    here = installed_versions()
    packages = {name: theirs.made_by[name] for name in MADE_WITH}
    made = ", ".join(f"{name} {there} (here {here[name]})" for name, there in packages.items())
    return (
        f"the stored losses are not this program's: they are of {made}; if these draw the same "
        "initial weights, the reference has changed since, and must be made again"
    )


def first_losses(cfg: TrainConfig, weights: StateDict, n_steps: int) -> Float[np.ndarray, " steps"]:
    """The batch losses of the first updates of a torch run."""
    engine = TorchEngine(cfg, "cpu")
    rows = make_dataset(cfg).rows(0, n_steps)
    return engine.advance(engine.start(weights), rows)[1]


def jitter_all(weights: StateDict, seed: int) -> StateDict:
    """Copy the weights, with every number moved by one unit in the last place, up or down."""
    rng = np.random.default_rng(seed)
    return {name: jitter(weight, rng) for name, weight in weights.items()}


def train_population(
    cfg: TrainConfig,
    seeds: Sequence[int],
    make_engine: Callable[[TrainConfig], Engine] = engines.make_engine,
) -> Outcomes:
    """Train every seed in JAX, in a thread per core; return the outcomes."""

    def train_one(seed: int) -> dict[str, object]:
        seeded = cfg.with_seed(seed)
        history = run_history(make_dataset(seeded), make_engine(seeded), draw_weights(seeded))
        return outcome(seed, history)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = pool.map(train_one, seeds)
        rows = list(follow(seeds, "L7: seeds in JAX", runs))
    return Outcomes(cfg, pd.DataFrame(rows), made_by("python -m parity check --levels L7"))


def remarks(theirs: Outcomes, ours: Outcomes) -> list[str]:
    """Remarks on how torch's stored outcomes were made, and how to read parity level L7's table."""
    seeds = {name: outcomes.table["seed"] for name, outcomes in (("torch", theirs), ("JAX", ours))}
    ranges = {name: f"{len(s)} seeds, {s.min()} to {s.max()}" for name, s in seeds.items()}
    versions = ", ".join(
        f"{name} {version}" for name, version in theirs.made_by.items() if name != "command"
    )
    return [
        f"torch: {ranges['torch']}, stored; made by {theirs.made_by['command']} with {versions}",
        f"JAX: {ranges['JAX']}, trained now",
        f"seeds run again: the difference of their first {FIRST_LOSSES} losses, in multiples of "
        "what moving all weights by an ulp changes",
        "seeds compared: means of losses and accuracies, medians of steps, with 95% intervals; p: "
        "that of a test whether both have one distribution (Anderson-Darling, by permutation); "
        f"would be seen (on the page and on a wide terminal): the numbers of JAX that would fail in {POWER:.0%} of cases. If JAX is "
        f"right, one of the tests fails in {FALSE_ALARMS:.1%} of cases at most",
    ]
