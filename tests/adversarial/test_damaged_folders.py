"""Hundreds of damages to runs and stores: each ends in one sentence, or in the answer of the undamaged folder.

``pytest -m slow tests/adversarial -s`` counts them by kind and outcome.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import traceback
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from damages import damages
from hypothesis import HealthCheck, given, settings

from revinc.runs import step_of

pytestmark = pytest.mark.slow

QUICKLY = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

MEMORY = 6 * 2**30
"""Bytes that reading a damaged file may ask for beside what the process has: a few times what is there."""


@pytest.fixture(scope="module", autouse=True)
def limited_memory():
    """What would exhaust the machine is a MemoryError here, and so a failure."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("run") / "a", seed=0)


@pytest.fixture(scope="module")
def another_run(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("run") / "b", seed=1)


@pytest.fixture(scope="module")
def a_store(tmp_path_factory):
    return train_few(tmp_path_factory.mktemp("store") / "a", first_seed=0)


@pytest.fixture(scope="module")
def another_store(tmp_path_factory):
    return train_few(tmp_path_factory.mktemp("store") / "b", first_seed=6)


def tiny_config():
    from jax_revinc import PRESETS

    tutorial = PRESETS["tutorial"]
    model = tutorial.model.replace(n_layers=1)
    return dataclasses.replace(tutorial, model=model, steps=20, eval_every=10, snapshots=(10,))


def train_tiny(folder, seed):
    from jax_revinc import train

    return train(tiny_config().with_seed(seed), folder, engine="xla").path


def train_few(folder, first_seed):
    from jax_revinc.population.training import train_population
    from revinc.sweep import sweep

    cfg = dataclasses.replace(tiny_config(), snapshots=())
    seeds = list(range(first_seed, first_seed + 6))
    train_population(cfg, sweep(cfg, {}, seeds), folder, engine="xla", width=4)
    return folder


def command(make_parser, *argv):
    """Exit status and what was printed, of a command that runs in this process."""
    from revinc.command_errors import run_command

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = run_command(make_parser(), list(map(str, argv)))
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def jax_command(*argv):
    from jax_revinc.__main__ import make_parser

    return command(make_parser, *argv)


def parity_command(*argv):
    from parity.__main__ import make_parser

    return command(make_parser, *argv)


def torch_command(*argv):
    from torch_reference.__main__ import make_parser

    return command(make_parser, *argv)


def assert_one_sentence(err):
    """Whether an error is one line of printable text."""
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert err[:-1].isprintable(), err
    assert len(err) < 2000, err[:300]


