"""The shards of a population: models that were trained side by side and are stored together.

Their metrics are a Parquet file. A shard is written once, and checked whenever it is read.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jax_revinc.population.model_origin import Origin
from jax_revinc.population.model_table import IDENTITY_KINDS
from jax_revinc.population.typed_tables import (
    CURVES,
    INTEGERS,
    NUMBERS,
    Damaged,
    read_typed_table,
)
from jax_revinc.population.weight_arrays import WeightArrays
from revinc import TrainConfig, UserError
from revinc.engine import METRICS, evaluation_steps
from revinc.folders import set_aside
from revinc.parquet_tables import write_table
from revinc.provenance import installed_versions, source_commit
from revinc.sweep import IDENTITY, MOST_MODELS, later_columns
from revinc.weights import StateDict

DIVERGED = "diverged_at"
"""The column with the step at which a model diverged; missing if it did not."""

NAME = re.compile(r"([0-9]{6,18})\.parquet")
"""The names of files of metrics: the number of the shard."""


def curve_names() -> list[str]:
    """The names of the columns with curves, the values of one metric at all evaluations."""
    return [f"{metric}_curve" for metric in METRICS]


KINDS = {
    "model": INTEGERS,
    **IDENTITY_KINDS,
    DIVERGED: INTEGERS,
    **dict.fromkeys(METRICS, NUMBERS),
    **dict.fromkeys(curve_names(), CURVES),
}
"""The columns of a shard's metrics, and the kind of each."""


