"""The judge of free running passes what rounding alone parts, and fails what parts earlier, as often as it says."""

import itertools
import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from jax_revinc import TrainConfig
from jax_revinc.engines import make_engine
from jax_revinc.engines.xla import update
from jax_revinc.optimizer import optimizer_settings
from jax_revinc.training import draw_weights
from parity import free_running_level, perturbed_runs
from parity.free_running_level import (
    FALSE_ALARMS,
    Verdict,
    check_free_running,
    find_partings,
    p_value,
    parting,
)
from parity.perturbed_runs import (
    Perturbed,
    Runs,
    jitter_model,
    nudge,
    run_in_jax,
    run_in_torch,
    starts,
)
from parity.plots import draw
from parity.report import as_json
from parity.training_levels import in_float64
from revinc.tasks import Copy
from torch_reference import TorchEngine, adapter
from torch_reference.adapter import KnownDifference
from torch_reference.installed_transformer_lens import WORLD

N_SEEDS, N_OTHERS, N_STEPS = 3, 12, 190

PARTINGS = arrays(
    np.int64, st.tuples(st.integers(1, 3), st.integers(1, 4)), elements=st.integers(0, 5)
)

# The verdict, on invented partings.


def ranks(partings):
    return stats.rankdata(partings, axis=1)


@given(PARTINGS)
def test_p_is_the_share_of_all_choices_that_are_as_early(partings):
    sums = [sum(choice) for choice in itertools.product(*ranks(partings))]
    expected = np.mean(np.array(sums) <= ranks(partings)[:, 0].sum())
    assert p_value(partings) == pytest.approx(expected)


@given(PARTINGS)
def test_only_the_order_of_the_partings_matters(partings):
    assert p_value(partings**3 + 7) == p_value(partings)


@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_are_as_many_as_it_says(seed):
    rng = np.random.default_rng(seed)
    n = 4000
    # Seeds part at other times each; steps are tied, and the latest never come.
    partings = (rng.gamma(3, 30, (n, 8, 15)) + 40 * rng.integers(0, 5, (n, 8, 1))) // 10
    p = np.array([p_value(rows) for rows in partings.clip(max=20).astype(int)])
    for threshold in (0.2, 0.05, 0.01):
        low, high = stats.binom.ppf([1e-4, 1 - 1e-4], n, threshold)
        assert 0.5 * low <= (p <= threshold).sum() <= high


def test_one_early_seed_is_chance_and_all_are_not():
    partings = np.tile(np.arange(15), (8, 1)) + 200
    one = np.roll(partings, 7, axis=1)
    one[0, 0] = 1
    assert p_value(one) > 0.1
    assert p_value(partings) == pytest.approx(15.0**-8)


def test_agreement_is_never_too_good():
    never = np.full((8, 15), 350)
    assert p_value(never) == pytest.approx(1)
    never[:, 1:] = 200
    assert p_value(never) == pytest.approx(1)


def test_a_parting_where_no_jittered_run_parts_fails():
    partings = np.full((8, 15), 350)
    partings[:, 0] = 300
    assert p_value(partings) < FALSE_ALARMS


def test_runs_part_at_the_first_step_beyond_the_bound():
    zeros, runs = np.zeros(5), np.zeros((4, 5))
    runs[0] = 0.9e-6
    runs[1, 2] = -1.1e-6
    runs[2, 3:] = np.nan
    runs[3, 0] = np.inf
    assert parting(zeros, runs).tolist() == [5, 2, 3, 0]
    assert parting(runs[1], zeros) == 2


# The runs.


SHORT = replace(in_float64(TrainConfig()), steps=30, init_seed=3, data_seed=4)


def test_a_nudge_moves_one_weight_by_an_ulp():
    weights = draw_weights(SHORT)
    for seed in range(20):
        nudged = nudge(weights, np.random.default_rng(seed))
        moved = [
            (weights[n][at], nudged[n][at]) for n in weights for at in [weights[n] != nudged[n]]
        ]
        ((before, after),) = np.concatenate(moved, axis=1).T
        assert after in (np.nextafter(before, -np.inf), np.nextafter(before, np.inf))


def test_jitter_moves_every_weight_by_an_ulp():
    engine = TorchEngine(SHORT, "cpu")
    state = engine.start(draw_weights(SHORT))
    trained = adapter.trainable(state.model, SHORT.model)
    before = {name: parameter.detach().numpy().copy() for name, parameter in trained.items()}
    jitter_model(state.model, np.random.default_rng(0))
    downs = 0.0
    for name, parameter in trained.items():
        after = parameter.detach().numpy()
        up = after == np.nextafter(before[name], np.inf)
        down = after == np.nextafter(before[name], -np.inf)
        assert (up ^ down).all()
        downs += down.sum()
    assert 0.35 < downs / sum(map(np.size, before.values())) < 0.65


