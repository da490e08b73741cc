"""``inspect`` and ``report``: what they print of a run, and what they refuse."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from jax_revinc import Run, TrainConfig, evaluate, train
from jax_revinc.__main__ import make_parser
from jax_revinc.analysis.attention import attention_patterns, reversal_score
from jax_revinc.analysis.circuits import direct_path, ov_circuit
from jax_revinc.analysis.claims import claims
from jax_revinc.analysis.effects import ablation_costs, recovery
from jax_revinc.analysis.terminal_tables import TABLES
from revinc.command_errors import run_command
from revinc.dataset import make_dataset
from revinc.number_format import percentage
from revinc.tasks import reading_cells


@pytest.fixture
def inspect(short_run, capsys, monkeypatch):
    """A function that inspects the short run with flags: its exit status, its output, its errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*flags, command="inspect", folder=short_run.path):
        status = run_command(make_parser(), [command, str(folder), *map(str, flags)])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", ["inspect", "report"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_that_something_goes_on(inspect, monkeypatch, command, terminal):
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    status, printed, _ = inspect(command=command)
    assert status == 0
    said = {"inspect": "Looking into the model ...", "report": "Writing the page ..."}[command]
    assert (said in printed) == terminal


def numbers(line):
    """The numbers of a row: the words after its label that are decimals."""
    words = [word.rstrip("*") for word in line.split()]
    return [float(word) for word in words if word.lstrip("-").replace(".", "", 1).isdigit()]


def rows_below(printed, title, n_rows):
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == title)
    return np.array([numbers(line) for line in lines[start + 2 : start + 2 + n_rows]])


def test_it_prints_the_patterns_outputs_and_weights_of_the_first_holdout_sample(inspect, short_run):
    status, printed, _ = inspect()
    assert status == 0

    dataset = make_dataset(short_run.config)
    sample = dataset.tokens[dataset.holdout_rows[0]]
    model = short_run.model()
    _, cache = model.run_with_cache(sample[None, :-1])
    assert printed.strip().startswith("BOS x0=3 x1=0 x2=2 x3=0 y0=1 y1=3 y2=1  predicts  y0=")
    for layer in (0, 1):
        shown = rows_below(printed, f"blocks.{layer}.attn.hook_pattern, head 0", 8)
        np.testing.assert_allclose(shown, cache["pattern", layer][0, 0], atol=5.1e-4)
        shown = rows_below(printed, f"blocks.{layer}.hook_mlp_out", 8)
        np.testing.assert_allclose(shown, cache["mlp_out", layer][0], atol=5.1e-4)
        shown = rows_below(printed, f"blocks.{layer}.mlp.W_in", 4)[:, 1:]
        np.testing.assert_allclose(shown, np.asarray(model.blocks[layer].mlp.W_in), atol=5.1e-4)


def test_predicting_rows_name_what_they_predict(inspect):
    _, printed, _ = inspect("--layer", 0)
    lines = printed.splitlines()
    start = lines.index(next(line for line in lines if "hook_pattern" in line))
    last_words = [line.split()[-1] for line in lines[start + 2 : start + 10]]
    assert last_words[4:] == ["y0", "y1", "y2", "y3"]
    assert last_words[3] == "0.000"


def test_a_star_marks_what_each_predicting_row_should_attend_to(inspect):
    _, printed, _ = inspect("--layer", 0)
    lines = printed.splitlines()
    start = lines.index(next(line for line in lines if "hook_pattern" in line))
    starred = [
        [i for i, word in enumerate(line.split()[1:]) if word.endswith("*")]
        for line in lines[start + 2 : start + 10]
    ]
    assert starred == [[], [], [], [], [4], [3], [2], [1]]
    assert "* the position of the token that decides the answer" in lines


