"""The page of a model that was trained elsewhere: a run's page without the training."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx
from pages import assert_opens_offline_on_a_telephone, pictures_of, text_of

from jax_revinc import HookedTransformer, ReverseIncrement, UserError
from jax_revinc.report import write_model_page
from jax_revinc.report.page import report_page
from revinc.tasks import Copy, Induction

OF_TRAINING = {"loss", "accuracy", "reading", "forming-0-0", "forming-1-0"}
OF_A_SEQUENCE = ("pattern-", "attribution", "mlp_out-")


@pytest.fixture(scope="module")
def page(short_run, tmp_path_factory):
    """The page of the model of the short run, in a folder that was not there."""
    out = tmp_path_factory.mktemp("models") / "new" / "from elsewhere.html"
    return write_model_page(short_run.model(), short_run.config.task, out)


@pytest.fixture(scope="module")
def html(page):
    return page.read_text(encoding="utf-8")


def test_it_shows_what_the_page_of_a_run_shows_except_the_training(html, short_run):
    found, of_run = pictures_of(html), pictures_of(report_page(short_run))
    assert set(of_run) - set(found) == OF_TRAINING
    whole = {name for name in found if not name.startswith(OF_A_SEQUENCE)}
    assert {name: found[name] for name in whole} == {name: of_run[name] for name in whole}


def test_sequences_are_in_the_order_of_the_task_and_belong_to_no_split(html, short_run):
    task = short_run.config.task
    _, cache = short_run.model().run_with_cache(task.sequences()[:, :-1])
    for i, version in enumerate(pictures_of(html)["mlp_out-1"]["versions"][:-1]):
        expected = np.asarray(cache["mlp_out", 1])[i]
        np.testing.assert_allclose(version["data.0.z"], expected, rtol=0, atol=1e-4)
    text = text_of(html)
    assert "Holdout" not in text
    assert "Training" not in text


def test_it_is_called_by_the_name_of_its_file(html):
    assert "model <b>from elsewhere</b>" in html


def test_it_opens_offline_without_a_complaint(page, open_offline):
    assert_opens_offline_on_a_telephone(open_offline, page, "attribution")


def untrained(tutorial, **changes):
    return HookedTransformer(tutorial.model.replace(**changes), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"n_ctx": 7}, "has n_ctx=7, but the task reverse_increment feeds it 8 positions"),
        ({"d_vocab": 4}, "has d_vocab=4, but the task reverse_increment has 5 tokens"),
        ({"d_vocab_out": 3}, "has d_vocab_out=3, but the task reverse_increment asks for answers"),
    ],
)
def test_a_model_too_small_for_the_task_is_refused(tutorial, tmp_path, changes, phrase):
    model = untrained(tutorial, **changes)
    with pytest.raises(UserError, match=phrase) as error:
        write_model_page(model, tutorial.task, tmp_path / "model.html")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_task_or_file_is_refused(tutorial, tmp_path):
    model, out = untrained(tutorial), tmp_path / "model.html"
    with pytest.raises(UserError, match=r"not builtins\.dict; parity.from_torch makes one"):
        write_model_page(model.state_dict(), tutorial.task, out)
    with pytest.raises(UserError, match="task must be a Task"):
        write_model_page(model, "reverse_increment", out)
    with pytest.raises(UserError, match="is a folder; name the page's file in it"):
        write_model_page(model, tutorial.task, tmp_path)
    with pytest.raises(UserError, match="out must be a path"):
        write_model_page(model, tutorial.task, None)


def test_weights_that_are_not_finite_are_refused(tutorial, tmp_path):
    weights = untrained(tutorial).state_dict()
    weights["unembed.W_U"] = np.full_like(weights["unembed.W_U"], np.nan)
    model = HookedTransformer(tutorial.model, params=weights)
    with pytest.raises(UserError, match=r"the model can't be used: unembed.W_U holds 20 values"):
        write_model_page(model, tutorial.task, tmp_path / "model.html")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (Induction(), {"attn_only": True, "normalization_type": None, "n_heads": 2}),
        (Copy(length=2), {"dtype": "float64", "n_layers": 1}),
        (ReverseIncrement(length=2), {"positional_embedding_type": "shortformer"}),
    ],
)
def test_other_models_and_tasks_have_a_page(tutorial, tmp_path, task, changes):
    sizes = {"n_ctx": task.sequences().shape[1] + 3, "d_vocab": len(task.vocabulary) + 2}
    model = untrained(tutorial, **sizes, **changes)
    html = write_model_page(model, task, tmp_path / "model.html").read_text(encoding="utf-8")
    assert "pattern-0-0" in pictures_of(html)
