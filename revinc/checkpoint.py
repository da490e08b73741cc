"""A run's checkpoint, to resume it from: the engine's state and the metrics so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from revinc.engine import METRICS

AT, SEAL = "at", "sha256"
"""Names of arrays in a file: the step, and the hash of everything else."""

EVALUATED = ("step", *METRICS)
"""The columns of an evaluation in the history."""


@dataclass(frozen=True)
class History:
    """The losses and evaluation metrics of a training run so far.

    Attributes:
        losses: the loss of every batch, chunk by chunk.
        evaluations: the step and the values of `METRICS` at every evaluation.
    """

    losses: tuple[Float[np.ndarray, " chunk"], ...] = ()
    evaluations: tuple[dict[str, float], ...] = ()

    def with_losses(self, chunk: Float[np.ndarray, " chunk"]) -> History:
        """A copy of the history with the losses in `chunk`, those of the latest updates, added."""
        return History((*self.losses, chunk), self.evaluations)

    def with_evaluation(self, step: int, metrics: dict[str, float]) -> History:
        """A copy of the history with the metrics of an evaluation after `step` updates added."""
        return History(self.losses, (*self.evaluations, {"step": step, **metrics}))

    @property
    def metric_columns(self) -> dict[str, Shaped[np.ndarray, " evaluations"]]:
        """The columns of a table of the evaluations: the step, and loss and accuracy by split."""
        values = {name: [float(at[name]) for at in self.evaluations] for name in METRICS}
        steps = np.array([at["step"] for at in self.evaluations], np.int64)
        return {"step": steps, **{name: np.array(of) for name, of in values.items()}}

    @property
    def loss_columns(self) -> dict[str, Shaped[np.ndarray, " steps"]]:
        """The columns of a table of the updates: the step before each, and its batch's loss."""
        losses = np.concatenate([np.zeros(0), *self.losses])
        return {"step": np.arange(len(losses)), "loss": losses}


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` updates, from which it can be resumed.

    Attributes:
        step: the number of updates.
        engine_arrays: the engine's state, as `revinc.engine.Engine.to_arrays` returns it.
        history: the measurements so far.
    """

    step: int
    engine_arrays: dict[str, np.ndarray]
    history: History = History()

    def to_arrays(self, recipe: str) -> dict[str, np.ndarray]:
        """The checkpoint as one flat dict of arrays, with a hash of them to detect damage.

        Args:
            recipe: the digest of the run's config, from `revinc.json_records.config_digest`.
        """
        columns = {"losses": self.history.loss_columns["loss"], **self.history.metric_columns}
        arrays = {
            AT: np.array(self.step),
            **{f"engine/{name}": np.asarray(array) for name, array in self.engine_arrays.items()},
            **{f"history/{name}": np.array(column, np.float64) for name, column in columns.items()},
        }
        return {**arrays, SEAL: seal(arrays, recipe)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], recipe: str) -> Checkpoint:
        """Rebuild a checkpoint, bit for bit, from the dict of arrays that `to_arrays` returned.

        Earlier versions made arrays without a seal.

        Raises:
            ValueError: if the arrays are no checkpoint, have changed, or are another run's.
        """
        sealed = arrays.get(SEAL)
        arrays = {name: array for name, array in arrays.items() if name != SEAL}
        if sealed is not None and not np.array_equal(sealed, seal(arrays, recipe)):
            raise ValueError("the checkpoint is damaged, or is another run's")
        parts: dict[str, dict[str, np.ndarray]] = {AT: {}, "engine": {}, "history": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part not in parts:
                raise ValueError(f"the checkpoint holds an unknown array {name!r}")
            parts[part][rest] = array
        if set(parts[AT]) != {""} or parts[AT][""].dtype != np.int64 or parts[AT][""].ndim:
            raise ValueError("the checkpoint does not say at which step it was written")
        step = int(parts[AT][""])
        return cls(step, parts["engine"], _history(step, parts["history"]))


def seal(arrays: Mapping[str, np.ndarray], recipe: str) -> np.ndarray:
    """Hash a checkpoint's arrays (names, types, shapes, bits) with its run's config digest."""
    hashed = hashlib.sha256(recipe.encode())
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        hashed.update(array.tobytes())
    return np.frombuffer(hashed.digest(), np.uint8)


def _history(step: int, columns: Mapping[str, np.ndarray]) -> History:
    """Rebuild the history of the first `step` updates from a checkpoint's arrays.

    Raises:
        ValueError: if the arrays are not the losses and metrics of exactly these updates.
    """
    if set(columns) != {"losses", *EVALUATED}:
        wanted = ", ".join(("losses", *EVALUATED))
        raise ValueError(f"the checkpoint's history must have exactly the columns {wanted}")
    if any(column.dtype != np.float64 or column.ndim != 1 for column in columns.values()):
        raise ValueError("the checkpoint's history must hold float64 arrays with one axis")
    losses, evaluated = columns["losses"], columns["step"]
    n_rows = {len(columns[name]) for name in EVALUATED}
    in_order = np.diff(evaluated, prepend=-1.0, append=step + 1.0) > 0
    whole = (evaluated % 1 == 0).all()
    if len(losses) != step or len(n_rows) != 1 or not in_order.all() or not whole:
        raise ValueError(
            f"the checkpoint is of step {step}, but its losses and metrics do not cover exactly "
            "the steps up to there"
        )
    rows = zip(*(columns[name].tolist() for name in EVALUATED), strict=True)
    return History((losses,), tuple(dict(zip(EVALUATED, row, strict=True)) for row in rows))
