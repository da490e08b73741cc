from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from revinc import UserError, checksums, runs
from revinc.checksums import CHECKSUMS, EARLIER_CHECKSUMS, LONGEST_LINE
from revinc.json_records import MOST_BYTES
from revinc.runs import Run
from revinc.weights import read_safetensors, save_state_dict


@pytest.fixture
def run_folder(short_run, tmp_path):
    """A copy of a finished run, to damage."""
    return shutil.copytree(short_run.path, tmp_path / "run")


def edit_config(folder, edit):
    file = folder / runs.CONFIG
    record = json.loads(file.read_text())
    edit(record)
    file.write_text(json.dumps(record))


def test_a_finished_run_says_what_it_was(short_run):
    run = Run.load(short_run.path)
    assert run.finished
    assert run.config.steps == 300
    assert run.engine["name"] == "xla"
    assert {"numpy", "jax", "flax", "optax", "jax-revinc"} <= run.versions.keys()


def test_the_tables_of_a_finished_run(short_run):
    run = Run.load(str(short_run.path))
    assert run.metrics["step"].tolist() == [0, 100, 200, 300]
    assert run.losses["step"].tolist() == list(range(300))
    assert run.metrics[["train_accuracy", "holdout_accuracy"]].stack().between(0, 1).all()


def test_the_snapshots_are_the_first_the_last_and_those_asked_for(short_run):
    run = Run.load(short_run.path)
    assert run.snapshot_steps == [0, 150, 300]
    last, final = run.state_dict(300), run.state_dict()
    assert all(np.array_equal(last[name], final[name]) for name in final)
    with pytest.raises(UserError, match=r"no snapshot of step 7 \(it has: 0, 150, 300\)"):
        run.state_dict(7)


def test_an_unfinished_run_opens_but_has_no_results(run_folder):
    (run_folder / runs.WEIGHTS).unlink()
    run = Run.load(run_folder)
    assert not run.finished
    for read in (run.state_dict, lambda: run.metrics, lambda: run.losses):
        with pytest.raises(UserError, match="not finished"):
            read()
    assert run.state_dict(0).keys() == run.state_dict(150).keys()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"text"', "5", "null", "{}", '{"format_version": 1}', "\x00\xff"],
)
def test_a_damaged_config_is_named(run_folder, text):
    (run_folder / runs.CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json"):
        Run.load(run_folder)


@pytest.mark.parametrize("key", ["engine", "versions", "model", "task", "train"])
def test_a_config_without_one_of_its_parts_is_refused(run_folder, key):
    edit_config(run_folder, lambda record: record.pop(key))
    with pytest.raises(UserError, match=key):
        Run.load(run_folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(run_folder, version):
    edit_config(run_folder, lambda record: record.update(format_version=version))
    with pytest.raises(UserError, match=f"format version {version}"):
        Run.load(run_folder)


def test_a_config_with_an_impossible_value_is_refused(run_folder):
    edit_config(run_folder, lambda record: record["train"].update(lr=-1))
    with pytest.raises(UserError, match="lr must be"):
        Run.load(run_folder)


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{folder} is not a run folder"):
        Run.load(tmp_path / folder)


@pytest.mark.parametrize("name", [runs.METRICS, runs.LOSSES])
@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"PAR1")]
)
def test_a_damaged_table_is_named(run_folder, name, damage):
    damage(run_folder / name)
    table = {runs.METRICS: "metrics", runs.LOSSES: "losses"}[name]
    with pytest.raises(UserError, match=name):
        getattr(Run.load(run_folder), table)


def test_damaged_weights_are_named(run_folder):
    file = run_folder / runs.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"weights\.safetensors.*truncated"):
        Run.load(run_folder).state_dict()


# What changed since it was written


@pytest.fixture
def run(train):
    return train("run")


@pytest.fixture
def old_run(run):
    """As one that was made before there were checksums."""
    (run.path / CHECKSUMS).unlink()
    return run


def read_all(folder):
    """Everything that a finished run has."""
    run = Run.load(folder)
    return [run.metrics, run.losses, run.state_dict(), *map(run.state_dict, run.snapshot_steps)]


