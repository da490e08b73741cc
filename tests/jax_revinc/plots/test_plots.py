"""The public figures: they show the numbers of the analysis, and the pages draw the same ones."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import jax_revinc
from jax_revinc import UserError, plots
from jax_revinc.analysis import circuits
from jax_revinc.analysis.effects import ablation_costs, edges, recovery
from jax_revinc.analysis.snapshots import shown_steps
from jax_revinc.plots import heatmaps, hyperparameters
from jax_revinc.report import model_findings, run_figures
from revinc import TrainConfig
from revinc.sweep import SWEPT

DOCS = Path(__file__).parents[3] / "docs" / "api" / "plots.md"
ROUNDING = {"rtol": 0, "atol": 0.51 * 10**-heatmaps.DECIMALS}
FOUR_DIGITS = 5.01e-4
"""Relative error of a number rounded to four significant digits."""


@pytest.fixture(scope="module")
def model(short_run):
    return short_run.model()


@pytest.fixture(scope="module")
def task(short_run):
    return short_run.config.task


def numbers(trace):
    """The numbers of a heatmap, NaN where it is blank."""
    return np.array(trace.z, dtype=float)


def test_importing_the_package_does_not_import_plotly():
    code = "import sys, jax_revinc; assert 'plotly' not in sys.modules; jax_revinc.plots.loss"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_attribute_is_still_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'plot'"):
        _ = jax_revinc.plot


def test_every_figure_is_documented():
    assert set(re.findall(r"autoapifunction:: jax_revinc\.plots\.(\w+)", DOCS.read_text())) == set(
        plots.__all__
    )


def test_attention_is_that_of_the_cache(model, task):
    tokens = task.sequences()[:10, :-1]
    _, cache = model.run_with_cache(tokens)
    for inputs, pick in ((tokens, slice(None)), (tokens[3], slice(3, 4))):
        drawn = plots.attention(model, inputs, task)
        for layer, trace in enumerate(drawn.data):
            expected = np.asarray(cache["pattern", layer])[pick].mean(0)[0]
            past = np.tril_indices_from(expected)
            np.testing.assert_allclose(numbers(trace)[past], expected[past], **ROUNDING)
    assert list(plots.attention(model, tokens).data[0].x) == [str(i) for i in range(8)]
    assert plots.attention(model, tokens[3]).data[0].x[1] == f"1={tokens[3, 1]}"
    assert plots.attention(model, tokens[3], task).data[0].x[1] == f"x0={tokens[3, 1]}"


def test_curves_are_those_of_the_run(short_run):
    for name in ("loss", "accuracy"):
        train, holdout, *_ = getattr(plots, name)(short_run).data
        assert list(train.x) == short_run.metrics["step"].tolist()
        np.testing.assert_allclose(train.y, short_run.metrics[f"train_{name}"], rtol=FOUR_DIGITS)
        np.testing.assert_allclose(
            holdout.y, short_run.metrics[f"holdout_{name}"], rtol=FOUR_DIGITS
        )


def test_reading_is_the_attention_on_the_needed_tokens(short_run, task):
    (trace, _) = plots.reading(short_run).data
    for step, share in zip(trace.x, trace.y, strict=True):
        _, cache = short_run.model(step).run_with_cache(task.sequences()[:, :-1])
        pattern = np.asarray(cache["pattern", 0]).mean(0)[0]
        assert share == pytest.approx(pattern[[4, 5, 6, 7], [4, 3, 2, 1]].mean(), abs=1e-4)


def test_reading_without_snapshots_is_refused(short_run, monkeypatch):
    monkeypatch.setattr("jax_revinc.plots.training.shown_steps", lambda run: shown_steps(run)[:1])
    with pytest.raises(UserError, match="two snapshots"):
        plots.reading(short_run)


def test_circuits_are_those_of_the_analysis(model, task):
    expected = np.asarray(circuits.ov_circuit(model))
    for layer, trace in enumerate(plots.ov_circuits(model, task).data):
        np.testing.assert_allclose(numbers(trace), expected[layer, 0], **ROUNDING)
    (trace,) = plots.direct_path(model, task).data
    np.testing.assert_allclose(numbers(trace), circuits.direct_path(model), **ROUNDING)
    assert list(trace.x) == list(trace.y) == [*task.vocabulary]
    maps = np.asarray(circuits.mlp_map(model))
    for layer, trace in enumerate(plots.mlp_maps(model, task).data):
        np.testing.assert_allclose(numbers(trace), maps[layer], **ROUNDING)
    by_position = np.asarray(circuits.qk_circuit(model).position_position)
    for layer, trace in enumerate(plots.qk_circuits(model, task).data):
        np.testing.assert_allclose(numbers(trace), by_position[layer, 0], **ROUNDING)


def test_effects_are_those_of_the_analysis(model, task):
    restored = recovery(model, task)
    drawn = plots.patching(model, task)
    np.testing.assert_allclose(numbers(drawn.data[0]), restored["resid_pre"], **ROUNDING)
    (trace,) = plots.paths(model, task).data
    np.testing.assert_allclose(numbers(trace), edges(model, task), **ROUNDING)
    costs = -ablation_costs(model, task)["accuracy_change"].sort_index()
    (trace,) = plots.ablation(model, task).data
    shown = numbers(trace)[list(trace.y).index("L1 mlp_out")]
    expected = [costs[name, "MLP", "blocks.1.hook_mlp_out"].item() for name in trace.x]
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    (trace,) = plots.position_ablation(model, task).data
    assert numbers(trace).shape == (2, 8)


@pytest.mark.parametrize("name", ["attribution", "increments"])
def test_other_figures_of_a_model_have_a_row_for_every_component(model, task, name):
    drawn = getattr(plots, name)(model, task)
    rows = len(drawn.data[0].y) if name == "attribution" else len(drawn.data)
    assert rows == {"attribution": 9, "increments": 5}[name]


def test_mlp_figures_are_those_of_the_model(model, task):
    tokens = task.sequences()[:, :-1]
    _, cache = model.run_with_cache(tokens)
    for layer, trace in enumerate(plots.mlp_outputs(model, tokens, task).data):
        expected = np.asarray(cache["mlp_out", layer]).mean(0)
        np.testing.assert_allclose(numbers(trace), expected, **ROUNDING)
    w_in, w_out, *_ = plots.mlp_weights(model).data
    weights = model.state_dict()
    np.testing.assert_allclose(numbers(w_in), weights["blocks.0.mlp.W_in"], **ROUNDING)
    np.testing.assert_allclose(numbers(w_out), weights["blocks.0.mlp.W_out"], **ROUNDING)


def test_the_page_draws_the_same_figures(model, task, short_run):
    found = model_findings.find(model.cfg, model.state_dict(), task)
    pictures = run_figures.weight_circuits(found.circuits, model.cfg, task)
    pictures |= run_figures.curves(short_run)
    assert pictures["direct"].figure == plots.direct_path(model, task)
    assert pictures["loss"].figure == plots.loss(short_run)
    shown = plots.ov_circuits(model, task).data
    assert [trace.z for trace in shown] == [
        pictures[f"ov-{layer}-0"].figure.data[0].z for layer in range(2)
    ]


# Populations


def points(**fields):
    """A table of hyperparameter points, one for each combination of values."""
    fields = {"lr": [0.01], "weight_decay": [0.0], "lr_end": [0.0], "split": ["prefix"]} | fields
    table = pd.MultiIndex.from_product(fields.values(), names=fields).to_frame(index=False)
    hits = np.arange(len(table)) % 4
    return table.assign(models=4, train_perfect=4, holdout_perfect=hits)


def test_success_has_a_cell_for_every_point():
    table = points(lr=[0.1, 0.2, 0.3], weight_decay=[0.0, 0.5], split=["prefix", "random"])
    drawn = plots.success(table)
    assert [title.text for title in drawn.layout.annotations[:2]] == [
        f"Split “{split}”: models that solve the holdout" for split in ("prefix", "random")
    ]
    for trace, split in zip(drawn.data, ("prefix", "random"), strict=True):
        of_split = table[table["split"] == split].set_index(["weight_decay", "lr"])
        for row, decay in zip(trace.z, trace.y, strict=True):
            for value, lr in zip(row, trace.x, strict=True):
                hits = of_split.loc[(float(decay), float(lr)), "holdout_perfect"]
                assert value == pytest.approx(hits / 4)


def test_another_swept_field_has_an_axis_or_figures_of_its_own(monkeypatch):
    monkeypatch.setattr(hyperparameters, "SWEPT", (*SWEPT, "b1"))
    table = points(b1=[0.8, 0.9], lr=[0.1, 0.2])
    assert set(hyperparameters.heatmap_axes(table)) == {"lr", "b1"}
    table = points(b1=[0.8, 0.9], lr=[0.1, 0.2], weight_decay=[0.0, 0.5])
    assert list(hyperparameters.success_figures(table, "holdout")) == ["prefix-0.8", "prefix-0.9"]
    assert list(hyperparameters.success_figures(points(b1=[0.9]), "holdout")) == ["prefix"]


def test_the_histogram_counts_models(short_run):
    accuracy = [1.0, 1.0, 0.51, 0.51, 0.02, np.nan]
    drawn = plots.accuracy_histogram(pd.DataFrame({"holdout_accuracy": accuracy}))
    (bars,) = drawn.data
    found = {round(x, 4): y for x, y in zip(bars.x, bars.y, strict=True) if y}
    assert found == pytest.approx({0.0125: 1 / 6, 0.5125: 2 / 6, 1.0375: 2 / 6}, rel=1e-3)


class Three:
    """A population of three models, evaluated twice."""

    config = TrainConfig(steps=100)
    steps = np.array([0, 100])

    def curves(self, metric):
        return np.array([[0.0, 0.5], [0.1, 0.7], [0.2, np.nan]])


def test_learning_curves_are_quantiles_of_the_models_that_have_not_diverged():
    drawn = plots.learning_curves(Three(), "train_accuracy")
    median = drawn.data[-1]
    assert median.name == "median"
    assert list(median.x) == [0, 100]
    assert list(median.y) == pytest.approx([0.1, 0.6])
    assert drawn.layout.title.text == "Accuracy: training split"


def test_figures_of_claims_show_their_tables():
    groups = ("all", "generalising", "not generalising")
    rates = pd.DataFrame(
        [
            {"claim": claim, "part": part, "group": group, "hits": 3, "n": 4}
            for claim in ("increments", "necessary")
            for part in ("embed", "L0H0")
            for group in groups
        ]
    ).assign(rate=0.75, low=0.3, high=0.95)
    drawn = plots.claim_rates(rates, "necessary")
    assert [trace.x for trace in drawn.data] == [(0.75, 0.75)] * 2
    assert drawn.layout.title.text == "Needed"
    quantiles = {"q05": 0.0, "q25": 0.1, "q50": 0.2, "q75": 0.3, "q95": 0.4}
    shares = pd.DataFrame(
        [{"part": "heads", "group": group, "models": 4, **quantiles} for group in groups]
    )
    box, _ = plots.increment_shares(shares).data
    assert (box.lowerfence, box.q1, box.median) == ((0.0,), (0.1,), (0.2,))
    assert box.y == ("all heads",)


def test_the_scatter_has_a_point_for_every_model_that_did_not_diverge():
    models = pd.DataFrame(
        {
            "outcome": ["generalises", "neither", "diverged"],
            "holdout_accuracy": [1.0, 0.5, np.nan],
            "train_loss": [0.1, 0.9, np.nan],
            "lr": 0.01,
        }
    )
    drawn = plots.scatter(models, "training loss")
    assert [(trace.x, trace.y) for trace in drawn.data] == [((0.1,), (1.0,)), ((0.9,), (0.5,))]


def test_a_grid_keeps_what_is_marked(model, task):
    drawn = plots.attention(model, task.sequences()[:, :-1], task)
    assert isinstance(drawn, go.Figure)
    assert len(drawn.layout.shapes) == 2 * (4 + 4)
    assert {shape.xref for shape in drawn.layout.shapes} == {"x", "x2"}
