"""A point of a run from which it can go on: the engine's state and what has been measured so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from revinc.engine import METRICS


@dataclass(frozen=True)
class History:
    """Batch losses of every step so far, and an evaluation at some steps."""

    losses: tuple[Float[np.ndarray, " chunk"], ...] = ()
    evaluations: tuple[dict[str, float], ...] = ()

    def with_losses(self, chunk: Float[np.ndarray, " chunk"]) -> History:
        return History((*self.losses, chunk), self.evaluations)

    def with_evaluation(self, step: int, metrics: dict[str, float]) -> History:
        return History(self.losses, (*self.evaluations, {"step": step, **metrics}))

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per evaluation: the step and the values of `METRICS`."""
        table = pd.DataFrame(list(self.evaluations), columns=["step", *METRICS], dtype=np.float64)
        return table.astype({"step": np.int64})

    @property
    def loss_table(self) -> pd.DataFrame:
        """One row per update: the step before it and the loss of its batch there."""
        losses = np.concatenate([np.zeros(0), *self.losses])
        return pd.DataFrame({"step": np.arange(len(losses)), "loss": losses})


@dataclass(frozen=True)
class Checkpoint:
    """The run after `step` updates."""

    step: int
    engine_arrays: dict[str, np.ndarray]
    history: History = History()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As one flat dict of arrays."""
        columns = {"losses": self.history.loss_table["loss"], **self.history.metrics}
        return {
            "at": np.array(self.step),
            **{f"engine/{name}": array for name, array in self.engine_arrays.items()},
            **{f"history/{name}": np.array(column, np.float64) for name, column in columns.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Checkpoint:
        """The inverse of `to_arrays`, bit for bit.

        Raises:
            KeyError: if an array of the history is missing.
        """
        parts: dict[str, dict[str, np.ndarray]] = {"engine": {}, "history": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = array
        columns = [parts["history"][name].tolist() for name in ("step", *METRICS)]
        rows = (
            dict(zip(("step", *METRICS), row, strict=True)) for row in zip(*columns, strict=True)
        )
        history = History((parts["history"]["losses"],), tuple(rows))
        return cls(int(arrays["at"]), parts["engine"], history)