def swap(folder, name, other):
    (folder / name).rename(folder / "between")
    (folder / other).rename(folder / name)
    (folder / "between").rename(folder / other)


def flip(file, place=-3):
    content = bytearray(file.read_bytes())
    content[place] ^= 0x40
    file.write_bytes(content)


FIRST, LAST = "snapshots/000000.safetensors", "snapshots/000060.safetensors"
CHANGES = {
    "a bit of the weights": (lambda f: flip(f / runs.WEIGHTS), runs.WEIGHTS),
    "a bit of the metrics": (lambda f: flip(f / runs.METRICS, 60), runs.METRICS),
    "a bit of the losses": (lambda f: flip(f / runs.LOSSES, 60), runs.LOSSES),
    "a bit of a snapshot": (lambda f: flip(f / LAST), LAST),
    "cut weights": (lambda f: (f / runs.WEIGHTS).write_bytes(b"\x90"), runs.WEIGHTS),
    "no weights at all": (lambda f: (f / runs.WEIGHTS).write_bytes(b""), runs.WEIGHTS),
    "swapped snapshots": (lambda f: swap(f, FIRST, LAST), f"belongs in {LAST}"),
    "swapped tables": (lambda f: swap(f, runs.METRICS, runs.LOSSES), f"belongs in {runs.LOSSES}"),
    "a step beyond the last": (
        lambda f: shutil.copy(f / LAST, f / "snapshots/999999.safetensors"),
        "999999",
    ),
    "a step that was not kept": (
        lambda f: shutil.copy(f / LAST, f / "snapshots/000050.safetensors"),
        "does not list it",
    ),
    "an edited config": (
        lambda f: edit_config(f, lambda record: record["train"].update(lr=0.5)),
        "was edited",
    ),
    "another engine": (
        lambda f: edit_config(f, lambda record: record["engine"].update(platform="abacus")),
        "was edited",
    ),
    "no metrics": (lambda f: (f / runs.METRICS).unlink(), runs.METRICS),
}


@pytest.mark.parametrize("source", [CHECKSUMS, EARLIER_CHECKSUMS])
@pytest.mark.parametrize(("change", "phrase"), CHANGES.values(), ids=CHANGES)
def test_what_changed_since_it_was_written_is_named(
    run, change, phrase, source, refuses_in_one_line
):
    if source == EARLIER_CHECKSUMS:
        as_earlier(run.path)
    assert len(read_all(run.path)) == 7
    change(run.path)
    with refuses_in_one_line(UserError, run.path, phrase.replace("does not", f"{source} does not")):
        read_all(run.path)


DAMAGED_CHECKSUMS = {
    "cut": '{"form',
    "empty": "",
    "a list": "[]",
    "a list, on a line": "[]\n",
    "no version": "{}\n",
    "numbers": '{"format_version": 1, "recipe": "", "files": {"weights.safetensors": 5}}',
    "a number on a line": '{"format_version": 1, "recipe": ""}\n5\n',
    "a recipe that is none": '{"format_version": 1, "recipe": 5, "files": {}}\n',
    "a name that is none": '{"format_version": 1, "recipe": ""}\n{"file": 5, "bytes": 1, "sha256": ""}\n',
    "deep": "[" * 200_000,
    "deep, on a line": "[" * 200_000 + "\n",
}


@pytest.mark.parametrize("source", [CHECKSUMS, EARLIER_CHECKSUMS])
@pytest.mark.parametrize("text", DAMAGED_CHECKSUMS.values(), ids=DAMAGED_CHECKSUMS)
def test_damaged_checksums_are_named(run, source, text, refuses_in_one_line):
    if source == EARLIER_CHECKSUMS:
        as_earlier(run.path)
    (run.path / source).write_text(text)
    with refuses_in_one_line(UserError, run.path / source):
        read_all(run.path)


@pytest.mark.parametrize("source", [CHECKSUMS, EARLIER_CHECKSUMS])
@pytest.mark.parametrize("version", [0, 2, True, "1", None])
def test_checksums_of_another_format_version_are_refused(run, source, version, refuses_in_one_line):
    if source == EARLIER_CHECKSUMS:
        as_earlier(run.path)
    text = (run.path / source).read_text()
    changed = text.replace('"format_version": 1', f'"format_version": {json.dumps(version)}')
    (run.path / source).write_text(changed)
    with refuses_in_one_line(UserError, run.path / source, f"format version {version}"):
        read_all(run.path)


