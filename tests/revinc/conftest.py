"""A run without a framework: a config, its weights, and an engine that only adds."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest

from revinc.dataset import make_dataset
from revinc.engine import METRICS
from revinc.progress_output import Reporter
from revinc.run_request import make_request
from revinc.run_writer import RunWriter
from revinc.runs import Run
from revinc.trainer import run_training


class AddingEngine:
    """An engine whose every update adds to all weights; its state is the weights and a count.

    Its result depends on every batch and their order, so a wrong resume shows. `losses` overrides
    the loss of some steps, `weights_after` what the weights become by some updates.
    """

    identity: ClassVar = {"name": "adding", "platform": "none"}
    device = "no device"

    def __init__(self, losses=None, weights_after=None):
        self.losses = losses or {}
        self.weights_after = weights_after or {}

    def start(self, weights):
        return weights, np.array(0)

    def advance(self, state, batches):
        weights, count = state
        losses = []
        for batch in batches:
            step = int(count)
            losses.append(self.losses.get(step, 1 / (1 + step) + batch.sum() / 1e6))
            scale = self.weights_after.get(step + 1, 1.0)
            weights = {
                k: scale * (0.9 * w + batch @ np.arange(len(batch))) for k, w in weights.items()
            }
            count = count + 1
        return (weights, count), np.array(losses)

    def evaluate(self, state):
        weights, count = state
        mean = float(np.mean([weights[name].mean() for name in sorted(weights)]))
        return dict(zip(METRICS, (mean, mean + 1, 0.5, 0.25 + int(count) / 1e6), strict=True))

    def weights(self, state):
        return dict(state[0])

    def to_arrays(self, state):
        return {"count": state[1], **{f"weights/{name}": w for name, w in state[0].items()}}

    def from_arrays(self, arrays):
        weights = {k.removeprefix("weights/"): a for k, a in arrays.items() if k != "count"}
        return weights, arrays["count"]


class Stopping(Reporter):
    """Raises an error when the run has reached a step: Ctrl-C, or what a crash would be."""

    def __init__(self, step, error):
        super().__init__(quiet=True)
        self.step, self.error = step, error

    def reached(self, point):
        if point.step == self.step:
            raise self.error


@pytest.fixture
def cfg(tutorial):
    return dataclasses.replace(
        tutorial,
        model=tutorial.model.replace(dtype="float64"),
        steps=60,
        eval_every=20,
        snapshots=(10, 40),
    )


@pytest.fixture
def weights(cfg, random_weights):
    return random_weights(cfg.model)


@pytest.fixture
def open_writer(tmp_path, cfg, weights):
    """A function that opens a writer of a run of `cfg` in the folder ``run``."""

    def open_(folder="run", config=cfg, engine=AddingEngine.identity, **flags):
        request = make_request(config, tmp_path / folder, **flags)
        return RunWriter(request, engine, lambda: weights)

    return open_


@pytest.fixture
def train(cfg, weights, tmp_path):
    """A function that trains `cfg` in a folder of `tmp_path`, with an `AddingEngine` by default."""

    def train_(folder, engine=None, reporter=None, config=cfg, **how):
        out = tmp_path / folder
        request = make_request(config, out, **how)
        reporter = reporter or Reporter(quiet=True)
        run_training(
            request, engine or AddingEngine(), make_dataset(config), lambda: weights, reporter
        )
        return Run.load(out)

    return train_


@pytest.fixture
def refuses_in_one_line():
    """A context that wants an error whose message is one line and holds all of `phrases`."""

    @contextmanager
    def context(error, *phrases):
        with pytest.raises(error) as caught:
            yield caught
        message = str(caught.value)
        assert "\n" not in message
        for phrase in phrases:
            assert str(phrase) in message

    return context
