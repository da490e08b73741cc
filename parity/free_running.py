"""L6: free running: whether a run of ours and one of torch's stay together for as long as they can.

Training is chaotic: it magnifies rounding until two runs have nothing in common. So the step at which ours
and torch's part says little by itself; it is judged by when a run parts from itself, once it is perturbed:

- nudged: one of its initial weights is moved by an ulp;
- jittered: every weight is moved by an ulp, up or down at random, before every update.

Nudges, and batches with their rows in another order, perturb less than two right programs do that round
every product in their own way: some of these part long before any of those. Jitter does not: however two
programs round an updated weight, each is off by half an ulp at most. On 32 seeds of the tutorial's model, ours and
torch's were 0.01 to 3 times as far apart as jitter took a run, and 0.4 times in the (geometric) mean: how
much of its rounding a run has in the direction that grows is luck, and all of it then grows alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import torch
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int
from rich.progress import track
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from jax_revinc import numerics
from jax_revinc.engines.xla import Gradient, State, update
from jax_revinc.objective import Params
from jax_revinc.optimizer import make_optimizer, optimizer_numbers
from jax_revinc.training import draw_weights
from parity.levels import Level
from parity.training_levels import in_float64
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.objective import make_objective
from revinc.weights import StateDict
from torch_reference import TorchEngine, adapter

PARTED = 1e-6
"""Two runs part at the first batch whose losses differ by more, in nats."""

FALSE_ALARMS = 1e-3
"""How often the level may fail although ours and torch's are only as far apart as jitter takes a run."""

STEPS = 350
"""Updates of every run, or all of the recipe's if those are fewer."""

SEEDS = 8
"""The recipe's own seeds of weights and batches, and those that follow."""


class Perturbed(NamedTuple):
    """How many runs of each kind are made of every seed, beside the plain one."""

    nudged: int
    jittered: int


PERTURBED = {"JAX": Perturbed(nudged=4, jittered=12), "torch": Perturbed(nudged=2, jittered=2)}
"""JAX makes all runs at once, torch one after the other."""


class Start(NamedTuple):
    """Where a run begins, what it sees, and whether it is jittered."""

    data_seed: int
    weights: StateDict
    batches: Int[np.ndarray, "steps batch"]
    jittered: bool


class Runs(NamedTuple):
    """The batch losses of one seed's runs in one framework."""

    plain: Float[np.ndarray, " steps"]
    nudged: Float[np.ndarray, "n_nudged steps"]
    jittered: Float[np.ndarray, "n_jittered steps"]


@dataclass(frozen=True)
class Partings:
    """The steps at which the runs of one seed part, which are `never` where they don't.

    Attributes:
        cross: JAX from torch.
        nudged, jittered: each of the two from its perturbed selves.
    """

    name: str
    never: int
    cross: int
    nudged: dict[str, list[int]]
    jittered: dict[str, list[int]]

    @property
    def passed(self) -> bool:
        """One seed decides nothing: `cross` is the earliest of fifteen once in fifteen times."""
        return True

    @property
    def ranked(self) -> list[int]:
        """`cross`, and the envelope that it is ranked in: how runs part from their jittered selves."""
        return [self.cross, *chain(*self.jittered.values())]

    def cells(self) -> dict[str, str]:
        """See `parity.levels.Row`."""
        _, *envelope = self.ranked
        early, late = self.cross < min(envelope), self.cross > max(envelope)
        return {
            "parted at": self.name,
            "JAX, torch": self._span([self.cross]),
            **{f"{side}, nudged": self._span(steps) for side, steps in self.nudged.items()},
            **{f"{side}, jittered": self._span(steps) for side, steps in self.jittered.items()},
            "found": f"{mid_ranks(np.array([self.ranked]))[0, 0]:g} of {len(self.ranked)}",
            "fails": "",
            "verdict": "before all" if early else "after all" if late else "inside",
        }

    def _span(self, steps: list[int]) -> str:
        ends = dict.fromkeys((min(steps), max(steps)))
        return "-".join("never" if step == self.never else str(step) for step in ends)