@pytest.mark.parametrize("name", [runs.WEIGHTS, runs.METRICS, FIRST, runs.CONFIG, CHECKSUMS])
def test_a_file_of_another_run_is_named(train, weights, name, refuses_in_one_line):
    run = train("run")
    weights["embed.W_E"] += 1
    other = train("other")
    edit_config(other.path, lambda record: record["train"].update(init_seed=1))
    edit_checksums(other.path)
    shutil.copy(other.path / name, run.path / name)
    with refuses_in_one_line(UserError, run.path):
        read_all(run.path)


def edit_checksums(folder):
    """Let them be those of the config, as of a run that has it."""
    record = json.loads((folder / runs.CONFIG).read_text())
    header, *entries = read_lines(folder / CHECKSUMS)
    header["recipe"] = runs.config_digest(record, record["engine"])
    write_lines(folder / CHECKSUMS, [header, *entries])


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_lines(file, records):
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def as_earlier(folder):
    """Let the checksums be kept as earlier versions kept them."""
    header, *entries = read_lines(folder / CHECKSUMS)
    files = {entry.pop("file"): entry for entry in entries}
    text = json.dumps({**header, "files": dict(sorted(files.items()))}, indent=2) + "\n"
    (folder / EARLIER_CHECKSUMS).write_text(text)
    (folder / CHECKSUMS).unlink()


def test_a_file_of_another_name_is_no_snapshot(run):
    for name in ("7", "0000060", "60", "-00001", "000_10", "\u0660" * 6, "1" * 5000):
        shutil.copy(run.path / LAST, run.path / f"snapshots/{name[:200]}.safetensors")
    assert Run.load(run.path).snapshot_steps == [0, 10, 40, 60]


def test_an_unfinished_run_whose_file_was_never_written_is_no_damaged_one(train, tmp_path):
    """Killed after a checksum was written, and before its file was."""
    run = train("run")
    for name in (runs.WEIGHTS, runs.METRICS, LAST):
        (run.path / name).unlink()
    assert Run.load(run.path).snapshot_steps == [0, 10, 40]
    train("run", resume=True)
    read_all(run.path)


def test_checksums_hold_for_every_file_of_results(run):
    header, *entries = read_lines(run.path / CHECKSUMS)
    assert header == {"format_version": 1, "recipe": run.recipe}
    names = [entry["file"] for entry in entries]
    results = {str(file.relative_to(run.path)) for file in run.path.rglob("*.*") if file.is_file()}
    assert set(names) == results - {runs.CONFIG, CHECKSUMS, ".lock"}
    assert len(names) == len(set(names))


def test_checksums_of_an_earlier_version_hold_for_the_same_files(run):
    answer = read_all(run.path)
    as_earlier(run.path)
    assert {str(found) for found in read_all(run.path)} == {str(found) for found in answer}


def test_a_line_of_checksums_that_was_cut_short_is_ignored(run):
    """Killed while it was appended: its file was not written."""
    file = run.path / CHECKSUMS
    whole = file.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for n_bytes in range(len(last)):
        file.write_bytes(whole + last[:n_bytes])
        assert len(read_all(run.path)) == 7


def test_a_later_line_of_checksums_replaces_an_earlier_one(run, refuses_in_one_line):
    header, *entries = read_lines(run.path / CHECKSUMS)
    wrong = [{**entry, "sha256": "0" * 64} for entry in entries]
    write_lines(run.path / CHECKSUMS, [header, *wrong, *entries])
    assert len(read_all(run.path)) == 7
    write_lines(run.path / CHECKSUMS, [header, *entries, *wrong])
    with refuses_in_one_line(UserError, run.path, "damaged"):
        read_all(run.path)


