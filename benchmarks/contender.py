"""A contender: one way of training models, to be timed beside others."""

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
    """Trains one model, or several side by side, of one training config, in its own process."""

    device: str
    """The device that it runs on, in words."""

    def start(self, weights: StateDict) -> None:
        """Start again from initial weights: by TransformerLens' names, with a model axis first."""

    def advance(
        self, batches: Int[np.ndarray, "models steps batch"]
    ) -> Float[np.ndarray, "models steps"]:
        """Update every model once per step; return the loss of each batch before its update.

        It is called with at most `revinc.engine.chunk_capacity` steps, and waits for the device.
        """

    def device_bytes(self) -> int | None:
        """The peak memory of the accelerator; None without one."""


class OneRun:
    """Base of the trainers that run one model on an `Engine`."""

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
    """A trainer's constructor, its arguments and its names.

    Attributes:
        name: its name in ``--only``; several widths share one.
        title: its name in tables.
        make: its `MakeTrainer` as ``module:name``, for the process that runs it.
        framework: "torch" or "jax".
        width: models that it trains side by side.
        options: further arguments of `make`, such as its torch threads.
        frozen: parameters that it does not train.
        missing: why it can't run here; empty if it can.
        may_fail: whether a failure is its result (it needs a compiler) rather than an error.
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
    """A contender, the training config and a file of initial weights: what a process needs."""

    contender: Contender
    cfg: TrainConfig
    weights: str

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON can hold it."""
        contender = dataclasses.asdict(self.contender)
        return {"contender": contender, "cfg": self.cfg.to_dict(), "weights": self.weights}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Job:
        """The inverse of `to_dict`."""
        contender = Contender(**fields["contender"])
        contender = dataclasses.replace(contender, frozen=tuple(contender.frozen))
        # The job comes from the process that started this one, so its task may be imported.
        cfg = TrainConfig.from_dict(fields["cfg"], fields["cfg"]["task"]["name"])
        return cls(contender, cfg, fields["weights"])