@dataclass(frozen=True)
class Verdict:
    """Whether JAX parts from torch no earlier than runs part from their jittered selves.

    Attributes:
        p: see `p_value`.
        known: why torch's runs are known to be others, if they are: then agreement is what fails.
    """

    p: float
    known: str = ""
    name: str = "all seeds"

    @property
    def passed(self) -> bool:
        return (self.p > FALSE_ALARMS) != bool(self.known)

    def cells(self) -> dict[str, str]:
        """See `parity.levels.Row`."""
        verdict = "differs, as known" if self.known else "ok"
        return {
            "parted at": self.name,
            "JAX, torch": "",
            **{f"{side}, {kind}": "" for kind in Perturbed._fields for side in PERTURBED},
            "found": f"p = {self.p:.2g}",
            "fails": f"p ≤ {FALSE_ALARMS:g}",
            "verdict": verdict if self.passed else "FAIL",
        }


def check_free_running(cfg: TrainConfig, gradient: Gradient | None = None) -> Level:
    """L6: on several seeds, JAX parts from torch no earlier than runs part from their jittered selves."""
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
    theirs = by_seed(run_in_torch(cfg, torch_starts, rng), PERTURBED["torch"])
    rows = [
        find_partings(*seed_and_runs) for seed_and_runs in zip(seeds, ours, theirs, strict=True)
    ]
    p = p_value(np.array([row.ranked for row in rows]))
    known = next((x.why for x in adapter.KNOWN_DIFFERENCES if x.level == "L6"), "")
    figures = {
        f"{rows[0].name}: how far apart its runs are": distance_figure(ours[0], theirs[0]),
        "all seeds: when their runs part": partings_figure(rows),
    }
    return Level("L6", "float64", [*rows, Verdict(p, known)], remarks(rows), figures)


def starts(cfg: TrainConfig, perturbed: Perturbed, rng: np.random.Generator) -> list[Start]:
    """The starts of one seed's runs: the plain one, the nudged, the jittered."""
    weights = draw_weights(cfg)
    plain = Start(cfg.data_seed, weights, make_dataset(cfg).batches(0, cfg.steps), False)
    nudged = [plain._replace(weights=nudge(weights, rng)) for _ in range(perturbed.nudged)]
    jittered = [plain._replace(jittered=True)] * perturbed.jittered
    return [plain, *nudged, *jittered]


def nudge(weights: StateDict, rng: np.random.Generator) -> StateDict:
    """The weights, one of them moved by an ulp: in a block, where all are used, and not 0, which has no ulp."""
    name = rng.choice([n for n, w in weights.items() if n.startswith("blocks.") and w.any()])
    nudged = weights[name].copy()
    place = rng.choice(np.flatnonzero(nudged))
    nudged.flat[place] = np.nextafter(nudged.flat[place], rng.choice([-np.inf, np.inf]))
    return weights | {name: nudged}


def run_in_jax(
    cfg: TrainConfig, starts: Sequence[Start], gradient: Gradient | None = None
) -> Float[np.ndarray, "runs steps"]:
    """The batch losses of runs of ours, all in one program."""
    objective = make_objective(cfg)
    fixed, rates = optimizer_numbers(cfg)

    def run(params: Params, batches: Array, jittered: Array, key: Array) -> Array:
        def step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
            params, opt_state = state
            batch, key = inputs
            flat, unravel = ravel_pytree(params)
            infinity = jnp.inf * jax.random.rademacher(key, flat.shape, flat.dtype)
            params = unravel(jnp.nextafter(flat, jnp.where(jittered, infinity, flat)))
            state = (params, opt_state)
            return update(cfg.model, fixed, objective, rates, state, batch, gradient)

        state = (params, make_optimizer(fixed, rates).init(params))
        _, losses = jax.lax.scan(step, state, (batches, jax.random.split(key, cfg.steps)))
        return losses

    with numerics(cfg.model):
        keys = jax.random.split(jax.random.key(0), len(starts))
        each = [(start.weights, sequences(cfg, start), start.jittered) for start in starts]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        return np.asarray(jax.jit(jax.vmap(run))(*stacked, keys))