def test_an_open_run_sees_what_is_written_later(train, tmp_path, refuses_in_one_line):
    from revinc.trainer import Interrupted

    from .conftest import Stopping

    with pytest.raises(Interrupted):
        train("run", reporter=Stopping(20, KeyboardInterrupt()))
    run = Run.load(tmp_path / "run")
    assert run.snapshot_steps == [0, 10]
    train("run", resume=True)
    assert run.state_dict().keys() == run.state_dict(40).keys()
    flip(run.path / LAST)
    with refuses_in_one_line(UserError, run.path / LAST, CHECKSUMS):
        run.state_dict(60)


def test_a_run_of_hundreds_of_thousands_of_files_opens(run, refuses_in_one_line):
    header, *entries = read_lines(run.path / CHECKSUMS)
    many = [
        {"file": runs.weights_name(step), "bytes": 1, "sha256": "0" * 64}
        for step in range(1000, 201_000)
    ]
    write_lines(run.path / CHECKSUMS, [header, *many, *entries])
    assert (run.path / CHECKSUMS).stat().st_size > MOST_BYTES
    assert len(read_all(run.path)) == 7


def test_checksums_beyond_any_run_are_refused(run, monkeypatch, refuses_in_one_line):
    file = run.path / CHECKSUMS
    n_lines = len(read_lines(file))
    monkeypatch.setattr(checksums, "MOST_LINES", n_lines)
    assert len(read_all(run.path)) == 7
    monkeypatch.setattr(checksums, "MOST_LINES", n_lines - 1)
    with refuses_in_one_line(UserError, file, f"more than {n_lines - 1} lines"):
        read_all(run.path)
    monkeypatch.undo()
    for end in ("", "\n"):
        file.write_text(file.read_text() + " " * LONGEST_LINE + end)
        with refuses_in_one_line(UserError, file, f"longer than {LONGEST_LINE} bytes"):
            read_all(run.path)


def test_the_longest_line_of_checksums_is_short_enough():
    name = runs.weights_name(10**19 - 1)
    longest = {"file": name, "bytes": 2**63, "sha256": "0" * 64}
    assert len(json.dumps(longest)) < LONGEST_LINE


def test_a_run_without_checksums_opens(old_run):
    assert len(read_all(old_run.path)) == 7


def with_column(name, change):
    """Replaces the table of a run by another."""

    def damage(folder):
        table = pd.read_parquet(folder / name)
        change(table).to_parquet(folder / name)

    return damage


def save_with(name, value):
    def damage(folder):
        weights = read_safetensors(folder / runs.WEIGHTS)
        weights[name] = value
        save_state_dict(folder / runs.WEIGHTS, weights)

    return damage


UNCHECKED = {
    "swapped tables": (lambda f: swap(f, runs.METRICS, runs.LOSSES), "columns"),
    "a column too many": (with_column(runs.METRICS, lambda t: t.assign(more=0.0)), "columns"),
    "a column renamed": (
        with_column(runs.LOSSES, lambda t: t.rename(columns={"loss": "x"})),
        "colu",
    ),
    "texts": (with_column(runs.LOSSES, lambda t: t.astype({"loss": str})), "numbers"),
    "integers": (with_column(runs.LOSSES, lambda t: t.astype({"loss": int})), "numbers"),
    "float32": (with_column(runs.LOSSES, lambda t: t.astype({"loss": "float32"})), "numbers"),
    "lists": (with_column(runs.LOSSES, lambda t: t.assign(loss=[[1.0]] * 60)), "numbers"),
    "a row too few": (with_column(runs.METRICS, lambda t: t[1:]), "3 rows instead of 4"),
    "a loss too few": (with_column(runs.LOSSES, lambda t: t[:-1]), "59 rows instead of 60"),
    "other steps": (
        with_column(runs.LOSSES, lambda t: t.assign(step=t.step + 1)),
        "steps are not those",
    ),
    "NaN": (with_column(runs.LOSSES, lambda t: t.assign(loss=t.loss.where(t.step != 3))), "NaN"),
    "no table": (lambda f: (f / runs.METRICS).write_bytes(b"PAR1" * 3), runs.METRICS),
    "an empty table": (lambda f: (f / runs.METRICS).write_bytes(b""), runs.METRICS),
    "half a table": (
        lambda f: (f / runs.METRICS).write_bytes((f / runs.METRICS).read_bytes()[:900]),
        runs.METRICS,
    ),
    "NaN weights": (
        save_with("unembed.W_U", np.full((4, 5), np.nan)),
        "unembed.W_U holds 20 values that are NaN or infinite",
    ),
    "weights of integers": (save_with("unembed.W_U", np.ones((4, 5), int)), "not floats"),
    "a step beyond": (
        lambda f: shutil.copy(f / LAST, f / "snapshots/999999.safetensors"),
        "has 60 steps",
    ),
}


