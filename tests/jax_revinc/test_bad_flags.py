"""Whatever a flag is given, the command ends in a sentence, before it trains or writes anything."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from bad_values import BAD_TEXTS, assert_refused, flags_of, trials

from jax_revinc import UserError
from jax_revinc.commands import population
from jax_revinc.commands import train as command

BESIDE = {"train": ["--steps", "20"], "population": ["--seeds", "2", "--steps", "20"]}


def would_train(*args, **flags):
    raise UserError("these would be trained")


@pytest.fixture(autouse=True)
def trains_nothing(monkeypatch):
    monkeypatch.setattr(command, "train", would_train)
    monkeypatch.setattr(population, "train_population", would_train)
    monkeypatch.setattr(population, "use_cpu_devices", lambda n_devices: None)
    monkeypatch.setattr(population, "join_job", lambda *others: nullcontext())


def try_all(run_cli, folder, name, per_flag):
    """Every flag of a subcommand with some texts."""
    for flag, text in trials(flags_of(run_cli, name), per_flag):
        out = [] if flag == "--out" else ["--out", str(folder / "out")]
        assert_refused(run_cli, name, *out, *BESIDE[name], f"{flag}={text}")
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", BESIDE)
def test_no_text_for_a_flag_ends_in_a_traceback(run_cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    try_all(run_cli, tmp_path, name, per_flag=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", BESIDE)
def test_none_of_a_hundred_texts_for_each_flag_ends_in_a_traceback(
    run_cli, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    assert len(set(BAD_TEXTS)) >= 100
    try_all(run_cli, tmp_path, name, per_flag=100)


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        ("--lr 1e400", "lr must be a finite number at least 0, not inf"),
        ("--steps ٣", "argument --steps: invalid int value: '٣'"),
        ("--steps " + "9" * 400, "steps must be below 2**31, not 999"),
        ("--steps " + "9" * 5000, "argument --steps: invalid int value: '999"),
        ("--eval-every 1 --steps 1000000000", "eval_every stops the training 1,000,000,000 times"),
        ("--snapshots every:1 --steps 1000000000 --eval-every 9999999", "choose at most 1,048,576"),
        ("--n-layers 10000000", "n_layers must be below 1024, not 10000000"),
        ("--rotary-base " + "9" * 400, "rotary_base must be a finite number above 0, not inf"),
        ("--act-fn ReLU", "unknown act_fn 'ReLU'; choose from relu, relu2, "),
        ("--act-fn ReLU", "; did you mean relu"),
        ("--normalization-type ln", "choose from LN, LNPre, RMS, RMSPre, None; did you mean LN"),
        ("--optimizer AdamW", "choose from adamw, nadamw, "),
        ("--optimizer AdamW", "; did you mean adamw?"),
    ],
)
def test_odd_values_are_refused_by_name_and_shown_shortened(run_cli, tmp_path, flags, phrase):
    outcome = run_cli("train", "--out", tmp_path / "run", *flags.split())
    assert outcome.status == 2
    assert phrase in outcome.err[-1]
    assert len(outcome.err[-1]) < 300
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        ("--seeds 2 --width 100000000000", "width must be below 2**24"),
        ("--seeds 1000000000000", "argument --seeds: more seeds than the 16,777,216 models"),
        ("--seeds 0:1000000000000,5", "argument --seeds: more seeds than"),
        ("--seeds 2 --data-seed 1:1000000000000", "argument --data-seed: more seeds than"),
        ("--seeds 5000 --data-seed 1:5000", "24,995,000 models are too many"),
        ("--seeds " + "9" * 400, "argument --seeds: more seeds than"),
        ("--seeds 9999999999999:9999999999999999", "argument --seeds: more seeds than"),
        ("--seeds ٣", "argument --seeds: invalid int value"),
        ("--seeds 5:1", "seeds has no values"),
        ("--seeds 2 --lr 0.1,", "argument --lr: invalid float value: ''"),
        ("--seeds 2 --devices 1000000000", "devices must be below 1024"),
        ("--seeds 2 --processes 0", "processes must be at least 1"),
        ("--seeds 2 --process 2 --processes 2", "process 2 does not exist; choose one of 0..1"),
        ("--seeds 2 --process -1", "process -1 does not exist"),
        ("--seeds 2 --coordinator x:99999", "argument --coordinator: invalid address value"),
    ],
)
def test_odd_populations_are_refused(run_cli, tmp_path, flags, phrase):
    outcome = run_cli("population", "--out", tmp_path / "new", *flags.split())
    assert outcome.status == 2
    assert phrase in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b"])
@pytest.mark.parametrize("name", ["inspect", "report", "atlas"])
def test_what_names_no_folder_is_refused(run_cli, name, path):
    outcome = run_cli(name, path)
    assert outcome.status == 2
    assert outcome.err[-1].endswith("can't be the path of a file or folder")


def test_no_text_for_a_flag_of_inspect_ends_in_a_traceback(run_cli, short_run):
    flags = flags_of(run_cli, "inspect")
    for flag, text in trials(flags, per_flag=12):
        if text.strip("+-0_") or not text:  # zeros are a layer, a head, ...
            assert_refused(run_cli, "inspect", str(short_run.path), f"{flag}={text}")


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (
            "--sample 1000000000000000000000000000000",
            "holdout sample 1000000000000000000000000000000",
        ),
        ("--tokens 99", "token ids must lie in 0..4"),
        ("--tokens -1", "token ids must lie in 0..4"),
        ("--tokens 99999999999999999999999999", "tokens must be integers"),
        ("--tokens 4 0 0 0 0 0 0 0 0 0 0", "longer than n_ctx"),
        ("--layer -1", "layer -1 does not exist; choose one of 0..1"),
        ("--head 1", "head 1 does not exist; choose one of 0..0"),
        ("--step -1", "no snapshot of step -1"),
        ("--step 1.5", "argument --step: invalid int value"),
    ],
)
def test_what_a_run_does_not_have_is_refused(run_cli, short_run, flags, phrase):
    outcome = run_cli("inspect", short_run.path, *flags.split())
    assert outcome.status == 2
    assert phrase in outcome.err[-1]


def test_what_can_not_fit_into_memory_is_refused_before_it_is_allocated(
    run_cli, tmp_path, monkeypatch
):
    monkeypatch.undo()
    tests = [
        (["train", "--d-model", "1000000000"], "choose a smaller d_model"),
        (["train", "--d-mlp", "2000000000"], "choose a smaller d_model, d_mlp"),
        (["train", "--batch-size", "2000000000", "--length", "20"], "choose a smaller batch_size"),
        (["train", "--steps", "2147483647", "--eval-every", "9999999", "--d-mlp", "999999999"], "GB"),
        (["population", "--seeds", "2", "--width", "9999999", "--d-mlp", "9999"], "choose a smaller width"),
    ]  # fmt: skip
    for argv, phrase in tests:
        shape = ["--d-head", "2", "--n-heads", "1", "--engine", "xla"]
        outcome = run_cli(*argv, *shape, "--out", tmp_path / "out")
        assert outcome.status == 2
        assert phrase in outcome.err[-1]
        assert "needs at least" in outcome.err[-1]
        assert list(tmp_path.iterdir()) == []
