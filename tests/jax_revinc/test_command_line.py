from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hostile_task import SHOWN, Hostile
from safetensors.numpy import load_file, save_file

from jax_revinc import Run, TrainConfig, train
from revinc import runs
from revinc.checksums import CHECKSUMS
from revinc.printable_text import printable


@pytest.fixture
def run_folder(short_run, tmp_path):
    """A copy of a finished run, to resume, damage or replace."""
    return shutil.copytree(short_run.path, tmp_path / "copy")


def files_below(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_one_sentence(outcome, *phrases, status=2):
    assert outcome.status == status
    assert len(outcome.err) == 1
    assert outcome.err[0].startswith("jax-revinc: ")
    assert "Traceback" not in outcome.err[0]
    for phrase in phrases:
        assert str(phrase) in outcome.err[0]


BAD_VALUES = [
    ("--steps 0", "steps must be at least 1, not 0"),
    ("--steps -5", "steps must be at least 1"),
    ("--batch-size 0", "batch_size must be at least 1"),
    ("--batch-size 201", "batch_size=201 is larger than the training split of 200"),
    ("--batch-size 16 --length 1", "batch_size=16 is larger"),
    ("--eval-every 0", "eval_every must be at least 1"),
    ("--lr -1", "lr must be"),
    ("--lr nan", "lr must be"),
    ("--lr inf", "lr must be"),
    ("--lr 1e400", "lr must be"),
    ("--weight-decay -0.1", "weight_decay must be"),
    ("--b1 1", "b1 must be"),
    ("--b2 1.5", "b2 must be"),
    ("--adam-eps nan", "adam_eps must be"),
    ("--optimizer adamm", "did you mean adam"),
    ("--optimizer sgd", "optimizer='sgd' takes no weight_decay (it takes lr, momentum)"),
    ("--momentum 0.9", "optimizer='adamw' takes no momentum"),
    ("--warmup-steps 4000", "warmup_steps=4000 leaves no update"),
    ("--clip-grad-norm 0", "clip_grad_norm must be a finite number above 0"),
    ("--label-smoothing 1", "label_smoothing must be"),
    ("--loss-on answers", "unknown loss_on 'answers'; choose from task, all"),
    (
        "--log tensorbord",
        "unknown log 'tensorbord'; choose from tensorboard, wandb; did you mean tensorboard?",
    ),
    ("--train-fraction 0", "train_fraction must be"),
    ("--train-fraction 1", "train_fraction must be"),
    ("--train-fraction 0.001", "train_fraction=0.001 leaves 0 of 256"),
    ("--split sufix", "unknown split 'sufix'; choose from prefix, random"),
    ("--seed -1", "seed must be at least 0"),
    ("--init-seed 4294967296", "init_seed must be below 2**32"),
    ("--snapshots 4001", "snapshots: step 4001"),
    ("--snapshots every:0", "snapshots: 'every:0'"),
    ("--snapshots ten", "snapshots: 'ten'"),
    ("--snapshots ²", "snapshots: '²'"),
    ("--snapshots -1", "snapshots: '-1'"),
    (
        "--preset tutorail",
        "unknown preset 'tutorail'; choose from tutorial, reliable, grokking; did you mean tutorial?",
    ),
    ("--task reverse", "unknown task 'reverse'; choose from reverse_increment, "),
    ("--length 0", "length must be at least 1"),
    ("--length 1025", "length must be at most 1024"),
    ("--length 20 --split random", "split='random' has no effect"),
    ("--length 20 --train-fraction 0.5", "train_fraction=0.5 has no effect"),
    ("--task copy --shift 2", "task copy has no field 'shift'; it has length, n_symbols"),
    ("--n-symbols 1", "n_symbols must be at least 2"),
    ("--n-symbols 99999999999999999999", "n_symbols must be at most 4096"),
    ("--n-layers 0", "n_layers must be at least 1"),
    ("--n-layers -2", "n_layers must be at least 1"),
    ("--d-model 0", "d_model must be at least 1"),
    ("--d-head 0", "d_head must be at least 1"),
    ("--n-heads 0", "n_heads must be at least 1"),
    ("--d-mlp 0", "d_mlp must be at least 1"),
    ("--n-ctx 7", "n_ctx=7 is shorter than the model's input, which is a sequence of 9 tokens"),
    ("--length 5 --n-ctx 9", "n_ctx=9 is shorter"),
    ("--d-vocab 4", "d_vocab=4 is smaller than the task's vocabulary of 5"),
    ("--d-vocab-out 3", "d_vocab_out=3 is smaller"),
    ("--act-fn swish", "unknown act_fn 'swish'; choose from relu, "),
    (
        "--normalization-type rms",
        "unknown normalization_type 'rms'; choose from LN, LNPre, RMS, RMSPre, None; did you mean RMS?",
    ),
    (
        "--dtype bfloat16",
        "unknown dtype 'bfloat16'; choose from float32, float64; did you mean float64 or float32?",
    ),
    ("--positional-embedding-type sinusoidal", "unknown positional_embedding_type 'sinusoidal'"),
    ("--rotary-dim 2", "rotary_dim=2 has no effect unless positional_embedding_type='rotary'"),
    (
        "--use-local-attn --window-size 2 --attn-types local",
        "attn_types, global or local for each of the 2 layers",
    ),
    ("--attention-dir both", "unknown attention_dir 'both'"),
    ("--init-mode kaiming", "unknown init_mode 'kaiming'"),
    ("--eps -1", "eps must be"),
    ("--initializer-range nan", "initializer_range must be"),
    ("--resume --overwrite", "exclude each other"),
]


@pytest.mark.parametrize(("flags", "phrase"), BAD_VALUES, ids=[flags for flags, _ in BAD_VALUES])
def test_bad_values_are_one_sentence_and_leave_nothing_behind(run_cli, tmp_path, flags, phrase):
    outcome = run_cli("train", "--out", tmp_path / "run", *flags.split())
    assert_one_sentence(outcome, phrase)
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        ("", "command"),
        ("tarin", "invalid choice: 'tarin'"),
        ("train", "--out"),
        ("train --out run --steps 1e3", "--steps: invalid int value: '1e3'"),
        ("train --out run --lr fast", "--lr: invalid float value: 'fast'"),
        ("train --out run --n-heads none", "--n-heads: invalid int value"),
        ("train --out run --learning-rate 1", "unrecognized arguments: --learning-rate 1"),
        ("train --out run --snapshots", "--snapshots: expected at least one argument"),
        ("train --out", "--out: expected one argument"),
        ("train --out run extra", "unrecognized arguments: extra"),
    ],
)
def test_flags_that_do_not_parse_show_their_usage(run_cli, tmp_path, monkeypatch, argv, phrase):
    monkeypatch.chdir(tmp_path)
    outcome = run_cli(*argv.split())
    assert outcome.status == 2
    assert outcome.err[0].startswith("usage: jax-revinc")
    assert phrase in outcome.err[-1]
    assert "Traceback" not in "".join(outcome.err)
    assert list(tmp_path.iterdir()) == []


