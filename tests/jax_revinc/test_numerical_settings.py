"""What decides the bits of a run is set by its config, not by JAX's flags or the environment."""

import json
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from flax import nnx

from jax_revinc import HookedTransformer, TrainConfig, UserError, train
from jax_revinc.analysis.attention import attention_patterns, reversal_score
from jax_revinc.analysis.attribution import logit_attribution
from jax_revinc.analysis.claims import claims
from jax_revinc.analysis.effects import ablation_costs
from jax_revinc.population.training import train_population
from revinc.sweep import sweep
from revinc.tasks import eval_positions, reading_cells

pytestmark = pytest.mark.optimized

FLAGS = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
}
"""What a user may have set, to another value than JAX's default."""

ENVIRONMENT = {
    **{name.upper(): str(value) for name, value in FLAGS.items()},
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
}

CFG = TrainConfig(steps=4, eval_every=2)
ENGINES = ("xla", pytest.param("fused", marks=pytest.mark.slow))


@pytest.fixture
def set_flag():
    """A function that sets a flag of ``jax.config`` until the end of the test."""
    before = {}

    def update(name, value):
        before[name] = getattr(jax.config, name)
        jax.config.update(name, value)

    yield update
    for name, value in before.items():
        jax.config.update(name, value)


def all_bits(folder, engine):
    """A run, a population, a new model, and what is read off them: arrays by name."""
    task = CFG.task
    run = train(CFG, folder / "run", engine=engine)
    models = sweep(CFG, seeds=[0, 1, 2])
    population = train_population(CFG, models, folder / "models", engine=engine, width=2)
    model = run.model()
    patterns = attention_patterns(model, task.sequences()[:, :-1])
    found = {
        "metrics": run.metrics.to_numpy(),
        "logits": model(task.sequences()[:, :-1]),
        "claims": claims(model, task),
        "ablation": ablation_costs(model, task).to_numpy(dtype=float),
        "reversal": reversal_score(patterns, reading_cells(task)),
        "attribution": logit_attribution(model, task.sequences(), eval_positions(task))[1],
        "run": run.state_dict(),
        "population": population.params([0, 1, 2]),
        "new": HookedTransformer(CFG.model.replace(seed=3)).state_dict(),
    }
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A function: `all_bits` with JAX as it is by default."""
    known = {}

    def bits(engine):
        if engine not in known:
            known[engine] = all_bits(tmp_path_factory.mktemp(engine), engine)
        return known[engine]

    return bits


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    other = [name for name, array in found.items() if array.tobytes() != expected[name].tobytes()]
    assert not other


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_jax_changes_no_bit(ordinary, set_flag, tmp_path, flag, engine):
    expected = ordinary(engine)
    set_flag(flag, FLAGS[flag])
    assert_same_bits(all_bits(tmp_path, engine), expected)


def test_a_thread_has_the_same_bits(ordinary, set_flag, tmp_path):
    expected, found = ordinary("xla"), {}
    set_flag("jax_enable_x64", True)
    thread = threading.Thread(target=lambda: found.update(all_bits(tmp_path, "xla")))
    thread.start()
    thread.join()
    assert_same_bits(found, expected)


SHELL = """
import hashlib, json, sys
from pathlib import Path
from jax_revinc.__main__ import make_parser
from revinc.command_errors import run_command

folder = Path(sys.argv[1])
for engine in ("xla", "fused"):
    run, store = folder / engine, folder / f"{engine}s"
    commands = [
        ["train", "--engine", engine, "--steps", "20", "--out", run],
        ["population", "--engine", engine, "--steps", "20", "--seeds", "5", "--width", "2", "--out", store],
    ]
    if engine == "xla":
        commands += [["inspect", run, "--tables", "ablation"], ["report", run], ["atlas", store]]
    for command in commands:
        assert run_command(make_parser(), list(map(str, command))) == 0, command
files = [*folder.rglob("*.safetensors"), *folder.glob("*s/weights/**/c/**/*"), *folder.glob("*s/atlas/models.csv")]
hashes = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
(folder / "hashes.json").write_text(json.dumps(hashes))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_environment_changes_no_bit_of_any_command(tmp_path):
    found = []
    for name, environment in (("plain", {}), ("odd", ENVIRONMENT)):
        folder = tmp_path / name
        folder.mkdir()
        env = {**os.environ, **environment}
        done = subprocess.run(
            [sys.executable, "-c", SHELL, folder], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads((folder / "hashes.json").read_text()))
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_a_large_seed_means_the_same_in_both_precisions():
    narrow, wide, small = (
        HookedTransformer(CFG.model.replace(seed=seed, dtype=dtype)).state_dict()
        for seed, dtype in ((2**32 + 5, "float32"), (2**32 + 5, "float64"), (5, "float32"))
    )
    for name, array in narrow.items():
        np.testing.assert_array_equal(array, wide[name])
    assert (narrow["embed.W_E"] != small["embed.W_E"]).any()


def test_a_seed_draws_what_jax_own_key_of_it_draws():
    one = HookedTransformer(CFG.model.replace(seed=5)).state_dict()
    other = HookedTransformer(CFG.model, rngs=nnx.Rngs(5)).state_dict()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_a_seed_that_no_key_has_is_refused():
    with pytest.raises(UserError, match=r"below 2\*\*64"):
        HookedTransformer(CFG.model.replace(seed=2**64))


def test_keys_of_another_generator_are_refused_by_name(set_flag):
    set_flag("jax_default_prng_impl", "rbg")
    with pytest.raises(UserError, match="keys of type threefry2x32, not rbg"):
        HookedTransformer(CFG.model, rngs=nnx.Rngs(0))


def test_the_model_may_be_given_by_keyword():
    model = HookedTransformer(CFG.model, rngs=nnx.Rngs(0))
    tokens = CFG.task.sequences()[:2, :-1]
    np.testing.assert_array_equal(
        attention_patterns(model=model, tokens=tokens), attention_patterns(model, tokens)
    )


def test_what_is_not_a_model_is_refused():
    with pytest.raises(UserError, match="model must be a HookedTransformer, not dict"):
        attention_patterns({}, CFG.task.sequences())
