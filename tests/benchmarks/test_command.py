import dataclasses
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
    monkeypatch.setattr(command, "all_contenders", lambda quick: [eager, many])
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
