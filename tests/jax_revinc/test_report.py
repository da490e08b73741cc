"""The report page: what it holds, that it needs nothing else, and that it works in a browser."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from jax_revinc import HookedTransformerConfig, ReverseIncrement, Run, TrainConfig, UserError, train
from jax_revinc.report import contents, markup
from jax_revinc.report.figures import DECIMALS
from jax_revinc.report.page import report_page, write_report
from jax_revinc.report.theme import DARK, LIGHT
from revinc.dataset import make_dataset
from revinc.runs import WEIGHTS
from revinc.tasks import predicted_positions

ROUNDING = {"rtol": 0, "atol": 0.51 * 10**-DECIMALS}
TITLES = [
    "Loss",
    "Accuracy",
    "Layer 0, head 0",
    "Layer 1, head 0",
    "Layer 0, MLP output",
    "Layer 1, MLP output",
    "Layer 0, W_in",
    "Layer 0, W_out",
    "Layer 1, W_in",
    "Layer 1, W_out",
]


@pytest.fixture(scope="module")
def run(short_run, tmp_path_factory):
    """A copy of the short run, in a folder whose name is markup."""
    folder = tmp_path_factory.mktemp("report") / "<b>a & b"
    shutil.copytree(short_run.path, folder)
    return Run.load(folder)


@pytest.fixture(scope="module")
def page(run):
    """The path of the run's report."""
    return write_report(run)


