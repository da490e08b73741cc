"""The page that compares two runs: every difference that it shows is that of the runs."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from pages import assert_opens_offline_on_a_telephone, pictures_of, table_of, text_of

from jax_revinc import ReverseIncrement, Run, UserError, train
from jax_revinc.analysis.claims import claims
from jax_revinc.plots.run_comparison import compared_curves
from jax_revinc.report import write_comparison
from jax_revinc.report.comparison import tables
from jax_revinc.report.comparison.page import comparison_page, require_comparable, run_names


@pytest.fixture(scope="module")
def runs(short_run, tmp_path_factory):
    """The short run, in a folder whose name is markup, and one from other seeds, twice as fast."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(short_run.path, folder / "<b>a")
    cfg = dataclasses.replace(short_run.config, lr=2e-2, init_seed=3, snapshots=())
    return Run.load(folder / "<b>a"), train(cfg, folder / "b", engine="xla")


@pytest.fixture(scope="module")
def page(runs):
    return write_comparison(*runs)


@pytest.fixture(scope="module")
def html(page):
    return page.read_text(encoding="utf-8")


def answers(run):
    """A model's answers to all sequences, and the right ones."""
    tokens = run.config.task.sequences()
    return np.asarray(run.model()(tokens[:, :-1])).argmax(-1)[:, 4:], tokens[:, 5:]


def test_it_lies_in_the_folder_of_the_first_run(runs, page):
    assert page == runs[0].path / "compared_with_b.html"


def test_only_fields_that_differ_are_listed(html, runs):
    heads, *rows = table_of(html, "Everything else is equal")
    assert heads == ["", "<b>a", "b"]
    expected = [["lr", "0.01", "0.02"], ["snapshots", "150", "none"], ["init_seed", "0", "3"]]
    engine = tables.differing_fields([runs[0], dataclasses.replace(runs[1], config=runs[0].config)])
    assert rows == expected + [[name, *map(str, values)] for name, values in engine.items()]


def test_final_metrics_are_those_of_each_run(html, runs):
    rows = {title: cells for title, *cells in table_of(html, "How they end")}
    for split in ("train", "holdout"):
        for i, run in enumerate(runs):
            last = run.metrics.iloc[-1]
            accuracy = float(rows[f"{split} accuracy"][i].rstrip("%")) / 100
            assert accuracy == pytest.approx(last[f"{split}_accuracy"], abs=1e-4)
            loss = float(rows[f"{split} loss"][i])
            assert loss == pytest.approx(last[f"{split}_loss"], rel=1e-3)


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_curves_of_both_runs_share_their_axes(html, runs, quantity):
    drawn = pictures_of(html)[quantity]["figure"]["data"]
    order = [(run, split) for run in runs for split in ("train", "holdout")]
    assert [trace["line"]["dash"] for trace in drawn] == ["solid", "solid", "dot", "dot"]
    for trace, (run, split) in zip(drawn, order, strict=True):
        assert trace["x"] == run.metrics["step"].tolist()
        np.testing.assert_allclose(trace["y"], run.metrics[f"{split}_{quantity}"], rtol=1e-3)
    assert drawn[0]["name"] == "train, &lt;b&gt;a"


def test_a_loss_of_0_is_a_gap():
    table = pd.DataFrame({"step": [0, 1], "train_loss": [1.0, 0.0], "holdout_loss": [1.0, 0.5]})
    drawn = compared_curves({"a": table, "b": table}, "loss").data
    assert [trace.y for trace in drawn] == [(1.0, None), (1.0, 0.5)] * 2


def test_sequences_that_are_predicted_differently_are_counted_and_listed(html, runs):
    (one, targets), (other, _) = map(answers, runs)
    differ = (one != other).any(axis=1)
    assert f"Of all 256 sequences, the two models predict {differ.sum()} differently." in html
    _, *rows = table_of(html, "Predicted differently")
    assert 0 < len(rows) == min(differ.sum(), tables.MOST_LISTED)
    tokens = runs[0].config.task.sequences()
    words = {" ".join(map(str, row[1:5])): i for i, row in enumerate(tokens)}
    for name, target, *said, split in rows:
        i = words[name]
        assert differ[i]
        assert target == " ".join(map(str, targets[i]))
        for answer, cell in zip((one[i], other[i]), said, strict=True):
            mark = "✓" if (answer == targets[i]).all() else "✗"
            assert cell == f"{' '.join(map(str, answer))} {mark}"
        assert split == ("train" if i < 200 else "holdout")
    assert [row[-1] for row in rows] == sorted(row[-1] for row in rows)  # holdout first


