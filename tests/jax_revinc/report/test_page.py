"""The report page: what it holds, that it needs nothing else, and that it works in a browser."""

import copy
import dataclasses
import functools
import json
import operator
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import escape
from pages import look_at, look_at_all

from jax_revinc import (
    HookedTransformerConfig,
    ReverseIncrement,
    Run,
    TrainConfig,
    UserError,
    train,
)
from jax_revinc.analysis.claims import claims
from jax_revinc.analysis.effects import ablation_costs
from jax_revinc.analysis.increment import component_labels
from jax_revinc.plots import training
from jax_revinc.plots.heatmaps import DECIMALS
from jax_revinc.plots.theme import DARK, LIGHT
from jax_revinc.report import model_behaviour, model_findings
from jax_revinc.report.page import report_page, write_report
from jax_revinc.report.render_html import asset, make_environment
from jax_revinc.report.subject import subject_of_run
from revinc.dataset import make_dataset
from revinc.number_format import percentage
from revinc.runs import WEIGHTS

ROUNDING = {"rtol": 0, "atol": 0.51 * 10**-DECIMALS}
FOUR_DIGITS = 5.01e-4
"""Relative error of a number rounded to four significant digits."""
OF_A_SEQUENCE = ["pattern-0-0", "pattern-1-0", "attribution", "mlp_out-0", "mlp_out-1"]
OF_EFFECTS = ["patching-resid_pre", "patching-attn_out", "patching-mlp_out", "patching-z"]
OF_EFFECTS += ["paths", "ablation", "ablation-position"]
OF_CIRCUITS = ["qk-0-0", "ov-0-0", "qk-1-0", "ov-1-0", "mlp-0", "mlp-1", "direct"]
OF_CIRCUITS += [f"increment-{c}" for c in ("embed", "L0H0", "L1H0", "0_mlp_out", "1_mlp_out")]
OF_MLPS = ["W_in-0", "W_out-0", "W_in-1", "W_out-1"]
OF_SNAPSHOTS = ["forming-0-0", "forming-1-0"]
N_PROGRAMS = 4
"""What a page compiles: the activity on sequences, patterns of snapshots, own predictions, the findings."""