def test_a_wrong_prediction_is_named_beside_the_right_token(inspect, short_run):
    dataset = make_dataset(short_run.config)
    sequences = dataset.tokens[dataset.holdout_rows]
    predicted = np.asarray(short_run.model()(sequences[:, :-1])).argmax(-1)[:, 4:]
    sample = int(np.flatnonzero((predicted != sequences[:, 5:]).any(1))[0])
    _, printed, _ = inspect("--sample", sample, "--hook", "hook_embed")
    for i, (was, should) in enumerate(zip(predicted[sample], sequences[sample, 5:], strict=True)):
        assert f"y{i}={was}" in printed
        assert (f"y{i}={was} (right: {should})" in printed) == (was != should)


def test_own_predictions_are_counted_too(inspect, short_run):
    _, printed, _ = inspect()
    model, task = short_run.model(), short_run.config.task
    own = evaluate(model, task, free_running=True).accuracy
    assert f"fed the right tokens: {percentage(evaluate(model, task).accuracy)}" in printed
    assert f"fed its own predictions: {percentage(own)}" in printed


def test_tables_come_without_activations_unless_these_are_chosen(inspect):
    _, printed, _ = inspect("--tables", "attribution")
    assert "hook_pattern" not in printed
    assert "W_in" not in printed
    _, printed, _ = inspect("--tables", "attribution", "--layer", 0)
    assert "blocks.0.attn.hook_pattern" in printed
    assert "attribution" in printed


def test_layers_and_samples_can_be_chosen(inspect):
    _, printed, _ = inspect("--layer", 1, "--sample", 2, 5)
    assert "blocks.0" not in printed
    assert printed.count("blocks.1.attn.hook_pattern, head 0") == 2
    assert "x2=2 x3=2" in printed
    assert "x2=3 x3=1" in printed


def test_any_activation_of_any_tokens_can_be_printed(inspect, short_run):
    _, printed, _ = inspect("--tokens", 4, 0, 1, "--hook", "blocks.1.attn.hook_q")
    _, cache = short_run.model().run_with_cache(np.array([[4, 0, 1]]))
    shown = rows_below(printed, "blocks.1.attn.hook_q, head 0", 3)
    np.testing.assert_allclose(shown, cache["q", 1][0, :, 0], atol=5.1e-4)
    assert "pattern" not in printed


def test_a_snapshot_can_be_inspected(inspect):
    assert inspect("--step", 150)[1] != inspect()[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--hook", "blocks.0.hook_pattern"],
            "the model has no hook 'blocks.0.hook_pattern'; did you mean",
        ),
        (["--tokens", 4, 0, 9], "token ids must lie in 0..4 (d_vocab=5); found 9"),
        (["--tokens", 4, -1], "token ids must lie in 0..4 (d_vocab=5); found -1"),
        (["--tokens", *[0] * 10], "sequences of 10 tokens are longer than n_ctx=9"),
        (["--layer", 2], "layer 2 does not exist; choose one of 0..1"),
        (["--head", 1], "head 1 does not exist; choose one of 0..0"),
        (["--sample", 56], "holdout sample 56 does not exist; choose one of 0..55"),
        (["--step", 100], "has no snapshot of step 100 (it has: 0, 150, 300)"),
    ],
)
def test_bad_input_gets_one_sentence(inspect, flags, message):
    status, _, error = inspect(*flags)
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["inspect", "report"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "unfinished"])
def test_a_damaged_run_gets_one_sentence(inspect, short_run, tmp_path, command, damage):
    copy = tmp_path / "copy"
    shutil.copytree(short_run.path, copy)
    weights = copy / "weights.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "foreign":
        weights.write_bytes(b"\x80\x04\x95 a pickle, perhaps")
    elif damage == "unfinished":
        weights.unlink()
    folder = tmp_path / "nowhere" if damage == "missing" else copy
    status, _, error = inspect(command=command, folder=folder)
    assert status == 2
    assert error.count("\n") == 1
    assert str(folder) in error


