"""Generated C++ is kept, so that a later process need not trace the model; a wrong one is never used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fused_examples import require_compiler
from populations import RECIPE

from jax_revinc.engines import fused_engine
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.engines.fused import gradient, kept_sources, spec, training, vmap
from jax_revinc.engines.fused_engine import fused_programs, is_built
from jax_revinc.engines.single_model import JaxEngine
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset

CFG = dataclasses.replace(RECIPE, model=RECIPE.model.replace(attn_only=True, d_head=3, n_heads=1))
"""A model of no other test: what is loaded already would not be built into the folder."""
CLIPPED = dataclasses.replace(CFG, clip_grad_norm=1.0)
KEY = make_program_key(CFG)


class Traced(Exception):
    pass


@pytest.fixture
def later_process(monkeypatch):
    """As in a later process: nothing is in memory, and tracing is an error."""

    def refuse(*_):
        raise Traced

    def begin():
        fused_programs.cache_clear()
        for module in (training, gradient, vmap):
            monkeypatch.setattr(module, "trace", refuse)

    yield begin
    fused_programs.cache_clear()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The cache folder in which the programs of `CFG` and `CLIPPED` are built, and their weights."""
    require_compiler()
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_REVINC_CACHE", str(folder))
        fused_programs.cache_clear()
        assert not is_built(KEY, many=False)
        trained = [trained_weights(cfg) for cfg in (CFG, CLIPPED)]
        fused_programs.cache_clear()
    return folder, trained


@pytest.fixture
def cache(built, monkeypatch):
    monkeypatch.setenv("JAX_REVINC_CACHE", str(built[0]))
    return built[0] / "fused"


def trained_weights(cfg):
    """The weights after ten steps."""
    data = make_dataset(cfg)
    engine = JaxEngine(cfg, fused_programs(make_program_key(cfg), many=False), data)
    state, _ = engine.advance(engine.start(draw_weights(cfg)), data.rows(0, 10))
    return engine.weights(state)


@pytest.mark.optimized
@pytest.mark.parametrize("which", [0, 1], ids=["fused update", "optax' update"])
def test_a_later_process_does_not_trace_and_trains_the_same_bits(
    built, cache, later_process, which
):
    later_process()
    weights = trained_weights((CFG, CLIPPED)[which])
    for name, expected in built[1][which].items():
        np.testing.assert_array_equal(weights[name], expected)


def test_what_is_built_is_known_without_loading_it(cache, later_process):
    later_process()
    assert is_built(KEY, many=False)
    assert is_built(make_program_key(CLIPPED), many=False)
    assert not is_built(KEY, many=True)
    wider = dataclasses.replace(CFG, model=CFG.model.replace(d_vocab_out=6, n_heads=1))
    assert not is_built(make_program_key(wider), many=False)


def test_without_a_compiler_nothing_counts_as_built(cache, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert not is_built(KEY, many=False)


@pytest.mark.parametrize("ending", [".cpp", ".so"])
def test_a_damaged_file_counts_as_absent(cache, tmp_path, monkeypatch, ending):
    copy = tmp_path / "cache" / "fused"
    copy.mkdir(parents=True, mode=0o700)
    for file in cache.iterdir():
        content = file.read_bytes()
        damaged = file.suffix == ending
        (copy / file.name).write_bytes(content[:-1] if damaged else content)
        (copy / file.name).chmod(0o600)
    monkeypatch.setenv("JAX_REVINC_CACHE", str(copy.parent))
    assert not is_built(KEY, many=False)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (kept_sources, "source_digest", lambda *_: "edited"),
        (kept_sources, "cpu_features", lambda: frozenset({"another cpu"})),
        (kept_sources, "metadata", type("Other", (), {"version": lambda _: "0.0"})),
        (spec, "lane_width", lambda _: 2),
    ],
    ids=["source", "cpu", "versions", "lanes"],
)
def test_what_was_made_otherwise_is_not_used(
    cache, later_process, monkeypatch, module, name, value
):
    later_process()
    monkeypatch.setattr(module, name, value)
    assert not is_built(KEY, many=False)
    with pytest.raises(Traced):
        fused_engine.fused_programs(KEY, many=False)


def test_sets_and_dataclasses_have_one_digest_in_every_process():
    names = [f"blocks.{i}.attn.W_Q" for i in range(20)]
    one, other = frozenset(names), frozenset(reversed(names))
    digests = {kept_sources.digest((CFG.model, names), 8, "training") for names in (one, other)}
    assert len(digests) == 1