def test_help_is_shown_for_every_command(run_cli):
    outcome = run_cli("--help")
    assert (outcome.status, outcome.err) == (0, [])
    commands = re.findall(r"^    (\w+) ", outcome.out, flags=re.MULTILINE)
    assert "train" in commands
    for command in commands:
        outcome = run_cli(command, "--help")
        assert (outcome.status, outcome.err) == (0, [])
        assert f"usage: jax-revinc {command}" in outcome.out


def test_train_writes_a_run_and_prints_the_tutorials_lines(run_cli, tmp_path, short_run):
    out = tmp_path / "run"
    outcome = run_cli("train", "--out", out, *["--steps", "300", "--snapshots", "150"])
    assert (outcome.status, outcome.err) == (0, [])
    run = Run.load(out)
    assert run.config == short_run.config
    assert run.metrics.equals(short_run.metrics)
    lines = re.findall(
        r"^Step +(\d+) \| Loss: (\d\.\d{4}) \| Train Acc: +([\d.]+)% \| Holdout Acc: +([\d.]+)%$",
        outcome.out,
        flags=re.MULTILINE,
    )
    assert [int(step) for step, *_ in lines] == [0, 100, 200, 300]
    assert [float(loss) for _, loss, *_ in lines] == run.metrics["train_loss"].round(4).tolist()
    assert "285" in outcome.out
    sequences = run.config.task.sequences()
    right = np.asarray(run.model()(sequences[:, :-1])).argmax(-1)[:, 4:] == sequences[:, 5:]
    assert f"Accuracy on all 256 sequences after 300 steps: {right.mean():.2%}" in outcome.out


def test_the_best_weights_can_be_kept_and_inspected(run_cli, tmp_path):
    out = tmp_path / "run"
    flags = ["--out", out, "--engine", "xla"]
    words = ["--steps", 300, "--eval-every", 10, "--lr", 0.3, "--keep", "best"]
    assert run_cli("train", *flags, *words).status == 0
    run = Run.load(out)
    assert 0 < run.best_step < 300
    assert run.snapshot_steps == [0, run.best_step, 300]
    printed = [run_cli("inspect", out, "--step", step).out for step in ("best", run.best_step, 300)]
    assert printed[0] == printed[1] != printed[2]
    assert run.model("best").state_dict()["embed.W_E"].tobytes() == (
        run.state_dict(run.best_step)["embed.W_E"].tobytes()
    )
    assert_one_sentence(run_cli("inspect", out, "--step", "5"), "no snapshot of step 5")
    assert run_cli("train", *flags, "--resume").status == 0