def test_attention_only_models_have_no_mlp_to_print(inspect, tmp_path):
    cfg = TrainConfig(steps=5, model=TrainConfig().model.replace(attn_only=True))
    run = train(cfg, tmp_path / "run")
    status, printed, _ = inspect(folder=run.path)
    assert status == 0
    assert "mlp" not in printed


def test_report_writes_the_page_anew(inspect, short_run):
    (short_run.path / "report.html").unlink(missing_ok=True)
    status, printed, _ = inspect(command="report")
    assert status == 0
    assert str(short_run.path / "report.html") in printed
    assert (Run.load(short_run.path).path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize(
    "flags",
    [
        ["--tokens", 4, 1, "--sample", 1],
        ["--hook", "hook_embed", "--layer", 1],
    ],
)
def test_flags_that_exclude_each_other_are_refused(inspect, flags, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect(*flags)
    assert stop.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_heads_of_an_activation_without_heads_are_refused(inspect):
    status, _, error = inspect("--hook", "hook_embed", "--head", 0)
    assert status == 2
    assert "hook_embed has no heads to choose from" in error
    assert inspect("--head", 0)[0] == 0


@pytest.fixture(scope="module")
def evidence(short_run):
    """The model and the task of the short run."""
    return short_run.model(), short_run.config.task


def test_the_claims_are_printed_by_default(inspect, evidence):
    _, printed, _ = inspect()
    model, task = evidence
    for sentence in claims(model, task).sentences(model.cfg):
        assert sentence in printed
    assert "L1H0" in printed


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_printed_alone(inspect, table):
    status, printed, _ = inspect("--layer", 0, "--tables", table)
    assert status == 0
    lines = printed.splitlines()
    assert [name for name in TABLES if name in map(str.strip, lines)] == [table]
    assert len(lines[lines.index(table) :]) > 5


def test_no_tables_are_printed_if_none_are_asked_for(inspect):
    _, printed, _ = inspect("--tables")
    assert not set(TABLES) & set(map(str.strip, printed.splitlines()))


def test_attention_is_told_by_predicting_row(inspect, evidence):
    model, task = evidence
    _, printed, _ = inspect("--tables", "attention")
    score = reversal_score(attention_patterns(model, task.sequences()[:, :-1]), reading_cells(task))
    for layer in (0, 1):
        lines = printed.splitlines()
        start = next(
            i for i, x in enumerate(lines) if f"layer {layer}, head 0: where it looks" in x
        )
        on_needed = [numbers(line)[-1] for line in lines[start + 2 : start + 6]]
        np.testing.assert_allclose(on_needed, score.attention[layer, 0], atol=5.1e-4)


def test_circuits_and_patching_and_ablation_are_the_analysis(inspect, evidence):
    model, task = evidence
    _, printed, _ = inspect("--tables", "circuits", "patching", "ablation")
    shown = rows_below(printed, "OV of L1H0: token to logits", 4)[:, 1:]
    np.testing.assert_allclose(shown, ov_circuit(model)[1, 0, :4], atol=5.1e-4)
    shown = rows_below(printed, "direct path: token to logits", 4)[:, 1:]
    np.testing.assert_allclose(shown, direct_path(model)[:4], atol=5.1e-4)
    shown = rows_below(printed, "patching resid_pre: share of the answers that comes back", 2)
    np.testing.assert_allclose(shown[:, 1:], recovery(model, task)["resid_pre"], atol=5.1e-4)
    *_, line = (x for x in printed.splitlines() if x.strip().startswith("blocks.1.hook_mlp_out"))
    costs = ablation_costs(model, task)["accuracy_change"].sort_index()
    expected = [
        costs[method, "MLP", "blocks.1.hook_mlp_out"].item()
        for method in ("zero", "mean", "resample")
    ]
    np.testing.assert_allclose(numbers(line), expected, atol=5.1e-4)


def test_a_table_that_does_not_exist_is_refused(inspect):
    with pytest.raises(SystemExit, match="2"):
        inspect("--tables", "weights")
