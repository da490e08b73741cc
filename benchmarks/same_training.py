"""Compares the losses of a contender's first steps with those of a float64 run.

The plain torch module gives the truth, in float64, and the bound: the error of its own float32
runs, from the weights as they are and with every weight jittered by an ulp. They use torch's
AdamW, whose bias corrections are float64 in every run, and one whose corrections are float32, as
in a compiled program. If that module can't train a config, the tutorial's loop on TransformerLens
gives both; if torch has no such optimizer, XLA does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from benchmarks.contender import Trainer
from benchmarks.contenders.jax_single import CompiledLoop
from benchmarks.contenders.torch_ensemble import CompiledEnsemble
from benchmarks.contenders.torch_module import Eager, why_not
from benchmarks.contenders.transformer_lens import TutorialLoop
from parity.jitter import jitter
from revinc import TrainConfig
from revinc.dataset import make_dataset, rows_of_runs
from revinc.weights import StateDict
from torch_reference.optimizer import COUNTERPARTS

FIRST_STEPS = 20
"""Steps that are compared (fewer where rounding grows faster); a first result has as many."""

JUDGED = 4
"""Models of a contender that are compared: the first, each from its own seed."""

JITTERS = 2
FACTOR = 16.0
"""A contender's error may be this many times that of the worst float32 run.

Rounding grows exponentially from step to step, so runs of one training differ by such factors.
"""

TELLING = 1e-3
"""Steps are compared while the bound is at most this share of the loss; later ones tell nothing."""


class AnotherTraining(Exception):
    """The losses of a contender are not those of the training."""


@dataclass(frozen=True)
class Truth:
    """The losses of the first models, and the error that is allowed at each step."""

    losses: Float[np.ndarray, "judged steps"]
    bound: Float[np.ndarray, " steps"]

    def share_used(self, losses: Float[np.ndarray, "models steps"]) -> float:
        """The largest error as a share of the bound; above 1 it is another training."""
        apart = np.abs(losses - self.losses[: len(losses)])
        told = np.isfinite(self.bound)
        return float((np.where(np.isfinite(apart), apart, np.inf) / self.bound)[:, told].max())

    def check(self, title: str, losses: Float[np.ndarray, "models steps"]) -> float:
        """Return `share_used`.

        Raises:
            AnotherTraining: if it is above 1; names the contender, the step and the model.
        """
        share = self.share_used(losses)
        if share <= 1:
            return share
        apart = ~(np.abs(losses - self.losses[: len(losses)]) <= self.bound)
        step = int(apart.any(axis=0).argmax())
        model = int(apart[:, step].argmax())
        raise AnotherTraining(
            f"{title} is another training: at step {step} the loss of model {model} is "
            f"{losses[model, step]:.9g} instead of {self.losses[model, step]:.9g}, "
            f"and rounding explains {self.bound[step]:.2g}"
        )


def find_truth(
    cfg: TrainConfig, weights: StateDict, frozen: tuple[str, ...] = (), judged: int = JUDGED
) -> Truth:
    """Train the first models of `weights` in float64, and repeatedly in float32.

    Weights have their model axis first.
    """
    cfg = dataclasses.replace(cfg, eval_every=FIRST_STEPS)
    wide = dataclasses.replace(cfg, model=cfg.model.replace(dtype="float64"))
    rng = np.random.default_rng(0)
    judges = judges_of(cfg, frozen)
    truths, errors = [], []
    for seed in range(judged):
        batches = first_batches(cfg, [seed])
        mine = {name: array[seed : seed + 1] for name, array in weights.items()}
        as_float64 = {name: array.astype(np.float64) for name, array in mine.items()}
        truth = losses_of(judges[0](wide), as_float64, batches)
        near = [{name: jitter(array, rng) for name, array in mine.items()} for _ in range(JITTERS)]
        narrow = [make(cfg) for make in judges]
        runs = [losses_of(one, start, batches) for one in narrow for start in (mine, *near)]
        truths.append(truth)
        errors.append(np.abs(np.stack(runs) - truth).max(axis=0))
    losses = np.stack(truths)
    error = np.maximum.accumulate(np.max(errors, axis=0))
    largest = np.abs(losses).max(axis=0)
    bound = FACTOR * np.maximum(error, np.spacing(largest.astype(np.float32)))
    told = np.logical_and.accumulate(bound <= TELLING * largest)
    return Truth(losses, np.where(told, bound, np.inf))


def judges_of(cfg: TrainConfig, frozen: tuple[str, ...]) -> list[Callable[[TrainConfig], Trainer]]:
    """What makes the trainers that tell the truth and how far rounding leads away from it."""
    if not why_not(cfg):
        ensemble = partial(CompiledEnsemble, compiled=False)
        return [partial(Eager, frozen=frozen), *([] if frozen else [ensemble])]
    if cfg.optimizer in COUNTERPARTS:
        return [partial(TutorialLoop, width=1, threads=1)]
    return [CompiledLoop]


def losses_of(
    trainer: Trainer, weights: StateDict, batches: np.ndarray
) -> Float[np.ndarray, " steps"]:
    """The losses of one run, from weights with a model axis of one."""
    trainer.start(weights)
    return trainer.advance(batches)[0].astype(np.float64)


def first_batches(cfg: TrainConfig, seeds: list[int], n_steps: int = FIRST_STEPS) -> np.ndarray:
    """The first batches of the runs with these seeds, [models, steps, batch]."""
    return rows_of_runs([make_dataset(cfg.with_seed(seed)) for seed in seeds], 0, n_steps)
