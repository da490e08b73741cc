"""On one GPU, what is trained twice has the same bits. (All of this holds on a CPU too, and is tested there.)"""

import dataclasses
import hashlib
import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from populations import RECIPE

from jax_revinc import PRESETS, TrainConfig, train
from jax_revinc.engines import make_engine, make_population_engine
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset, rows_of_runs

pytestmark = pytest.mark.gpu

GROKKING = dataclasses.replace(PRESETS["grokking"], steps=60, eval_every=20)
SINGLE = {"tutorial": TrainConfig(steps=60, eval_every=60), "grokking": GROKKING}

TRAIN = """
import hashlib, sys
from jax_revinc import TrainConfig, train
weights = train(TrainConfig(steps=200), sys.argv[1]).state_dict()
print(hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest())
"""


def digest(arrays, losses):
    """A hash of arrays and losses, to compare bit for bit."""
    parts = [arrays[name].tobytes() for name in sorted(arrays)]
    return hashlib.sha256(b"".join([*parts, losses.tobytes()])).hexdigest()


def alone(cfg, cuts, resumes=False):
    """A hash of the state after the last cut and of all losses; a resume goes through arrays to another engine."""
    engine, data = make_engine(cfg), make_dataset(cfg)
    state, losses = engine.start(draw_weights(cfg)), []
    for start, stop in itertools.pairwise(cuts):
        state, some = engine.advance(state, data.rows(start, stop))
        losses.append(some)
        if resumes:
            arrays = engine.to_arrays(state)
            engine = make_engine(cfg)
            state = engine.from_arrays(arrays)
    return digest(engine.to_arrays(state), np.concatenate(losses))


def side_by_side(runs, cuts=(0, 20, 40)):
    """A hash of the weights and losses of each run, trained in one program."""
    engine, data = make_population_engine(RECIPE, width=64), [make_dataset(run) for run in runs]
    each = [draw_weights(run) for run in runs]
    state = engine.start(data, {name: np.stack([w[name] for w in each]) for name in each[0]})
    losses = []
    for start, stop in itertools.pairwise(cuts):
        state, some = engine.advance(state, rows_of_runs(data, start, stop))
        losses.append(some)
    losses, weights = np.concatenate(losses, axis=1), engine.weights(state)
    return [
        digest({name: array[i] for name, array in weights.items()}, losses[i])
        for i in range(len(runs))
    ]


@pytest.mark.parametrize("cfg", SINGLE.values(), ids=SINGLE.keys())
def test_a_run_that_is_trained_twice(cfg):
    jax.clear_caches()  # so that the second is compiled anew, if no compilation cache keeps the first
    first = alone(cfg, (0, 20, 40, 60))
    jax.clear_caches()
    assert alone(cfg, (0, 20, 40, 60)) == first


@pytest.mark.parametrize("cfg", SINGLE.values(), ids=SINGLE.keys())
def test_a_run_in_other_chunks(cfg):
    assert alone(cfg, (0, 1, 8, 20, 40, 60)) == alone(cfg, (0, 20, 40, 60))


@pytest.mark.parametrize("cfg", SINGLE.values(), ids=SINGLE.keys())
def test_a_run_that_is_resumed(cfg):
    assert alone(cfg, (0, 20, 40, 60), resumes=True) == alone(cfg, (0, 20, 40, 60))


def test_a_run_in_two_processes(tmp_path):
    def in_a_process(name):
        # Each compiles for itself.
        cache = {
            "JAX_REVINC_CACHE": str(tmp_path / f"{name}-cache"),
            "JAX_ENABLE_COMPILATION_CACHE": "0",
        }
        command = [sys.executable, "-c", TRAIN, str(tmp_path / name)]
        return subprocess.run(
            command, env=os.environ | cache, check=True, capture_output=True, text=True
        ).stdout

    assert in_a_process("first") == in_a_process("second")


def test_a_model_of_a_population_in_another_place_and_in_other_chunks():
    runs = [dataclasses.replace(RECIPE, init_seed=seed) for seed in range(50)]
    whole = side_by_side(runs)
    assert len(set(whole)) == 50
    assert side_by_side(runs[::-1], (0, 3, 20, 40))[::-1] == whole
    assert side_by_side(runs[7:9]) == whole[7:9]


def test_a_run_records_how_its_programs_were_compiled(tmp_path):
    recorded = train(TrainConfig(steps=1), tmp_path / "run").engine
    assert "xla_gpu_autotune_level=0" in recorded["compiler_options"]
    assert recorded["cublas"]
    assert recorded["cuda"]