def test_a_run_is_not_replaced_unasked(run_cli, run_folder):
    before = files_below(run_folder)
    outcome = run_cli("train", "--out", run_folder, "--steps", 5)
    assert_one_sentence(outcome, run_folder, "--resume", "--overwrite")
    assert files_below(run_folder) == before


def test_overwrite_replaces_a_run(run_cli, run_folder):
    assert run_cli("train", "--out", run_folder, "--steps", 100, "--overwrite").status == 0
    assert Run.load(run_folder).snapshot_steps == [0, 100]


def test_overwrite_deletes_nothing_of_a_folder_that_is_no_run(run_cli, tmp_path, monkeypatch):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    # It is refused before anything is built.
    monkeypatch.setattr("jax_revinc.training.choose_engine", pytest.fail)
    outcome = run_cli("train", "--out", folder, "--overwrite")
    assert_one_sentence(outcome, folder)
    assert [file.name for file in files_below(folder)] == ["thesis.tex"]


def test_overwrite_by_bad_values_deletes_nothing(run_cli, run_folder):
    before = files_below(run_folder)
    assert_one_sentence(run_cli("train", "--out", run_folder, "--overwrite", "--lr", "-1"), "lr")
    assert files_below(run_folder) == before


@pytest.mark.parametrize("flag", [None, "--resume", "--overwrite"])
def test_a_file_is_no_run_folder(run_cli, tmp_path, flag):
    (tmp_path / "file").write_text("mine")
    outcome = run_cli("train", "--out", tmp_path / "file", *([flag] if flag else []))
    assert_one_sentence(outcome, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("out", ["/dev/null/run", "/proc/run"])
def test_a_folder_that_cannot_be_made_is_one_sentence(run_cli, out):
    assert_one_sentence(run_cli("train", "--out", out), out)


def test_resume_with_other_values_names_them(run_cli, run_folder):
    before = files_below(run_folder)
    outcome = run_cli("train", "--out", run_folder, *["--resume", "--lr", "0.5", "--seed", "3"])
    assert_one_sentence(
        outcome, "lr: 0.01 here, 0.5 there", "init_seed: 0 here, 3 there", "data_seed"
    )
    assert files_below(run_folder) == before


def edit_config(folder, edit):
    record = json.loads((folder / runs.CONFIG).read_text())
    edit(record)
    (folder / runs.CONFIG).write_text(json.dumps(record))


def test_resume_under_another_engine_is_refused(run_cli, run_folder):
    edit_config(run_folder, lambda record: record["engine"].update(platform="abacus"))
    (run_folder / CHECKSUMS).unlink()  # they know of no other engine
    (run_folder / runs.WEIGHTS).unlink()
    before = files_below(run_folder)
    assert_one_sentence(run_cli("train", "--out", run_folder, "--resume"), "abacus", "xla")
    assert files_below(run_folder) == before


DAMAGES = {
    "empty config": lambda folder: (folder / runs.CONFIG).write_text(""),
    "cut config": lambda folder: (folder / runs.CONFIG).write_text('{"format_version": 1, "eng'),
    "list": lambda folder: (folder / runs.CONFIG).write_text("[]"),
    "format": lambda folder: edit_config(folder, lambda r: r.update(format_version=99)),
    "no engine": lambda folder: edit_config(folder, lambda r: r.pop("engine")),
    "no task": lambda folder: edit_config(folder, lambda r: r.pop("task")),
    "empty task": lambda folder: edit_config(folder, lambda r: r.update(task={})),
    "null model": lambda folder: edit_config(folder, lambda r: r.update(model=None)),
    "bad value": lambda folder: edit_config(folder, lambda r: r["train"].update(lr="fast")),
    "unknown field": lambda folder: edit_config(folder, lambda r: r["model"].update(d_foo=1)),
    "cut checkpoint": lambda folder: (folder / runs.CHECKPOINT).write_bytes(b"\x90\x01"),
    "foreign checkpoint": lambda folder: shutil.copy(
        runs.snapshot_path(folder, 0), folder / runs.CHECKPOINT
    ),
    "no first weights": lambda folder: runs.snapshot_path(folder, 0).unlink(),
    "cut first weights": lambda folder: runs.snapshot_path(folder, 0).write_bytes(b"\x90"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_resume_of_a_damaged_run_is_one_sentence(run_cli, run_folder, damage):
    (run_folder / runs.WEIGHTS).unlink()
    damage(run_folder)
    before = files_below(run_folder)
    assert_one_sentence(run_cli("train", "--out", run_folder, "--resume"))
    assert files_below(run_folder) == before


@pytest.mark.parametrize(
    ("flags", "first_bad_step"),
    [("--lr 1e30", 1), ("--initializer-range 1e38", 0)],
)
def test_a_diverged_run_says_at_which_step_and_keeps_finite_weights(
    run_cli, tmp_path, flags, first_bad_step
):
    out = tmp_path / "run"
    outcome = run_cli(
        "train", "--out", out, *["--steps", "200", "--eval-every", "50"], *flags.split()
    )
    assert_one_sentence(outcome, f"at step {first_bad_step} ", "lr=", status=1)
    run = Run.load(out)
    assert not run.finished
    last = run.snapshot_steps[-1]
    assert f"of step {last}," in outcome.err[0]
    assert all(np.isfinite(w).all() for w in run.model(last).state_dict().values())
    again = run_cli("train", "--out", out, "--resume")
    assert (again.status, again.err) == (1, outcome.err)


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        (["train", "--out", "run", "--lr", "nan"], "lr must be"),
        (["train", "--steps", "1"], "--out"),
    ],
)
def test_a_real_process_reports_as_well(tmp_path, argv, phrase):
    process = subprocess.run(
        [sys.executable, "-m", "jax_revinc", *argv], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert phrase in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A short run whose folder, task and vocabulary hold markup, escapes and HTML."""
    folder = tmp_path_factory.mktemp("odd") / "<script>x[red]\x1b[31m\n\u202e"
    cfg = replace(
        TrainConfig(),
        model=TrainConfig().model.replace(d_vocab=5, d_vocab_out=5, n_ctx=3),
        task=Hostile(),
        split="random",
        batch_size=4,
        steps=20,
    )
    return train(cfg, folder, engine="xla")


def assert_text(printed):
    """That no terminal obeys what was printed."""
    assert printed
    assert [line for line in printed.splitlines() if printable(line) != line] == []


def test_odd_words_are_inspected_as_text(run_cli, odd_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    outcome = run_cli("inspect", odd_run.path, "--tables", "claims", "circuits")
    assert (outcome.status, outcome.err) == (0, [])
    assert_text(outcome.out)
    for word in SHOWN:
        assert word in outcome.out


def test_odd_names_are_said_as_text(run_cli, odd_run):
    again = run_cli("train", "--out", odd_run.path)
    assert_one_sentence(again, printable(odd_run.path), "--resume")
    resumed = run_cli("train", "--resume", "--out", odd_run.path, "--engine", "xla")
    assert (resumed.status, resumed.err) == (0, [])
    assert f"Page to open: {printable(odd_run.path)}/report.html\n" in resumed.out
    assert_text(resumed.out)


def test_the_page_shows_odd_names_as_text(run_cli, odd_run):
    reported = run_cli("report", odd_run.path)
    assert reported.out == f"Page to open: {printable(odd_run.path)}/report.html\n"
    page = (odd_run.path / "report.html").read_text(encoding="utf-8")
    assert [tag for tag in ("<script>alert", "<img src=x") if tag in page] == []
    assert_text(re.sub("<script.*?</script>", "", page, flags=re.DOTALL).replace("\t", " "))
    run_name = r"&lt;script&gt;x[red]\x1b[31m\n\u202e"
    title = r"[red]&lt;b&gt;title\u2066"
    assert [words for words in (run_name, title) if words not in page] == []
    figures = json.loads(re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL)[1])
    (drawn,) = figures["pictures"]["direct"]["figure"]["data"]
    assert drawn["x"] == [word.replace("<", "&lt;").replace(">", "&gt;") for word in SHOWN]


def test_a_tensor_with_an_odd_name_is_named_as_text(run_cli, run_folder):
    weights = load_file(run_folder / runs.WEIGHTS)
    save_file(weights | {"\x1b]0;owned\x07\n[/b]": np.zeros(1)}, run_folder / runs.WEIGHTS)
    outcome = run_cli("inspect", run_folder)
    assert_one_sentence(outcome)
    assert_text(outcome.err[0])


def test_a_path_that_is_not_utf8_is_trained_in_and_looked_into(run_cli, tmp_path):
    folder = tmp_path / "n\udcffx"
    outcome = run_cli("train", "--out", folder, "--steps", 20, "--engine", "xla")
    assert (outcome.status, outcome.err) == (0, [])
    assert r"n\xffx/report.html" in outcome.out
    assert run_cli("report", folder).status == 0
    assert "n\\xffx" in (folder / runs.REPORT).read_text(encoding="utf-8")