def contents(folder):
    """Every file below a folder, by name."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


@contextmanager
def nothing_lost(folder, ours_to_replace=()):
    """Within it no file of the folder is lost: each keeps its content, or is set aside with it."""
    before = contents(folder)
    yield
    after = contents(folder)
    for name, content in before.items():
        if name in ours_to_replace or after.get(name) == content:
            continue
        kept = [c for other, c in after.items() if name in other and "damaged" in other]
        assert content in kept, f"{name} is lost"


def run_answer(folder):
    """All that a run folder says, as bytes."""
    from jax_revinc import Run

    run = Run.load(folder)
    weights = {step: run.state_dict(step) for step in (None, *run.snapshot_steps)}
    return (
        run.config,
        run.metrics.to_csv(),
        run.losses.to_csv(),
        [(s, n, a.tobytes()) for s, state in weights.items() for n, a in sorted(state.items())],
    )


def store_answer(folder):
    """All that a store says of its finished models, as bytes."""
    from jax_revinc.population import load
    from revinc.engine import METRICS

    population = load(folder)
    return (
        population.config,
        population.metrics.to_csv(),
        [population.curves(metric).tobytes() for metric in METRICS],
        [(n, a.tobytes()) for n, a in sorted(population.params(slice(None)).items())],
    )


def answer_or_sentence(answer, folder):
    """What `answer` says of a folder, or the one sentence with which it is refused."""
    from revinc import UserError

    try:
        return answer(folder), None
    except UserError as error:
        assert_one_sentence(f"{error}\n")
        return None, str(error)


def many_damages(n, folder, other, tmp_path_factory, examine):
    """Put `n` damaged copies of a folder to `examine`, which returns an outcome to count; list every failure."""
    outcomes, failures = Counter(), []

    @settings(QUICKLY, max_examples=n)
    @given(damage=damages(folder))
    def look(damage):
        copy = tmp_path_factory.mktemp("damaged") / "copy"
        shutil.copytree(folder, copy)
        damage.to(copy, other)
        try:
            outcomes[damage.kind, examine(damage, copy)] += 1
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            failures.append(f"{damage}\n    {type(error).__name__} at {where}: {str(error)[:300]}")
        shutil.rmtree(copy.parent)

    look()
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:24} {outcome:24} {count}")
    print(f"{outcomes.total() + len(failures)} damages, {len(failures)} failures")
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)


def outcome(sentence):
    return "refused" if sentence else "as if undamaged"


def test_a_damaged_run_is_refused_in_a_sentence_or_reads_as_before(
    a_run, another_run, tmp_path_factory
):
    undamaged = run_answer(a_run)

    def examine(damage, copy):
        with nothing_lost(copy):
            found, sentence = answer_or_sentence(run_answer, copy)
        if damage.file.startswith("snapshots/") and not (copy / damage.file).exists():
            # A snapshot may be deleted; the others must be what they were.
            gone = set(undamaged[3]) - set(found[3])
            assert {step for step, *_ in gone} == {step_of(Path(damage.file).name)}
            found = (*found[:3], undamaged[3])
        assert sentence or found == undamaged, "another answer"
        return outcome(sentence)

    many_damages(300, a_run, another_run, tmp_path_factory, examine)


def test_every_command_on_a_damaged_run_ends_in_a_sentence_or_its_usual_answer(
    a_run, another_run, tmp_path_factory
):
    replaced = ("report.html", "parity.json", "parity.html")

    def examine(damage, copy):
        out = tmp_path_factory.mktemp("torch") / "out"
        commands = [
            (jax_command, ("inspect", copy, "--tables")),
            (parity_command, ("check", copy, "--levels", "L0", "L1", "--dtype", "float32")),
            (torch_command, ("train", "--like", copy, "--out", out)),
            (jax_command, ("train", "--resume", "--out", copy)),
        ]
        statuses = []
        for run_it, argv in commands:
            with nothing_lost(copy, replaced):
                status, printed, err = run_it(*argv)
            assert "Traceback" not in printed + err, argv
            assert status in (0, 2), (argv, status, printed, err)
            if status:
                assert_one_sentence(err)
            statuses.append(status)
        return f"exit {statuses}"

    many_damages(60, a_run, another_run, tmp_path_factory, examine)


def test_a_damaged_store_is_refused_in_a_sentence_or_reads_as_before(
    a_store, another_store, tmp_path_factory
):
    undamaged = store_answer(a_store)

    def examine(damage, copy):
        with nothing_lost(copy):
            found, sentence = answer_or_sentence(store_answer, copy)
        # A chunk without its metrics is one that is not finished yet.
        unfinished = damage.file.startswith("metrics/") and not (copy / damage.file).exists()
        assert sentence or found == undamaged or unfinished, "another answer"
        return outcome(sentence)

    many_damages(200, a_store, another_store, tmp_path_factory, examine)


def test_resuming_a_damaged_store_loses_nothing_and_ends_whole_or_in_a_sentence(
    a_store, another_store, tmp_path_factory
):
    undamaged = store_answer(a_store)

    def examine(damage, copy):
        with nothing_lost(copy):
            status, printed, err = jax_command("population", "--resume", "--out", copy)
        assert "Traceback" not in printed + err
        assert status in (0, 2), err
        if status:
            assert_one_sentence(err)
        else:
            assert store_answer(copy) == undamaged, "another answer"
        return f"exit {status}"

    many_damages(60, a_store, another_store, tmp_path_factory, examine)
