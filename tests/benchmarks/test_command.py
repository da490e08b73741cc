import dataclasses
import shlex
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import fused
from benchmarks.__main__ import PARTS, main, select
from benchmarks.contender import Contender
from benchmarks.registry import IN_SWEEPS, all_contenders, sweep_contenders
from benchmarks.results import Results
from benchmarks.sweeps import SWEEPS
from revinc import PRESETS, UserError
from revinc.config_parser import make_config_parser, parse_config, preset

KNOWN = ["transformer-lens", "torch-eager", "jax-loop"]


def test_an_unknown_name_lists_the_known_ones(capsys, tmp_path):
    assert main(["--only", "jax-lop", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "'jax-lop' is unknown; did you mean jax-loop" in said
    for name in (*PARTS, *(contender.name for contender in all_contenders())):
        assert name in said


@pytest.mark.parametrize(
    ("only", "quick", "parts", "names"),
    [
        (None, False, PARTS, KNOWN),
        (None, True, ("throughput",), KNOWN),
        (["sweeps"], False, ["sweeps"], KNOWN),
        (["jax-loop"], False, ("throughput",), ["jax-loop"]),
        (["jax-loop", "sweeps"], False, ["sweeps"], ["jax-loop"]),
    ],
)
def test_names_choose_parts_and_contenders(only, quick, parts, names):
    selection = select(only, KNOWN, quick)
    assert (selection.parts, selection.names) == (parts, names)


def test_a_sweep_of_none_of_its_contenders_is_refused():
    with pytest.raises(UserError, match="sweeps compare"):
        select(["sweeps", "transformer-lens"], KNOWN, False)


def test_contenders_have_keys_of_their_own():
    keys = [contender.key for contender in all_contenders()]
    assert len(set(keys)) == len(keys)


def test_both_transformer_lens_are_listed_and_one_of_them_can_be_installed():
    listed = {c.name: c.missing for c in all_contenders() if c.name.startswith("transformer-lens")}
    assert set(listed) == {"transformer-lens", "transformer-lens-4"}
    assert sum("not installed here" in why for why in listed.values()) == 1


def test_sweeps_of_another_config_are_refused():
    with pytest.raises(UserError, match="sweeps vary the tutorial's config"):
        select(["sweeps"], KNOWN, False, tutorial=False)
    assert "sweeps" not in select(None, KNOWN, False, tutorial=False).parts


@pytest.mark.parametrize(
    ("changes", "plain", "loop"),
    [
        ({}, "", ""),
        ({"lr": 1e-3, "batch_size": 4, "loss_on": "all"}, "", ""),
        ({"model": PRESETS["tutorial"].model.replace(act_fn="gelu")}, "LN, relu", ""),
        ({"clip_grad_norm": 1.0}, "without clipping", ""),
        ({"optimizer": "lion"}, "AdamW at a constant rate", "torch has no lion"),
    ],
)
def test_a_contender_that_can_not_train_a_config_says_why(changes, plain, loop):
    cfg = dataclasses.replace(PRESETS["tutorial"], **changes)
    missing = {contender.name: contender.missing for contender in all_contenders(cfg)}
    for name in ("torch-eager", "torch-ensemble"):
        assert plain in missing[name]
        assert bool(missing[name]) == bool(plain)
    (here,) = (
        c
        for c in all_contenders(cfg)
        if c.title.startswith("TransformerLens 3.9.0") and "1 thread" in c.title
    )
    assert here.missing == loop
    assert missing["jax-loop"] == ""


def test_the_flags_of_a_config_are_those_that_are_benchmarked(monkeypatch, tmp_path):
    asked = []

    def measure(contenders, cfg, *_):
        asked.append(cfg)
        return []

    monkeypatch.setattr(command, "measure", measure)
    flags = ["--quick", "--only", "jax-loop", "--preset", "reliable", "--lr", "0.5"]
    assert main([*flags, "--out", str(tmp_path)]) == 0
    assert asked == [dataclasses.replace(PRESETS["reliable"], lr=0.5)]
    results = Results.load(tmp_path)
    parsed, _ = parse_config(make_config_parser("x"), shlex.split(results.config), preset)
    assert parsed == asked[0]
    assert results.settings["steps"] == asked[0].steps


def test_sweeps_have_the_tutorials_recipe_among_their_points():
    assert [c.name for c in sweep_contenders(IN_SWEEPS)] == list(IN_SWEEPS)
    for sweep in SWEEPS.values():
        assert PRESETS["tutorial"] in [sweep.config_at(value) for value in sweep.values]


def test_two_contenders_from_the_command_to_the_page(monkeypatch, tmp_path, capsys):
    brief = dataclasses.replace(command.QUICK, rounds=2, seconds=0.0)
    monkeypatch.setattr(command, "QUICK", brief)
    eager = Contender("a", "plain torch", "benchmarks.contenders.torch_module:Eager", "torch")
    made = "benchmarks.contenders.torch_ensemble:EagerEnsemble"
    many = Contender("b", "side by side", made, "torch", 2, {"threads": 1})
    monkeypatch.setattr(command, "all_contenders", lambda cfg, quick: [eager, many])
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    entries = Results.load(tmp_path).entries
    assert [(entry.title, len(entry.seconds)) for entry in entries] == [
        ("plain torch", 2),
        ("side by side", 2),
    ]
    assert "Throughput" in capsys.readouterr().out
    assert "| plain torch |" in (tmp_path / "README.md").read_text()
    before = (tmp_path / "README.md").read_text()
    assert main(["--redraw", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == before


@pytest.mark.parametrize(
    "argv", [["--out", ""], ["--out", "a\0b"], ["--out", "file"], ["--only", "x" * 10**4]]
)
def test_odd_flags_end_in_a_sentence(capsys, monkeypatch, tmp_path, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(command, "benchmark", None)
    try:
        status = main([*argv, "--quick"])
    except SystemExit as stop:  # argparse
        status = stop.code
    assert status == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said) < 5000


@pytest.mark.parametrize("rounds", ["0", "-1", "x", "1.5", "٣", "9" * 400])
def test_rounds_are_at_least_one(capsys, monkeypatch, rounds):
    monkeypatch.setattr(sys, "argv", ["benchmarks.fused", f"--rounds={rounds}"])
    with pytest.raises(SystemExit) as stop:
        fused.main()
    assert stop.value.code == 2
    assert "argument --rounds: " in capsys.readouterr().err
