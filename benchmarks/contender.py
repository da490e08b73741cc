"""What a contender is: one way of training models, that can be put beside others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from revinc import TrainConfig
from revinc.engine import Engine
from revinc.weights import StateDict


class Trainer(Protocol):
    """Trains one model, or several side by side, of one recipe. Lives in a process of its own."""

    device: str
    """What it runs on, in words."""

    def start(self, weights: StateDict) -> None:
        """Begin anew from initial weights: by TransformerLens' names, with a model axis first."""

    def advance(
        self, batches: Int[np.ndarray, "models steps batch"]
    ) -> Float[np.ndarray, "models steps"]:
        """An update of every model per step, and each batch's loss before it.

        Never more steps than `revinc.engine.chunk_capacity`. Everything is done when it returns.
        """

    def device_bytes(self) -> int | None:
        """The most memory of an accelerator that was in use; None where there is none."""


class OneRun:
    """What trainers share that run one model on an `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.device = engine, engine.device

    def start(self, weights: StateDict) -> None:
        self._state = self._engine.start({name: array[0] for name, array in weights.items()})

    def advance(self, batches: np.ndarray) -> np.ndarray:
        self._state, losses = self._engine.advance(self._state, batches[0])
        return losses[None]


MakeTrainer = Callable[..., Trainer]
"""``make(cfg, width, **options)``."""


@dataclass(frozen=True)
class Contender:
    """How a trainer is made, and what it is called.

    Attributes:
        name: what ``--only`` calls it; several widths share one.
        title: what tables call it.
        make: where its `MakeTrainer` stands, as ``module:name``, for the process that runs it.
        framework: "torch" or "jax".
        width: models that it trains side by side.
        options: further arguments of `make`, such as its torch threads.
        frozen: parameters that it is known not to train.
        missing: why it can't run here; empty if it can.
        may_fail: it may turn out not to work here (a compiler is needed), which is then its result.
    """

    name: str
    title: str
    make: str
    framework: str
    width: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    missing: str = ""
    may_fail: bool = False

    @property
    def key(self) -> str:
        """Unique among contenders."""
        details = [str(value) for value in self.options.values()]
        return "-".join([self.name, *details, f"width{self.width}"])

    def as_wide_as(self, width: int) -> Contender:
        """The same with another width."""
        return dataclasses.replace(self, width=width)


@dataclass(frozen=True)
class Job:
    """All that a process must know to train: a contender, the recipe, and a file of initial weights."""

    contender: Contender
    cfg: TrainConfig
    weights: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        contender = dataclasses.asdict(self.contender)
        return {"contender": contender, "cfg": self.cfg.to_dict(), "weights": self.weights}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Job:
        """The inverse of `to_dict`."""
        contender = Contender(**fields["contender"])
        contender = dataclasses.replace(contender, frozen=tuple(contender.frozen))
        return cls(contender, TrainConfig.from_dict(fields["cfg"]), fields["weights"])