def test_how_many_sequences_each_model_predicts_right(html, runs):
    right = [(said == target).all(axis=1) for said, target in map(answers, runs)]
    text = text_of(html)
    assert f"both right {(right[0] & right[1]).sum()} " in text
    assert f"only b right {(~right[0] & right[1]).sum()} " in text
    assert f"both wrong {(~right[0] & ~right[1]).sum()} " in text


def test_claims_stand_side_by_side(html, runs):
    rows = {title: cells for title, *cells in table_of(html, "What they learned")}
    for i, run in enumerate(runs):
        told = claims(run.model(), run.config.task).to_dict(run.config.model)
        assert rows["solves the task"][i] == ("✓" if told["solved"] else "✗")
        for head, record in told["heads"].items():
            number, mark = rows[f"{head}: attention on the needed token"][i].split()
            assert float(number) == pytest.approx(record["mean_reading"], abs=0.006)
            assert mark == ("✓" if record["reverses"] else "✗")
        for component, record in told["components"].items():
            number, mark = rows[f"{component}: accuracy without it"][i].split()
            assert float(number.rstrip("%")) == pytest.approx(
                100 * record["accuracy_without"], abs=0.51
            )
            assert mark == ("✓" if record["necessary"] else "✗")


def test_weights_are_compared_parameter_by_parameter(html, runs):
    one, other = (run.state_dict() for run in runs)
    _, *rows = table_of(html, "Final weights")
    assert [name for name, *_ in rows] == list(one)
    for name, difference, largest in rows:
        expected = np.abs(one[name] - other[name]).max()
        assert float(difference) == pytest.approx(expected, rel=0.06)
        assert float(largest) == pytest.approx(np.abs(one[name]).max(), rel=0.06)
    assert "The initial weights differ by" in html


def test_equal_weights_and_configs_are_said_to_be_equal(runs, tmp_path):
    copy = Run.load(shutil.copytree(runs[0].path, tmp_path / "copy"))
    html = comparison_page(runs[0], copy)
    assert "The final weights are equal, bit for bit." in html
    assert "The initial weights are equal, bit for bit." in html
    assert "The training configs and the engines of both runs are equal." in html
    assert "the two models predict 0 differently" in html


def test_parameters_of_other_shapes_are_named_with_their_shapes():
    one = {"embed.W_E": np.zeros((5, 4)), "blocks.1.attn.W_Q": np.ones((1, 4, 2))}
    other = {"embed.W_E": np.zeros((5, 8))}
    assert tables.weight_rows(one, other) == {
        "embed.W_E": ["shapes 5 by 4 and 5 by 8", ""],
        "blocks.1.attn.W_Q": ["shapes 1 by 4 by 2 and none", ""],
    }
    assert tables.weight_sentence("They", one, other) == "They have other shapes."


def test_the_engine_is_told_in_words(runs):
    for name, words in (
        ("xla", "JAX, compiled by XLA"),
        ("fused", "the fused engine"),
        ("torch", "torch_reference, by TransformerLens in torch"),
        ("mine", "mine"),
    ):
        assert tables.engine_in_words(dataclasses.replace(runs[0], engine={"name": name})) == words
    torch = dataclasses.replace(runs[0], engine={"name": "torch", "torch": "2.0"})
    rows = tables.differing_fields([dataclasses.replace(runs[0], engine={"name": "xla"}), torch])
    assert rows == {"engine": ["xla", "torch"], "torch": ["none", "2.0"]}


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    copy = Run.load(shutil.copytree(runs[1].path, tmp_path / "b"))
    assert run_names(runs[1], copy) == [str(runs[1].path), str(copy.path)]


def test_a_run_and_itself_or_another_task_are_refused(runs):
    with pytest.raises(UserError, match="are the same run; name two runs"):
        require_comparable(runs[0], Run.load(runs[0].path))
    shorter = dataclasses.replace(
        runs[1], config=dataclasses.replace(runs[1].config, task=ReverseIncrement(length=3))
    )
    with pytest.raises(UserError, match="have different tasks"):
        require_comparable(runs[0], shorter)


def test_the_command_says_where_the_page_is(run_cli, runs):
    outcome = run_cli("report", runs[1].path, runs[0].path)
    assert outcome.status == 0
    assert outcome.out == f"Page to open: {runs[1].path / 'compared_with_<b>a.html'}\n"
    outcome = run_cli("report", runs[0].path, runs[0].path)
    assert (outcome.status, len(outcome.err)) == (2, 1)


def test_the_page_opens_offline_and_fits_a_telephone(page, open_offline):
    assert_opens_offline_on_a_telephone(open_offline, page, "accuracy")