NAMES = [
    "loss",
    "accuracy",
    *OF_SNAPSHOTS,
    "reading",
    *OF_A_SEQUENCE,
    *OF_EFFECTS,
    *OF_CIRCUITS,
    *OF_MLPS,
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
    """The model's logits and cache on the sequences that the page shows."""
    return run.model().run_with_cache(shown_sequences(run)[:, :-1])


def shown_sequences(run):
    """All sequences in the order of the page: holdout first."""
    dataset = make_dataset(run.config)
    return dataset.tokens[np.concatenate([dataset.holdout_rows, dataset.train_rows])]


def embedded_figures(html):
    """Figures by name, each a list with one for every version, as the page's script makes them."""
    data = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', html, re.S)
    pictures = json.loads(data[1])["pictures"]
    return {name: [*versions(picture)] for name, picture in pictures.items()}


def versions(picture):
    for version in picture["versions"] or [{}]:
        figure = copy.deepcopy(picture["figure"])
        for path, value in version.items():
            *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
            functools.reduce(operator.getitem, keys, figure)[last] = value
        yield figure


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


COUNTING = """
import collections, json, sys
import jax
from jax_revinc import Run
from jax_revinc.report import page
events = collections.Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.update([event]))
print(page.write_report(Run.load(sys.argv[1])))
print(json.dumps(events))
"""


def test_another_process_loads_four_programs_and_writes_the_same_page(page, html):
    command = [sys.executable, "-c", COUNTING, str(page.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    path, events = result.stdout.splitlines()
    assert path == str(page)
    assert json.loads(events)["/jax/core/compile/backend_compile_duration"] == N_PROGRAMS
    assert page.read_text(encoding="utf-8") == html


def test_the_page_refers_to_nothing_outside_it(html):
    elements = Elements(html).found
    references = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset", "data", "poster")
    ]
    within = [place for place in references if place.startswith("#")]
    assert {place[1:] for place in within} <= {a["id"] for _, a in elements if "id" in a}
    assert [place for place in references if place not in within] == ["data:,"]
    policies = [a["content"] for _, a in elements if "http-equiv" in a]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_stays_small(html):
    assert len(html.encode()) < 3_500_000  # with all of the 256 sequences


def test_names_are_escaped(html):
    assert "&lt;b&gt;a &amp; b" in html
    assert "<b>a & b" not in html


def test_scripts_and_data_can_not_end_their_element(monkeypatch, tmp_path):
    template = make_environment().from_string("{{ data | tojson }}")
    text = template.render(data={"</script>": "<!--"})
    assert "<" not in text
    assert json.loads(text) == {"</script>": "<!--"}
    monkeypatch.setattr("jax_revinc.report.render_html.resources.files", lambda package: tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "own.js").write_text("'</script>'")
    assert "</script" not in asset("own.js")


def test_text_is_escaped_and_on_one_line():
    template = make_environment().from_string("<p title='{{ text }}'>{{ text }}</p>")
    escaped = "&lt;b&gt;&#39;\\n\\x1b"
    assert template.render(text="<b>'\n\x1b") == f"<p title='{escaped}'>{escaped}</p>"


def test_every_figure_is_there(run, figures):
    assert list(figures) == NAMES
    n_versions = dict.fromkeys(NAMES, 1)
    n_versions |= dict.fromkeys(OF_A_SEQUENCE, 256 + 1)
    n_versions |= dict.fromkeys(OF_SNAPSHOTS, len(run.snapshot_steps))
    assert {name: len(versions) for name, versions in figures.items()} == n_versions


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
    monkeypatch.setattr(model_behaviour, "BATCH", 100)
    model, tokens = run.model(), run.config.task.sequences()
    logits, cache = model.run_with_cache(tokens[:, :-1])
    activity = model_behaviour.mean_view(subject_of_run(run)).activity
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
            np.testing.assert_allclose(
                curve["y"], run.metrics[f"{split}_{quantity}"], rtol=FOUR_DIGITS
            )
        for batch_curve in rest:
            assert batch_curve["x"] == run.losses["step"].tolist()
            np.testing.assert_allclose(batch_curve["y"], run.losses["loss"], rtol=FOUR_DIGITS)
    assert figures["loss"][0]["layout"]["yaxis"]["type"] == "log"


def test_a_long_run_is_thinned_out(run):
    losses = run.losses.loc[np.repeat(0, 10 * training.MOST_BATCH_LOSSES + 1)]
    batches = training.loss_figure(run.metrics, losses).data[-1]
    assert len(batches.x) <= training.MOST_BATCH_LOSSES
    assert batches.name == "batch (1 in 11)"


def test_answers_are_the_models(run, activations):
    sequences = shown_sequences(run)
    predicted = np.asarray(activations[0]).argmax(-1)[:, 4:]
    samples = model_behaviour.sample_views(subject_of_run(run))
    assert len(samples) == len(sequences)
    for view, sequence, answer in zip(samples, sequences, predicted, strict=True):
        assert view.name == " ".join(map(str, sequence[1:5]))
        assert view.answers["target"] == [str(token) for token in sequence[5:]]
        assert view.answers["predicted"] == [str(token) for token in answer]
        assert view.right.tolist() == (answer == sequence[5:]).tolist()


def test_answers_are_marked_right_and_wrong(run):
    view = model_behaviour.sample_views(subject_of_run(run))[0]
    assert view.split == "holdout"
    view = dataclasses.replace(view, right=np.array([True, False, False, True]))
    macros = make_environment().get_template("macros.html").module
    table = macros.answers([view], ["y0", "y1", "y2", "y3"])
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


@pytest.mark.slow
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
    of_a_run = {"loss", "accuracy", "attribution"}
    shown = {name for name in figures if name.startswith(("pattern-", "mlp_out-", "W_"))}
    assert shown == expected
    assert of_a_run <= set(figures)
    assert not cfg.model.attn_only or not [name for name in figures if name.startswith("mlp")]
    assert {heatmap(figures[name][0]).shape for name in patterns} == {(fed, fed)}
    assert ("it has no MLPs" in html) == cfg.model.attn_only
    places = [a["data-figure"] for _, a in Elements(html).found if "data-figure" in a]
    assert places == list(figures)


def test_weights_too_large_are_left_out(run, monkeypatch):
    monkeypatch.setattr(model_findings, "MOST_WEIGHTS", 15)
    html = report_page(run)
    assert "W_in-0" not in embedded_figures(html)
    assert "Matrices of 4 by 4 are too large" in html


def test_a_large_model_shows_fewer_samples(tutorial):
    large = dataclasses.replace(tutorial, model=model(n_layers=12, d_model=256, n_heads=16))
    assert model_behaviour.n_samples(tutorial.model, tutorial.task) == 256
    assert 1 <= model_behaviour.n_samples(large.model, large.task) < 20


def test_an_unfinished_run_has_no_report(run, tmp_path):
    folder = tmp_path / "unfinished"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns(WEIGHTS, "report.html"))
    with pytest.raises(UserError, match="not finished"):
        write_report(Run.load(folder))
    assert not (folder / "report.html").exists()


def test_percentages_say_100_only_of_a_whole():
    assert percentage(1.0) == "100%"
    assert percentage(0.999999) == "99.99%"
    assert percentage(0.5) == "50.00%"


def test_claims_and_their_evidence_are_on_the_page(run, html):
    found = claims(run.model(), run.config.task)
    for sentence in found.sentences(run.config.model):
        assert f"<li>{escape(sentence)}</li>" in html
    for name in component_labels(run.config.model):
        assert f'<th scope="row">{name}</th>' in html


def test_votes_add_up_to_the_margin_of_the_right_token(run, figures, activations):
    sequences = shown_sequences(run)
    logits = np.asarray(activations[0])[:, 4:]
    right = np.take_along_axis(logits, sequences[:, 5:, None], axis=-1)[..., 0]
    margins = right - (logits.sum(-1) - right) / (logits.shape[-1] - 1)
    votes = [heatmap(figure).sum(axis=0) for figure in figures["attribution"][:-1]]
    np.testing.assert_allclose(votes, margins, rtol=1e-4, atol=1e-3)


def test_putting_everything_right_at_the_source_brings_most_back(figures):
    whole = heatmap(figures["patching-resid_pre"][0])
    assert whole.shape == (2, 8)
    np.testing.assert_allclose(whole[0, [0, 5, 6, 7]][:1], 0, atol=1e-4)  # BOS is the same in both
    assert whole[0].sum() > 0.2


def test_the_cost_of_ablation_is_that_of_the_analysis(run, figures):
    costs = ablation_costs(run.model(), run.config.task)["accuracy_change"].sort_index()
    shown = heatmap(figures["ablation"][0])
    assert shown.shape == (len(figures["ablation"][0]["data"][0]["y"]), 3)
    mlp = figures["ablation"][0]["data"][0]["y"].index("L1 mlp_out")
    methods = figures["ablation"][0]["data"][0]["x"]
    for method, value in zip(methods, shown[mlp], strict=True):
        expected = -costs[method, "MLP", "blocks.1.hook_mlp_out"].item()
        assert value == pytest.approx(expected, abs=1e-4)


# In a browser


def unfold(tab, section=""):
    """Open a section that is folded, such as "#settings", or all."""
    folded = tab.locator(f"section{section} > details:not([open]) > summary")
    while folded.count():
        folded.first.click()


@pytest.fixture
def opened(open_offline, page):
    """The page in an offline tab, and what went wrong or was asked for, in words."""
    return open_offline(page)


@pytest.fixture(scope="module")
def shared(open_shared, page):
    """The page in a tab for tests that leave it as they found it, and what went wrong."""
    return open_shared(page)


def written(tab, figure):
    """The numbers that a reader sees in a heatmap."""
    look_at(tab, figure)
    return tab.locator(f"[data-figure='{figure}'] .heatmap-label").all_text_contents()


def test_the_page_opens_offline_without_a_complaint(opened, page):
    tab, events = opened
    unfold(tab)
    look_at_all(tab)
    assert [e for e in events if not e.startswith("request: data:")] == [
        f"request: {page.as_uri()}"
    ]
    places = tab.locator("[data-figure]")
    assert [place.get_attribute("data-figure") for place in places.all()] == NAMES
    titles = tab.locator("[data-figure] .gtitle").all_text_contents()
    assert titles == [place.get_attribute("aria-label") for place in places.all()]


def test_the_heatmap_that_is_seen_is_the_cache(shared, activations):
    tab, _ = shared
    pattern = np.asarray(activations[1]["pattern", 1])[0, 0]
    numbers = [float(text) for text in written(tab, "pattern-1-0") if text]
    assert len(numbers) == 36
    past = np.tril_indices_from(pattern)
    np.testing.assert_allclose(sorted(numbers), sorted(pattern[past]), rtol=0, atol=0.0051)


def choose_from_the_list(tab, name, index):
    tab.locator(".chooser select").select_option(str(index))


def type_the_sequence(tab, name, index):
    tab.locator(".chooser input").fill(name.replace(" ", ""))
    tab.keyboard.press("Enter")


@pytest.mark.parametrize(("ask", "index"), [(choose_from_the_list, 3), (type_the_sequence, 200)])
def test_choosing_a_sequence_changes_what_is_shown(opened, run, figures, ask, index):
    tab, events = opened
    name = " ".join(map(str, shown_sequences(run)[index][1:5]))
    unfold(tab)
    before = {name: written(tab, name) for name in figures}
    ask(tab, name, index)
    after = {name: written(tab, name) for name in figures}
    changed = {name for name in figures if before[name] != after[name]}
    assert changed == set(OF_A_SEQUENCE)
    shown = heatmap(figures["pattern-0-0"][index])
    numbers = [float(text) for text in after["pattern-0-0"] if text]
    np.testing.assert_allclose(
        sorted(numbers), sorted(shown[~np.isnan(shown)]), rtol=0, atol=0.0051
    )
    assert tab.locator("[data-sequence]:visible").get_attribute("data-sequence") == str(index)
    assert tab.locator(".chooser option:checked").get_attribute("data-name") == name
    assert not [event for event in events if event.startswith("error")]


def test_sequences_one_by_one_and_the_next_mistake(opened, run, activations):
    tab, _ = opened
    shown = tab.locator("[data-sequence]:visible")

    def click(label):
        tab.get_by_role("button", name=label).click()
        return int(shown.get_attribute("data-sequence"))

    assert click("next →") == 1
    assert click("← previous") == 0
    assert click("← previous") == 256
    answers = np.asarray(activations[0]).argmax(-1)[:, 4:]
    wrong = np.flatnonzero((answers != shown_sequences(run)[:, 5:]).any(axis=1))
    assert [click("next mistake") for _ in range(2)] == wrong[:2].tolist()
    assert "✗" in shown.text_content()


def test_beside_a_box_with_a_bad_sequence_stands_what_is_expected(shared):
    tab, _ = shared
    box, complaint = tab.locator(".chooser input"), tab.locator(".chooser .complaint")
    plain = box.evaluate("box => getComputedStyle(box).borderColor")
    red = [int(LIGHT.wrong[i : i + 2], 16) for i in (1, 3, 5)]
    for typed in ("9 9 9 9", "0", "<b>"):
        box.fill(typed)
        tab.keyboard.press("Enter")
        assert complaint.text_content() == (
            "type 4 tokens, each one of 0, 1, 2, 3, such as 3 0 2 0"
        )
        assert box.get_attribute("aria-invalid") == "true"
        border = box.evaluate("box => getComputedStyle(box).borderColor")
        assert border == "rgb({}, {}, {})".format(*red)
        across = complaint.bounding_box()["x"] - box.bounding_box()["x"]
        assert 0 < across - box.bounding_box()["width"] < 20
        assert tab.locator("[data-sequence]:visible").get_attribute("data-sequence") == "0"
        tab.get_by_role("button", name="← previous").click()
        tab.get_by_role("button", name="next →").click()
        assert complaint.text_content() == ""
        assert box.evaluate("box => getComputedStyle(box).borderColor") == plain


def test_an_empty_box_is_no_mistake(shared):
    tab, _ = shared
    tab.locator(".chooser input").fill("9")
    tab.keyboard.press("Enter")
    tab.locator(".chooser input").fill("")
    tab.keyboard.press("Enter")
    assert tab.locator(".chooser .complaint").text_content() == ""


def test_only_settings_that_differ_from_the_preset_are_unfolded(opened, run):
    tab, _ = opened
    unfold(tab, "#settings")
    shown = tab.locator("#settings tr:visible th")
    assert shown.all_text_contents() == ["steps", "snapshots"]
    tab.get_by_text("All settings").click()
    sections = [*run.config.to_dict().values(), run.engine, run.versions]
    assert shown.count() == 2 + sum(map(len, sections))


@pytest.mark.parametrize("width", [360, 1280])
def test_no_setting_is_broken_or_printed_over_another(opened, width):
    tab, _ = opened
    tab.set_viewport_size({"width": width, "height": 800})
    unfold(tab, "#settings")
    tab.get_by_text("All settings").click()
    tables = [table.bounding_box() for table in tab.locator("#settings table").all()]
    assert all(box["x"] + box["width"] <= width for box in tables)
    cells = tab.locator("#settings :is(th, td)")
    lines = cells.evaluate_all("""cells => cells.map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return [cell.textContent, new Set([...range.getClientRects()].map((r) => r.top)).size];
    })""")
    assert [text for text, n_lines in lines if n_lines > 1 and " " not in text] == []
    beside = cells.evaluate_all("cells => cells.map((c) => c.scrollWidth - c.clientWidth)")
    assert max(beside) <= 0


def test_a_layer_can_be_looked_at_alone(shared):
    tab, _ = shared
    chooser = tab.locator(".filter select[name=layer]")
    chooser.select_option("1")
    visible = [
        p.get_attribute("data-figure")
        for p in tab.locator("[data-layer] > div").all()
        if p.is_visible()
    ]
    assert visible == ["pattern-1-0", "mlp_out-1"]
    chooser.select_option("all")
    assert tab.locator("[data-layer]:visible").count() == 4


def test_the_page_can_be_used_by_keyboard_alone(opened):
    tab, _ = opened
    tab.locator(".chooser select").focus()
    tab.keyboard.press("ArrowDown")
    assert tab.locator("[data-sequence]:visible").get_attribute("data-sequence") == "1"
    for _ in range(3):  # past the text field and "previous", to "next"
        tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    assert tab.locator("[data-sequence]:visible").get_attribute("data-sequence") == "2"


def test_a_slider_shows_the_circuit_forming(shared, run, figures):
    tab, events = shared
    said, slider = tab.locator(".slider output"), tab.locator(".slider input")
    place = "forming-1-0"
    tokens = run.config.task.sequences()[:, :-1]
    past = np.tril_indices(tokens.shape[1])
    slider.focus()
    tab.keyboard.press("Home")
    for i, step in enumerate(run.snapshot_steps):
        mean = np.asarray(run.model(step).run_with_cache(tokens)[1]["pattern", 1]).mean(0)[0]
        np.testing.assert_allclose(heatmap(figures[place][i])[past], mean[past], **ROUNDING)
        numbers = [float(text) for text in written(tab, place) if text]
        np.testing.assert_allclose(sorted(numbers), sorted(mean[past]), rtol=0, atol=0.0052)
        assert said.text_content().startswith(f"step {step:,}")
        tab.keyboard.press("ArrowRight")
    assert not [event for event in events if event.startswith("error")]


def test_figures_follow_the_colour_scheme_and_paper_is_light(opened):
    from playwright.sync_api import expect  # it waits: a page hears of a new scheme after a while

    tab, _ = opened
    title = tab.locator("[data-figure='loss'] .gtitle")
    look_at(tab, "loss")

    def is_drawn_in(theme):
        colour = [int(theme.ink[i : i + 2], 16) for i in (1, 3, 5)]
        expect(title).to_have_css("fill", "rgb({}, {}, {})".format(*colour))

    is_drawn_in(LIGHT)
    tab.emulate_media(color_scheme="dark")
    is_drawn_in(DARK)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    is_drawn_in(LIGHT)
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    is_drawn_in(DARK)


def test_nothing_sticks_out_of_a_telephone(opened):
    tab, _ = opened
    tab.set_viewport_size({"width": 360, "height": 800})
    tab.reload()
    look_at_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