@pytest.fixture(scope="module")
def runs():
    """The runs of one seed: a plain one, two nudged, two jittered, in JAX and in torch."""
    rng = np.random.default_rng(0)
    begun = starts(SHORT, Perturbed(2, 2), rng)
    return run_in_jax(SHORT, begun), run_in_torch(SHORT, begun, rng)


@pytest.mark.slow
def test_the_plain_run_is_that_of_the_engines(runs):
    plain, *_ = starts(SHORT, Perturbed(0, 0), np.random.default_rng(0))
    for (losses, *_), engine in zip(runs, (make_engine(SHORT), TorchEngine(SHORT)), strict=True):
        _, expected = engine.advance(engine.start(plain.weights), plain.rows)
        np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.slow
def test_of_a_task_that_is_drawn_each_seed_sees_its_own_examples():
    model = SHORT.model.replace(n_ctx=16, d_vocab=9)
    cfg = replace(SHORT, task=Copy(length=8), model=model)
    other = replace(cfg, data_seed=cfg.data_seed + 1)
    begun = starts(other, Perturbed(0, 0), np.random.default_rng(0))
    _, expected = TorchEngine(other).advance(
        TorchEngine(other).start(begun[0].weights), begun[0].rows
    )
    np.testing.assert_allclose(run_in_jax(cfg, begun)[0], expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(run_in_torch(cfg, begun, np.random.default_rng(0))[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("side", [0, 1], ids=["JAX", "torch"])
def test_perturbed_runs_differ_by_rounding_and_from_one_another(runs, side):
    plain, *perturbed = runs[side]
    for run in perturbed:
        assert 0 < np.abs(run - plain).max() < 1e-12
    assert len(np.unique(perturbed, axis=0)) == len(perturbed)


# The level, on few seeds which part early. The torch runs are made once.


@pytest.fixture(scope="module")
def torch_runs():
    made = {}

    def run(cfg, *args):
        if cfg not in made:
            made[cfg] = run_in_torch(cfg, *args)
        return made[cfg]

    return run


FIRST = 4
EARLY = TrainConfig(snapshots=(0, 4000)).with_seed(FIRST)


@contextmanager
def fewer_runs(torch_runs):
    """A context in which the level makes fewer and shorter runs."""
    with pytest.MonkeyPatch.context() as patch:
        perturbed = {"JAX": Perturbed(1, N_OTHERS - 1), "torch": Perturbed(1, 1)}
        patch.setattr(free_running_level, "SEEDS", N_SEEDS)
        patch.setattr(free_running_level, "STEPS", N_STEPS)
        patch.setattr(free_running_level, "PERTURBED", perturbed)
        patch.setattr(free_running_level, "run_in_torch", torch_runs)
        yield


@pytest.fixture
def fewer(torch_runs):
    with fewer_runs(torch_runs):
        yield


@pytest.fixture(scope="module")
def ours(torch_runs):
    """The level of our own program."""
    with fewer_runs(torch_runs):
        return check_free_running(EARLY)


def test_the_same_program_passes(ours):
    assert ours.passed, ours.failures
    assert (ours.name, ours.dtype) == ("L6", "float64")
    assert [row.name for row in ours.rows] == [
        *(f"seed {FIRST + i}" for i in range(N_SEEDS)),
        "all seeds",
    ]
    *seeds, verdict = ours.rows
    assert (verdict.p > 0.01) == (WORLD == "3.9")
    assert all(len(row.ranked) == 1 + N_OTHERS for row in seeds)
    assert sum(row.cross < row.never for row in seeds) >= 2
    assert len(ours.remarks) == 2, ours.remarks
    assert len({tuple(row.cells()) for row in ours.rows}) == 1
    json.dumps([as_json(row) for row in ours.rows], allow_nan=False)


def test_the_figures_show_every_run_and_every_parting(ours):
    *seeds, _ = ours.rows
    figures = [draw(evidence) for evidence in ours.evidence.values()]
    distances, partings = figures
    n_runs = {"JAX and torch": 1, "nudged": 2, "jittered": N_OTHERS}
    assert {trace.name: trace.x.count(None) for trace in distances.data} == n_runs
    cross = next(trace for trace in distances.data if trace.name == "JAX and torch")
    assert max(cross.x[:-1]) == N_STEPS - 2
    crossed = [step for step, apart in zip(cross.x[:-1], cross.y[:-1], strict=True) if apart > 1e-6]
    if seeds[0].cross < seeds[0].never:
        assert seeds[0].cross <= crossed[0] <= seeds[0].cross + 1
    drawn = {trace.name: len(trace.x) for trace in partings.data}
    assert drawn["jittered"] == sum(step < row.never for row in seeds for step in row.ranked[1:])
    assert all(len(figure.to_json()) < 60_000 for figure in figures)


def off(number, share):
    """The optimizer's numbers of a config, one of them off by a share of itself."""
    return lambda cfg: optimizer_settings(
        replace(cfg, **{number: getattr(cfg, number) * (1 + share)})
    )


def with_norms_off(cfg, *rest):
    return update(cfg.replace(eps=cfg.eps * (1 + 1e-6)), *rest)


FAULTS = {
    "learning rate off by 1e-11": ("optimizer_settings", off("lr", 1e-11)),
    "epsilon of the norms off by 1e-6": ("update", with_norms_off),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_small_fault_is_found(fewer, monkeypatch, fault):
    monkeypatch.setattr(perturbed_runs, *fault)
    *seeds, verdict = check_free_running(EARLY).rows
    assert verdict.p < FALSE_ALARMS
    assert {row.cells()["verdict"] for row in seeds} == {"before all"}


@pytest.mark.slow
def test_runs_too_short_to_part_are_named_and_agree(fewer, monkeypatch):
    known = KnownDifference("L6", "all seeds", "it trains something else")
    monkeypatch.setattr(adapter, "KNOWN_DIFFERENCES", (known,))
    monkeypatch.setattr(free_running_level, "STEPS", 20)
    level = check_free_running(EARLY)
    *_, remark = level.remarks
    assert remark.startswith(f"only 0 of {N_SEEDS * N_OTHERS} jittered runs part within 20 steps")
    *seeds, verdict = level.rows
    assert verdict.known == known.why
    assert level.passed == (WORLD != "3.9"), "agreement where a difference is known is what fails"
    if WORLD == "3.9":
        assert verdict.p == pytest.approx(1)
        assert {row.cells()["JAX, torch"] for row in seeds} == {"never"}
        assert {row.cells()["verdict"] for row in seeds} == {"inside"}


@pytest.mark.parametrize(
    ("p", "known", "shown"),
    [(0.5, "", "ok"), (1e-4, "", "FAIL"), (0.5, "why", "FAIL"), (1e-4, "why", "differs, as known")],
)
def test_an_early_parting_fails_unless_it_is_known(p, known, shown):
    verdict = Verdict(p, known)
    assert verdict.cells()["verdict"] == shown
    assert verdict.passed == (shown != "FAIL")


@pytest.mark.parametrize(("seeds", "name"), [((3, 3), "seed 3"), ((3, 5), "seed 3, 5")])
def test_a_row_names_its_seeds_and_shows_ranges(seeds, name):
    cfg = replace(SHORT, steps=2, init_seed=seeds[0], data_seed=seeds[1])
    plain = np.zeros(2)
    one, later, never = np.ones(2), np.array([0.0, 1.0]), plain
    row = find_partings(
        cfg, Runs(plain, [later, never], [one, later]), Runs(one, [later], [plain, one])
    )
    assert row.cells() == {
        "parted at": name,
        "JAX, torch": "0",
        "JAX, nudged": "1-never",
        "torch, nudged": "0",
        "JAX, jittered": "0-1",
        "torch, jittered": "0-never",
        "found": "2 of 5",
        "fails": "",
        "verdict": "inside",
    }


@pytest.mark.slow
def test_the_tutorials_runs_part_as_late_as_rounding_lets_them(monkeypatch, torch_runs):
    monkeypatch.setattr(free_running_level, "run_in_torch", torch_runs)
    level = check_free_running(TrainConfig())
    assert level.passed, level.failures
    assert len(level.rows) == 9


@pytest.mark.slow
@pytest.mark.parametrize(("number", "share"), [("lr", 1e-13), ("b2", 1e-13), ("adam_eps", 1e-6)])
def test_with_all_seeds_a_tiny_fault_is_found(monkeypatch, torch_runs, number, share):
    monkeypatch.setattr(free_running_level, "run_in_torch", torch_runs)
    monkeypatch.setattr(perturbed_runs, "optimizer_settings", off(number, share))
    assert check_free_running(TrainConfig()).rows[-1].p < FALSE_ALARMS