@pytest.mark.parametrize(("change", "phrase"), UNCHECKED.values(), ids=UNCHECKED)
def test_what_contradicts_the_config_is_named_without_checksums_too(
    old_run, change, phrase, refuses_in_one_line
):
    change(old_run.path)
    with refuses_in_one_line(UserError, old_run.path, phrase):
        read_all(old_run.path)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 24))
def test_a_flipped_bit_anywhere_in_an_unchecked_table_is_no_traceback(old_run, share):
    file = old_run.path / runs.LOSSES
    flip(file, int(share * file.stat().st_size))
    try:
        assert list(Run.load(old_run.path).losses) == ["step", "loss"]
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_an_old_run_is_resumed_without_checksums(train, tmp_path, monkeypatch):
    from revinc.trainer import Interrupted

    from .conftest import Stopping

    whole = train("whole")
    with pytest.raises(Interrupted):
        train("run", reporter=Stopping(20, KeyboardInterrupt()))
    (tmp_path / "run" / CHECKSUMS).unlink()
    run = train("run", resume=True)
    assert not (run.path / CHECKSUMS).exists()
    assert run.metrics.equals(whole.metrics)


def test_a_run_of_an_earlier_version_is_resumed_with_its_checksums(train, tmp_path):
    from revinc.trainer import Interrupted

    from .conftest import Stopping

    whole = train("whole")
    with pytest.raises(Interrupted):
        train("run", reporter=Stopping(20, KeyboardInterrupt()))
    as_earlier(tmp_path / "run")
    run = train("run", resume=True)
    assert not (run.path / EARLIER_CHECKSUMS).exists()
    assert run.metrics.equals(whole.metrics)
    assert len(read_all(run.path)) == 7
    assert (run.path / CHECKSUMS).read_bytes() == (whole.path / CHECKSUMS).read_bytes()


def test_the_journal_wins_over_the_checksums_of_an_earlier_version(run, refuses_in_one_line):
    """A resume was killed before it deleted the earlier file, which holds less."""
    (run.path / EARLIER_CHECKSUMS).write_text('{"format_version": 1, "recipe": "", "files": {}}')
    assert len(read_all(run.path)) == 7
    flip(run.path / runs.WEIGHTS)
    with refuses_in_one_line(UserError, run.path / runs.WEIGHTS, CHECKSUMS):
        read_all(run.path)


@pytest.mark.parametrize("engine", [None, 5, [], {}, {"name": 5}, {"platform": "cpu"}, "xla"])
def test_an_engine_that_is_none_is_refused(run_folder, engine):
    edit_config(run_folder, lambda record: record.update(engine=engine))
    with pytest.raises(UserError, match="engine"):
        Run.load(run_folder)


@pytest.mark.parametrize("versions", [None, [], {"jax": 5}, 3])
def test_versions_that_are_none_are_refused(run_folder, versions):
    edit_config(run_folder, lambda record: record.update(versions=versions))
    with pytest.raises(UserError, match="versions"):
        Run.load(run_folder)


def test_a_step_is_any_integer_and_no_fraction(train, weights):
    run = train("run")
    for step in (np.int64(10), np.array(10)):
        assert run.state_dict(step).keys() == weights.keys()
    for step in (10.0, 1.5, "10", True, [10]):
        with pytest.raises(UserError, match="step must be an integer"):
            run.state_dict(step)


def test_a_run_prints_what_differs_from_a_preset(short_run):
    assert repr(short_run) == (
        f"Run({str(short_run.path)!r}: preset tutorial, with steps=300, snapshots=(150,); "
        "engine xla; 300 steps, finished)"
    )