class Shards:
    """A population's shards on disk: groups of models, each with a file of metrics and its weights.

    A shard is finished if its metrics are there: they are written last.

    Args:
        folder: the folder of the metrics, a Parquet file for every shard.
        arrays: the weights.
        cfg: the training config that all models share.
        origin: the config and engine that every shard of the store must come from.
    """

    def __init__(
        self, folder: Path, arrays: WeightArrays, cfg: TrainConfig, origin: Origin
    ) -> None:
        self.folder, self.arrays, self.cfg, self.origin = folder, arrays, cfg, origin

    def path(self, shard: int) -> Path:
        """The path of the Parquet file with the metrics of a shard's models."""
        return self.folder / f"{shard:06d}.parquet"

    def finished(self) -> list[int]:
        """The numbers of the finished shards (groups of models stored together), in order."""
        names = {file.name for file in self.folder.iterdir()} if self.folder.is_dir() else set()
        numbers = (int(match[1]) for name in names if (match := NAME.fullmatch(name)))
        return sorted(shard for shard in numbers if self.path(shard).name in names)

    def write(self, shard: int, models: pd.DataFrame, weights: StateDict) -> None:
        """Write the weights of a shard's models to disk, then their metrics.

        Args:
            shard: the shard's number.
            models: the metrics, a row per model with the columns of `KINDS`.
            weights: [models, ...] for every parameter.

        Raises:
            OSError: if the disk is full or not writable; the shard is then not finished.
        """
        self.arrays.write(shard, weights)
        record = {**self.origin.to_record(), "weights": digest(weights), **provenance()}
        write_table(self.path(shard), models, record)

    def read(self, shard: int, models: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """Read the metrics of a shard of models, a table with a row per model.

        Args:
            shard: the shard's number.
            models: the models that it must hold, with the columns of `IDENTITY`.
            columns: the columns to read beside those of `IDENTITY`.

        Raises:
            UserError: if the shard is missing, damaged, or of another config, engine or models.
        """
        table, _ = self._read_table(shard, [*IDENTITY, *columns])
        if not table[list(IDENTITY)].equals(models[list(IDENTITY)]):
            raise Damaged(
                f"{self.path(shard)} holds other models than models.parquet lists for shard "
                f"{shard}; put this population's own shard back"
            )
        return table

    def read_weights(self, shard: int, n_models: int) -> StateDict:
        """Read the weights of the `n_models` models of a shard, [models, ...] by parameter.

        Raises:
            UserError: if they are missing, damaged, or differ from those that were written.
        """
        table, record = self._read_table(shard, [])
        if len(table) != n_models:
            raise Damaged(
                f"{self.path(shard)} holds other models than models.parquet lists for shard "
                f"{shard}; put this population's own shard back"
            )
        this_shard = f"shard {shard} of {self.folder.parent}"
        try:
            weights = {name: a[:n_models] for name, a in self.arrays.read(shard).items()}
        except UserError as error:
            raise Damaged(
                f"{this_shard} is damaged: {error}; --resume trains its models again"
            ) from error
        if digest(weights) != record.get("weights"):
            raise Damaged(
                f"{this_shard} is damaged: its models' weights are not those that were written; "
                "--resume trains them again"
            )
        broken = ~are_finite(weights, n_models) & table[DIVERGED].isna().to_numpy()
        if broken.any():
            raise Damaged(
                f"{this_shard} is damaged: the weights of model {table.index[broken][0]} are NaN "
                "or infinite, though it did not diverge; --resume trains the shard's models again"
            )
        return weights

    def check(self, shard: int, models: pd.DataFrame) -> None:
        """Check the files of a finished shard of models: metadata, metrics and weights.

        Args:
            shard: the shard's number.
            models: the models that it must hold, with the columns of `IDENTITY`.

        Raises:
            Damaged: if it changed since it was written, so that it must be trained again.
            UserError: if it is intact, but of another config, engine or plan.
        """
        table, _ = self._read_table(shard, [*IDENTITY, *METRICS, *curve_names()])
        self.read_weights(shard, len(table))
        if not table[list(IDENTITY)].equals(models[list(IDENTITY)]):
            raise UserError(
                f"shard {shard} of {self.folder.parent} is intact, but holds other models than "
                "models.parquet lists for it; that file was edited, is an older one, or belongs to "
                "another population: put the right one back"
            )

    def problem(self, shard: int, models: pd.DataFrame) -> str | None:
        """Check the files of a finished shard of models; return their damage in words, or None."""
        try:
            self.check(shard, models)
        except Damaged as error:
            return str(error)
        return None

    def set_aside(self, shard: int) -> None:
        """Rename the files of a damaged shard of models, so that it is trained again.

        Its metrics are last: until then, the damage is found again.
        """
        for file in [*self.arrays.files(shard), self.path(shard)]:
            set_aside(file)

    def _read_table(self, shard: int, columns: list[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Read a shard's metrics: the asked columns and `diverged_at`; and the file's metadata."""
        path = self.path(shard)
        kinds = {name: KINDS[name] for name in dict.fromkeys(["model", *columns, DIVERGED])}
        defaults = later_columns(self.cfg)
        table, record = read_typed_table(path, kinds, MOST_MODELS, (DIVERGED,), defaults)
        self._check_origin(shard, record)
        table = table.set_index("model").astype({DIVERGED: "Int64"})
        if problem := contradiction(table, self.cfg):
            raise Damaged(f"{path} is damaged: {problem}")
        return table, record

    def _check_origin(self, shard: int, record: dict[str, Any]) -> None:
        recorded = Origin.recorded(record)
        if recorded is None and not is_digest(record.get("recipe")):
            raise Damaged(f"{self.path(shard)} is damaged: its metadata lacks the models' config")
        if recorded is not None and recorded.digest != record.get("recipe"):
            raise Damaged(
                f"{self.path(shard)} is damaged: its metadata contradicts itself: the "
                "recorded hash is not that of the recorded config"
            )
        if record["recipe"] != self.origin.digest:
            differences = "; ".join(self.origin.differences(recorded)) if recorded else ""
            raise UserError(
                f"the models in shard {shard} of {self.folder.parent} were trained from another "
                "config than that in population.json"
                + (f" ({differences})" if differences else "")
                + "; that file was edited, or belongs to another population: put the right one back"
            )


def contradiction(table: pd.DataFrame, cfg: TrainConfig) -> str | None:
    """Say in words where a shard's table of metrics contradicts itself; None if it does not.

    A model has numbers before the step at which it diverged, and NaN from that step on.
    """
    if table.empty:
        return "its table has no models"
    diverged_at = table[DIVERGED].to_numpy(dtype="int64", na_value=cfg.steps + 1)
    if ((diverged_at < 0) | (diverged_at > cfg.steps + 1)).any():
        return "it has a model that diverged at a step outside its training"
    last, evaluations = np.array([cfg.steps]), np.array(evaluation_steps(cfg))
    for name in [name for name in table if name in METRICS or name in curve_names()]:
        lengths = {np.size(value) for value in table[name]}
        if len(lengths) > 1:
            return f"the lists in its column {name} have several lengths"
        values = np.stack([np.atleast_1d(value) for value in table[name]])
        steps = last if name in METRICS else evaluations
        if values.shape[1] != len(steps):
            return f"its column {name} does not have {len(steps)} evaluations per model"
        is_measured = steps < diverged_at[:, None]
        if not np.where(is_measured, np.isfinite(values), np.isnan(values)).all():
            return f"its column {name} lacks a number before a model diverged, or has one after"
    return None


def are_finite(weights: StateDict, n_models: int) -> np.ndarray:
    """For every model, whether all of its weights are finite."""
    finite = np.ones(n_models, bool)
    for array in weights.values():
        finite &= np.isfinite(array).reshape(n_models, -1).all(axis=1)
    return finite


@functools.cache
def provenance() -> dict[str, object]:
    """The package versions and source commit of this process, read once since files may change."""
    return {"versions": installed_versions(), "commit": source_commit()}


def digest(weights: StateDict) -> str:
    """A hash of the bits of a model's weights."""
    hashed = hashlib.sha256()
    for name in sorted(weights):
        hashed.update(np.ascontiguousarray(weights[name]).tobytes())
    return hashed.hexdigest()


def is_digest(value: object) -> bool:
    """Whether a value looks like a digest: 64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