def sequences(cfg: TrainConfig, start: Start) -> Int[np.ndarray, "steps batch seq"]:
    """What a run of `cfg` from `start` sees."""
    tokens, rows = make_dataset(replace(cfg, data_seed=start.data_seed)).examples(start.batches)
    return tokens[rows]


def run_in_torch(
    cfg: TrainConfig, starts: Sequence[Start], rng: np.random.Generator
) -> Float[np.ndarray, "runs steps"]:
    """The batch losses of torch's runs, jittered from `rng`."""

    def run(start: Start) -> Float[np.ndarray, " steps"]:
        engine = TorchEngine(replace(cfg, data_seed=start.data_seed), "cpu")
        state = engine.start(start.weights)
        losses = []
        for rows in start.batches:
            if start.jittered:
                jitter(state.model, rng)
            state, loss = engine.advance(state, rows[None])
            losses.append(loss)
        return np.concatenate(losses)

    return np.stack([run(start) for start in track(starts, "running torch", transient=True)])


@torch.no_grad()
def jitter(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Move every weight of a float64 model by an ulp, up or down."""
    flat = parameters_to_vector(model.parameters())
    infinity = torch.from_numpy(rng.choice([-np.inf, np.inf], len(flat)))
    vector_to_parameters(torch.nextafter(flat, infinity), model.parameters())


def by_seed(losses: Float[np.ndarray, "runs steps"], perturbed: Perturbed) -> list[Runs]:
    """The losses of all seeds' runs, which are in the order of `starts`."""
    ends = (1, 1 + perturbed.nudged)
    parts = (np.split(of_seed, ends) for of_seed in np.split(losses, SEEDS))
    return [Runs(plain, nudged, jittered) for (plain,), nudged, jittered in parts]


def find_partings(cfg: TrainConfig, ours: Runs, theirs: Runs) -> Partings:
    """When the runs of one seed part."""
    sides = dict(zip(PERTURBED, (ours, theirs), strict=True))
    return Partings(
        f"seed {cfg.init_seed}" + f", {cfg.data_seed}" * (cfg.data_seed != cfg.init_seed),
        cfg.steps,
        int(parting(ours.plain, theirs.plain)),
        {side: parting(runs.plain, runs.nudged).tolist() for side, runs in sides.items()},
        {side: parting(runs.plain, runs.jittered).tolist() for side, runs in sides.items()},
    )


def parting(
    first: Float[np.ndarray, "*runs steps"], second: Float[np.ndarray, "*runs steps"]
) -> Int[np.ndarray, "*runs"]:
    """The step at which two runs part, or their number of steps if they never do. A NaN parts them."""
    together = np.abs(first - second) <= PARTED
    return np.where(together.all(-1), together.shape[-1], together.argmin(-1))


def mid_ranks(values: Int[np.ndarray, "seeds runs"]) -> Float[np.ndarray, "seeds runs"]:
    """The rank of every value in its row, from 1; tied values share the mean of theirs."""
    each, others = values[:, :, None], values[:, None, :]
    return (each > others).sum(-1) + ((each == others).sum(-1) + 1) / 2


def p_value(partings: Int[np.ndarray, "seeds runs"]) -> float:
    """How likely the cross partings, the first of every row, rank so early among the jittered, the others.

    If torch's run is as far from ours as a jittered one, each seed's cross parting might as well be any
    other of its row. The p-value is the share of all such choices, one for each seed, whose sum of ranks is
    as small as the cross partings' or smaller. That makes an exact permutation test, whatever the partings'
    distribution, ties and pairs that never part included. It is one-sided: runs can't agree too well.

    Measured on the tutorial's model with the numbers of seeds and runs above, the level fails in at most 0.1% of
    cases if ours and torch's are as far apart as jitter takes a run, in 72% if 5 times as far, in 92% if
    10 times, and in all if 50 times. A learning rate that is wrong by 1e-13 of itself is such a fault.
    """
    doubled = (2 * mid_ranks(partings)).astype(int)  # mid-ranks have halves
    sums = np.ones(1)
    for ranks in doubled:
        sums = np.convolve(sums, np.bincount(ranks) / len(ranks))
    return float(sums[: doubled[:, 0].sum() + 1].sum())


def remarks(rows: Sequence[Partings]) -> list[str]:
    """How to read the rows, and whether the runs are long enough to judge by."""
    never = rows[0].never
    of_jittered = [step for row in rows for step in row.ranked[1:]]
    apart = sum(step < never for step in of_jittered)
    found = [
        f"parted at: the first of {never} steps whose batch losses differ by more than {PARTED:g}; nudged: "
        "a run and itself with one initial weight moved by an ulp; jittered: a run and itself with every "
        "weight moved by an ulp before every update",
        "found: the rank of JAX and torch among the jittered, where 1 is the earliest; p: how often ranks "
        "of all seeds would be so early if torch were as far from JAX as jitter takes a run",
    ]
    if 2 * apart < len(of_jittered):
        found.append(
            f"only {apart} of {len(of_jittered)} jittered runs part within {never} steps: what is larger "
            "than rounding, but not by many orders, goes unseen"
        )
    return found


LAYOUT: dict[str, Any] = {
    "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    "margin": {"l": 64, "r": 12, "t": 48, "b": 44},
}


def distance_figure(ours: Runs, theirs: Runs) -> go.Figure:
    """The largest difference of losses so far, at every other step of one seed's runs; log scale."""
    sides = (ours, theirs)
    gaps = {
        "JAX and torch": ours.plain[None] - theirs.plain,
        "nudged": np.concatenate([runs.nudged - runs.plain for runs in sides]),
        "jittered": np.concatenate([runs.jittered - runs.plain for runs in sides]),
    }
    figure = go.Figure()
    for depth, (name, gap) in enumerate(gaps.items()):
        so_far = np.maximum.accumulate(np.abs(gap), axis=1)[:, ::2].clip(1e-17)
        # All runs of a kind are one line, with a gap after each.
        figure.add_scatter(
            x=[x for _ in so_far for x in [*range(0, gap.shape[1], 2), None]],
            y=[y for run in so_far for y in [*(float(f"{v:.3g}") for v in run), None]],
            name=name,
            mode="lines",
            line={"width": 1 if depth else 2.2},
            zorder=-depth,
            hovertemplate="step %{x}: %{y:.1e}",
        )
    figure.add_hline(PARTED, line={"dash": "dot"})
    figure.update_yaxes(type="log", title="losses apart (nats)", dtick=2, tickformat="~e")
    return figure.update_layout(xaxis={"title": "step"}, **LAYOUT)


def partings_figure(rows: Sequence[Partings]) -> go.Figure:
    """The steps at which runs part, a line for each seed; those that never part are missing."""
    kinds = {
        "JAX and torch": [[row.cross] for row in rows],
        "nudged": [[*chain(*row.nudged.values())] for row in rows],
        "jittered": [row.ranked[1:] for row in rows],
    }
    figure = go.Figure()
    for depth, (name, by_row) in enumerate(kinds.items()):
        points = [
            (step, row.name)
            for row, steps in zip(rows, by_row, strict=True)
            for step in steps
            if step < row.never
        ]
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[seed for _, seed in points],
            name=name,
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 16, "line": {"width": 2}}
            if depth
            else {"symbol": "diamond", "size": 11},
            zorder=-depth,
            hovertemplate="%{y}: step %{x}",
        )
    figure.update_yaxes(categoryarray=[row.name for row in rows], autorange="reversed")
    return figure.update_layout(xaxis={"title": "step"}, **LAYOUT)
