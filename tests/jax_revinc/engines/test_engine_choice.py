"""Which engine is taken, what is said of it, and that a run keeps its own."""

from __future__ import annotations

import dataclasses
import types

import jax
import pytest
from fused_examples import require_compiler
from populations import RECIPE

from jax_revinc import PRESETS, Run, UserError, train
from jax_revinc.engines import engine_choice
from jax_revinc.engines.compiled_programs import parameter_structs
from jax_revinc.engines.engine_choice import choose_engine, estimated_operations
from jax_revinc.engines.fused.schedule import statements_of
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.trace import trace
from jax_revinc.engines.fused_engine import fused_programs
from jax_revinc.objective import mean_loss
from revinc.objective import make_objective

TUTORIAL = PRESETS["tutorial"]


@pytest.fixture
def nothing_is_built(monkeypatch):
    """No fused program is there, and building one takes no time: the estimates decide."""
    built = types.SimpleNamespace(identity={"lanes": "16", "compiler": "a compiler"})
    monkeypatch.setattr(engine_choice, "fused_programs", lambda *_, **__: built)
    monkeypatch.setattr(engine_choice, "is_built", lambda *_, **__: False)


@pytest.mark.parametrize(
    ("cfg", "n_models", "name"),
    [
        (TUTORIAL, None, "xla"),
        (dataclasses.replace(TUTORIAL, steps=100_000), None, "fused"),
        (dataclasses.replace(TUTORIAL, steps=5), None, "xla"),
        (dataclasses.replace(TUTORIAL, steps=1000), 64, "xla"),
        (TUTORIAL, 64, "fused"),
        (PRESETS["reliable"], 1024, "fused"),
        (PRESETS["grokking"], None, "xla"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("nothing_is_built")
def test_auto_never_makes_the_first_result_later(cfg, n_models, name):
    chosen = choose_engine("auto", cfg, n_models)
    assert chosen.engine_name == name
    assert chosen.sentence.startswith(f"Engine: {name}")
    assert len(chosen.sentence.splitlines()) == 1


def test_what_is_built_already_is_taken_but_not_by_one_process_of_several(monkeypatch):
    built = types.SimpleNamespace(identity={"lanes": "16", "compiler": "a compiler"})
    monkeypatch.setattr(engine_choice, "fused_programs", lambda *_, **__: built)
    monkeypatch.setattr(engine_choice, "is_built", lambda *_, many: many)
    assert choose_engine("auto", TUTORIAL).engine_name == "xla"
    assert choose_engine("auto", RECIPE, n_models=2).engine_name == "fused"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert choose_engine("auto", RECIPE, n_models=2).engine_name == "xla"


def test_the_sentence_says_what_either_takes_and_how_to_build_ahead(monkeypatch):
    monkeypatch.setattr(engine_choice, "is_built", lambda *_, **__: False)
    sentence = choose_engine("auto", TUTORIAL).sentence
    assert "in about 1 s" in sentence
    assert "about 9 s once" in sentence
    assert "jax-revinc build" in sentence


def test_the_estimate_is_near_what_programs_have():
    for preset in ("tutorial", "reliable"):
        cfg = PRESETS[preset]
        objective = make_objective(cfg)
        program = trace(
            jax.value_and_grad(lambda p, t, c=cfg, o=objective: mean_loss(c.model, p, t, o)),
            Spec(parameter_structs(cfg.model), cfg.model.n_ctx, cfg.model.d_vocab),
        )
        share = estimated_operations(cfg) / len(statements_of(program))
        assert 0.6 < share < 1.6, preset


@pytest.mark.usefixtures("nothing_is_built")
def test_what_was_begun_goes_on_as_it_was():
    assert choose_engine("auto", TUTORIAL, resumed="xla").engine_name == "xla"
    assert choose_engine("auto", RECIPE, resumed="fused").engine_name == "fused"
    assert (
        choose_engine("xla", TUTORIAL, resumed="fused").engine_name == "xla"
    )  # and is refused later


def test_an_engine_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="choose from auto, xla, fused"):
        choose_engine("fast", RECIPE)


def test_without_a_compiler_auto_is_xla_and_fused_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    fused_programs.cache_clear()
    chosen = choose_engine("auto", dataclasses.replace(TUTORIAL, steps=100_000))
    assert chosen.engine_name == "xla"
    assert "CXX=/nowhere/c++" in chosen.sentence
    with pytest.raises(UserError, match=r"the fused engine can't train this model .*: .*CXX"):
        choose_engine("fused", TUTORIAL)
    with pytest.raises(UserError, match="CXX"):
        choose_engine("auto", TUTORIAL, resumed="fused")


def test_on_other_devices_it_is_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fused_programs.cache_clear()
    assert "JAX runs on gpu" in choose_engine("auto", TUTORIAL).sentence
    with pytest.raises(UserError, match="JAX runs on gpu"):
        choose_engine("fused", RECIPE)


def test_a_run_keeps_its_engine(run_cli, tmp_path):
    require_compiler()
    cfg = dataclasses.replace(RECIPE, model=RECIPE.model.replace(attn_only=True))
    out = tmp_path / "run"
    recorded = train(cfg, out, engine="fused").engine
    assert recorded["name"] == "fused"
    assert {"lanes", "compiler"} <= recorded.keys()
    resumed = run_cli("train", "--out", out, "--resume")
    assert resumed.status == 0
    assert "Engine: fused" in resumed.out
    assert Run.load(out).engine == recorded
    refused = run_cli("train", "--out", out, "--resume", "--engine", "xla")
    assert (refused.status, len(refused.err)) == (2, 1)
    assert "it can't be resumed by" in refused.err[0]