@pytest.fixture(scope="module")
def html(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figures(html):
    return embedded_figures(html)


@pytest.fixture(scope="module")
def activations(run):
    """The model's logits and cache on the holdout sequences that the page shows."""
    return run.model().run_with_cache(shown_sequences(run)[:, :-1])


def shown_sequences(run):
    dataset = make_dataset(run.config)
    return dataset.tokens[dataset.holdout_rows[: contents.MOST_SAMPLES]]


def embedded_figures(html):
    """Figures by name, each a list with one for every view, as the page's script reads them."""
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    return json.loads(data[1])["figures"]


def heatmap(figure):
    """The numbers of a heatmap, NaN where it is blank."""
    return np.array(figure["data"][0]["z"], dtype=float)


class Elements(HTMLParser):
    """Collects a page's tags, with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_report_lies_in_the_run_folder(run, page):
    assert page == run.path / "report.html"
    assert not list(run.path.glob("*.partial"))


def test_the_page_refers_to_nothing_outside_it(html):
    elements = Elements(html).found
    references = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset", "data", "poster")
    ]
    assert references == ["data:,"]
    policies = [a["content"] for _, a in elements if "http-equiv" in a]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_stays_small(html):
    assert len(html.encode()) < 2_000_000


def test_names_are_escaped(html):
    assert "&lt;b&gt;a &amp; b" in html
    assert "<b>a & b" not in html


def test_scripts_and_data_can_not_end_their_element():
    assert "<" not in markup.json_text({"</script>": "<!--"})
    assert json.loads(markup.json_text({"</script>": "<!--"})) == {"</script>": "<!--"}
    assert "</script" not in markup.script_text("'</script>'")


def test_every_figure_is_there(figures):
    assert [
        alternatives[0]["layout"]["title"]["text"] for alternatives in figures.values()
    ] == TITLES
    n_views = contents.MOST_SAMPLES + 1
    assert [len(alternatives) for alternatives in figures.values()] == [
        1,
        1,
        *[n_views] * 4,
        *[1] * 4,
    ]


@pytest.mark.parametrize("layer", [0, 1])
def test_patterns_are_those_of_the_cache(figures, activations, layer):
    pattern = np.asarray(activations[1]["pattern", layer])[:, 0]
    future = np.triu(np.ones(pattern.shape[1:], dtype=bool), k=1)
    for i, expected in enumerate(pattern):
        shown = heatmap(figures[f"pattern-{layer}-0"][i])
        np.testing.assert_array_equal(np.isnan(shown), future)
        np.testing.assert_allclose(shown[~future], expected[~future], **ROUNDING)


@pytest.mark.parametrize("layer", [0, 1])
def test_mlp_outputs_are_those_of_the_cache(figures, activations, layer):
    for i, expected in enumerate(np.asarray(activations[1]["mlp_out", layer])):
        shown = heatmap(figures[f"mlp_out-{layer}"][i])
        np.testing.assert_allclose(shown, expected, **ROUNDING)


def test_the_mean_is_over_all_sequences(run, monkeypatch):
    monkeypatch.setattr(contents, "BATCH", 100)
    model, tokens = run.model(), run.config.task.sequences()
    logits, cache = model.run_with_cache(tokens[:, :-1])
    activity = contents.mean_view(model, run.config).activity
    for layer in range(2):
        expected = np.asarray(cache["pattern", layer]).mean(axis=0)
        np.testing.assert_allclose(activity.patterns[layer], expected, rtol=0, atol=1e-5)
        expected = np.asarray(cache["mlp_out", layer]).mean(axis=0)
        np.testing.assert_allclose(activity.mlp_outs[layer], expected, rtol=0, atol=1e-5)
    right = np.asarray(logits).argmax(-1)[:, 4:] == tokens[:, 5:]
    np.testing.assert_allclose(activity.right, right.mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["W_in", "W_out"])
def test_weights_are_those_of_the_run(run, figures, name):
    for layer in range(2):
        expected = run.state_dict()[f"blocks.{layer}.mlp.{name}"]
        np.testing.assert_allclose(heatmap(figures[f"{name}-{layer}"][0]), expected, **ROUNDING)


def test_curves_are_those_of_the_run(run, figures):
    for quantity in ("loss", "accuracy"):
        train_curve, holdout_curve, *rest = figures[quantity][0]["data"]
        assert train_curve["x"] == holdout_curve["x"] == run.metrics["step"].tolist()
        for split, curve in (("train", train_curve), ("holdout", holdout_curve)):
            np.testing.assert_allclose(curve["y"], run.metrics[f"{split}_{quantity}"], atol=1e-6)
        for batch_curve in rest:
            assert batch_curve["x"] == run.losses["step"].tolist()
            np.testing.assert_allclose(batch_curve["y"], run.losses["loss"], rtol=1e-3)
    assert figures["loss"][0]["layout"]["yaxis"]["type"] == "log"


def test_a_long_run_is_thinned_out(run):
    from jax_revinc.report import figures

    losses = run.losses.loc[np.repeat(0, 10 * figures.MOST_BATCH_LOSSES + 1)]
    batches = figures.loss_figure(run.metrics, losses).data[-1]
    assert len(batches.x) <= figures.MOST_BATCH_LOSSES
    assert batches.name == "batch (1 in 11)"


def test_answers_are_the_models(run, activations):
    sequences = shown_sequences(run)
    predicted = np.asarray(activations[0]).argmax(-1)[:, 4:]
    views = contents.sample_views(run.model(), run.config)
    assert len(views) == len(sequences)
    for view, sequence, answer in zip(views, sequences, predicted, strict=True):
        assert view.name == " ".join(map(str, sequence[1:5]))
        assert view.answers["target"] == [str(token) for token in sequence[5:]]
        assert view.answers["predicted"] == [str(token) for token in answer]
        assert view.right.tolist() == (answer == sequence[5:]).tolist()


def test_answers_are_marked_right_and_wrong(run):
    view = contents.sample_views(run.model(), run.config)[0]
    view = dataclasses.replace(view, right=np.array([True, False, False, True]))
    table = markup.answers_table(0, view, ["y0", "y1", "y2", "y3"])
    assert re.findall("[✓✗]", table) == ["✓", "✗", "✗", "✓"]


def test_positions_are_named_with_their_tokens(run, figures):
    (sequence, *_) = shown_sequences(run)
    sample, mean = figures["pattern-0-0"][0], figures["pattern-0-0"][-1]
    x = [f"x{i}={token}" for i, token in enumerate(sequence[1:5])]
    y = [f"y{i}={token}" for i, token in enumerate(sequence[5:8])]
    assert sample["data"][0]["x"] == ["BOS", *x, *y]
    assert mean["data"][0]["x"] == ["BOS", "x0", "x1", "x2", "x3", "y0", "y1", "y2"]
    assert mean["data"][0]["y"][3:5] == ["x2", "<b>x3 → y0</b>"]


def test_predicting_rows_are_marked_and_needed_tokens_outlined(figures):
    shapes = figures["pattern-1-0"][0]["layout"]["shapes"]
    bars = [(s["y0"] + s["y1"]) / 2 for s in shapes if s["type"] == "line"]
    outlines = [
        ((s["y0"] + s["y1"]) / 2, (s["x0"] + s["x1"]) / 2) for s in shapes if s["type"] == "rect"
    ]
    assert bars == [4, 5, 6, 7]
    assert outlines == [(4, 4), (5, 3), (6, 2), (7, 1)]


def model(**changes):
    sizes = {"n_layers": 2, "d_model": 4, "d_head": 2, "n_ctx": 9, "d_vocab": 5, "n_heads": 1}
    return HookedTransformerConfig(**sizes | changes)


CONFIGS = {
    "attention only, no norm, two heads, copying three": TrainConfig(
        model=model(n_heads=2, attn_only=True, normalization_type=None),
        task=ReverseIncrement(length=3, reverse=False),
        split="random",
        steps=20,
    ),
    "float64, one layer, two tokens of three": TrainConfig(
        model=model(n_layers=1, d_mlp=6, dtype="float64", normalization_type="LNPre", d_vocab=7),
        task=ReverseIncrement(length=2, n_symbols=3, shift=0),
        batch_size=2,
        steps=20,
    ),
}


@pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)
def test_other_configs_have_a_page(cfg, tmp_path):
    html = report_page(train(cfg, tmp_path / "run"))
    figures = embedded_figures(html)
    fed = 2 * cfg.task.length
    layers = range(cfg.model.n_layers)
    heads = range(cfg.model.n_heads)
    patterns = {f"pattern-{layer}-{head}" for layer in layers for head in heads}
    of_mlps = {f"{name}-{layer}" for name in ("mlp_out", "W_in", "W_out") for layer in layers}
    expected = patterns if cfg.model.attn_only else patterns | of_mlps
    assert set(figures) == {"loss", "accuracy"} | expected
    assert {heatmap(figures[name][0]).shape for name in patterns} == {(fed, fed)}
    assert ("it has no MLPs" in html) == cfg.model.attn_only
    places = [a["data-figure"] for _, a in Elements(html).found if "data-figure" in a]
    assert places == list(figures)


def test_weights_too_large_are_left_out(run, monkeypatch):
    monkeypatch.setattr(contents, "MOST_WEIGHTS", 15)
    html = report_page(run)
    assert "W_in-0" not in embedded_figures(html)
    assert "Matrices of 4 by 4 are too large" in html


def test_a_large_model_shows_fewer_samples(tutorial):
    large = dataclasses.replace(tutorial, model=model(n_layers=12, d_model=256, n_heads=16))
    assert contents.n_samples(tutorial) == 8
    assert 1 <= contents.n_samples(large) < 8


def test_an_unfinished_run_has_no_report(run, tmp_path):
    folder = tmp_path / "unfinished"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns(WEIGHTS, "report.html"))
    with pytest.raises(UserError, match="not finished"):
        write_report(Run.load(folder))
    assert not (folder / "report.html").exists()


def test_percentages_say_100_only_of_a_whole():
    assert contents.percent(1.0) == "100 %"
    assert contents.percent(0.999999) == "99.99 %"
    assert contents.percent(0.5) == "50.00 %"


# In a browser


@pytest.fixture
def opened(open_offline, page):
    """The page in an offline tab, and what went wrong or was asked for, in words."""
    tab, events = open_offline(page)
    tab.locator("[data-figure] .gtitle").nth(len(TITLES) - 1).wait_for()
    return tab, events


def written(tab, figure):
    """The numbers that a reader sees in a heatmap."""
    return tab.locator(f"[data-figure='{figure}'] .heatmap-label").all_text_contents()


def test_the_page_opens_offline_without_a_complaint(opened, page):
    tab, events = opened
    assert [e for e in events if not e.startswith("request: data:")] == [
        f"request: {page.as_uri()}"
    ]
    titles = tab.locator("[data-figure] .gtitle").all_text_contents()
    assert titles == TITLES
    assert tab.locator("[data-figure]").count() == len(TITLES)


def test_the_heatmap_that_is_seen_is_the_cache(opened, activations):
    tab, _ = opened
    pattern = np.asarray(activations[1]["pattern", 1])[0, 0]
    numbers = [float(text) for text in written(tab, "pattern-1-0") if text]
    assert len(numbers) == 36
    past = np.tril_indices_from(pattern)
    np.testing.assert_allclose(sorted(numbers), sorted(pattern[past]), rtol=0, atol=0.0051)


@pytest.mark.parametrize("choice", [3, contents.MOST_SAMPLES])
def test_choosing_a_view_changes_what_is_shown(opened, figures, choice):
    tab, events = opened
    before = {name: written(tab, name) for name in figures}
    tab.locator(f"label:has(input[value='{choice}'])").click()
    after = {name: written(tab, name) for name in figures}
    changed = {name for name in figures if before[name] != after[name]}
    assert changed == {name for name in figures if name.startswith(("pattern", "mlp_out"))}
    shown = heatmap(figures["pattern-0-0"][choice])
    numbers = [float(text) for text in after["pattern-0-0"] if text]
    np.testing.assert_allclose(
        sorted(numbers), sorted(shown[~np.isnan(shown)]), rtol=0, atol=0.0051
    )
    assert tab.locator("[data-view]:visible").get_attribute("data-view") == str(choice)
    assert not [event for event in events if event.startswith("error")]


def test_figures_follow_the_colour_scheme_and_paper_is_light(opened):
    tab, _ = opened
    title = tab.locator("[data-figure='loss'] .gtitle")

    def drawn_in(theme):
        colour = [int(theme.ink[i : i + 2], 16) for i in (1, 3, 5)]
        return (
            title.evaluate("t => getComputedStyle(t).fill")
            == f"rgb({colour[0]}, {colour[1]}, {colour[2]})"
        )

    assert drawn_in(LIGHT)
    tab.emulate_media(color_scheme="dark")
    assert drawn_in(DARK)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert drawn_in(LIGHT)
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert drawn_in(DARK)


def test_nothing_sticks_out_of_a_telephone(opened):
    tab, _ = opened
    tab.set_viewport_size({"width": 360, "height": 800})
    tab.reload()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
