"""The page of a report: that it says what was found, needs nothing else, and works in a browser."""

import math
import re

import numpy as np
import pytest
from flax import nnx
from pages import look_at_all

import parity
from jax_revinc import HookedTransformer, TrainConfig
from parity.comparison import Comparison
from parity.free_running_level import Partings, Verdict
from parity.level_explanations import EXPLANATIONS
from parity.levels import TITLES, Level
from parity.outcome_comparison import TwoSampleTest
from parity.page import parity_page, write_page
from parity.population_level import RERUN_BOUND, Rerun
from parity.report import Report
from parity.worst_row import worst

CFG = TrainConfig().model
TOKENS = TrainConfig().task.sequences()[::32]
ODD = "<b>a & b"


@pytest.fixture(scope="module")
def model():
    return HookedTransformer(CFG, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def good(model):
    return parity.compare(model, parity.to_torch(model), TOKENS, ["L0", "L1"])


@pytest.fixture(scope="module")
def bad(model):
    other = HookedTransformer(CFG.replace(act_fn="gelu"), params=model.params)
    return parity.compare(other, parity.to_torch(model), TOKENS, ["L1"], dtypes=["float64"])


def comparison(**changes):
    found = {"name": "x", "shape": (), "error": 1e-13, "bound": 1e-12}
    return Comparison(**found | changes)


def report(*rows, **changes):
    level = Level(**{"name": "L1", "dtype": "float64", "rows": rows} | changes)
    return Report("two models", [level], {"jax": "0"}, {})


@pytest.mark.parametrize(
    ("row", "share"),
    [
        (comparison(), 0.1),
        (comparison(error=2e-12), 2.0),
        (comparison(error=0.0, bound=0.0), 0.0),
        (comparison(error=1e-20, bound=0.0), math.inf),
        (comparison(error=math.nan), math.inf),
        (Verdict(p=1e-3), 1.0),
        (Rerun("seed 0", 1e-3, RERUN_BOUND / 4), 0.25),
        (TwoSampleTest("n", "share", *[0.5] * 6, 0.5, 0.005, 0, 1), 0.01),
        (Partings("seed 0", 9, 5, {}, {"JAX": [4, 6]}), 0.0),
    ],
)
def test_how_much_of_its_bound_a_row_uses(row, share):
    assert row.used == pytest.approx(share)
    assert row.passed == (share < 1) or share == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([comparison(name="a"), comparison(name="b", error=5e-13)], "b at 5.0e-13, 50% of its bound"),
        ([comparison(error=5e-11)], "x at 5.0e-11, 50 times its bound"),
        ([comparison(error=0.0)], "all the same"),
        ([comparison(error=1.0, known="so it is")], "all differ, as known"),
        ([comparison(known="so it is")], "x: agrees, though it is known to differ"),
        ([comparison(error=math.inf, note="no such tensor in JAX")], "x: no such tensor in JAX"),
        ([comparison(error=math.inf)], "x: infinite or NaN where the other side is not"),
        ([comparison(error=1e-9, bound=0.0)], "x at 1.0e-09, where no difference is allowed"),
        ([], "nothing was compared"),
    ],
)  # fmt: skip
def test_a_levels_worst_row_in_words(rows, said):
    assert worst(Level("L1", "float64", rows)) == said


def test_every_level_is_explained():
    assert EXPLANATIONS.keys() == TITLES.keys()


def test_agreement_is_the_headline(good):
    page = parity_page(good)
    assert re.search(
        r'<h1><span class="badge right">PASS</span> No difference found( except known ones)?</h1>',
        page,
    )
    for level in good.levels:
        assert page.count(f"Table of all {len(level.rows)}, {level.dtype} precision")


def test_a_difference_is_the_headline_and_the_failed_rows_come_first(bad):
    page = parity_page(bad)
    assert re.search(r'<h1><span class="badge wrong">FAIL</span> Different at L1</h1>', page)
    assert "first divergence: blocks.0.mlp.hook_post" in page
    kinds = re.findall(r'<tr class="(\w*)"><td>\d+</td><th scope="row">', page)
    n_failed = len(bad.levels[0].failures)
    assert len(kinds) == len(bad.levels[0].rows)
    assert kinds[:n_failed] == ["failed"] * n_failed
    assert "failed" not in kinds[n_failed:]


def test_a_known_difference_and_its_reason_are_shown():
    page = parity_page(report(comparison(), comparison(error=1.0, known=ODD)))
    assert "No difference found except known ones" in page
    assert "&lt;b&gt;a &amp; b" in page


def test_names_and_remarks_are_escaped():
    page = parity_page(report(comparison(name=ODD, error=1.0, note=ODD), remarks=[ODD]))
    assert ODD not in page.replace("\\u003c", "<").split("<script")[0]


def test_rows_that_allow_no_error_have_no_chart():
    page = parity_page(report(comparison(error=0.0, bound=0.0), name="L0", dtype="any"))
    assert "data-figure" not in page
    assert "<script" not in page


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(good, tmp_path, full_disk):
    path = tmp_path / "parity.html"
    path.write_text("earlier")
    with full_disk(100), pytest.raises(OSError, match="large"):
        write_page(good, path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_opens_offline_and_its_charts_show_every_tensor(good, tmp_path, open_offline):
    path = write_page(good, tmp_path / "parity.html")
    tab, events = open_offline(path)
    look_at_all(tab)
    assert [e for e in events if not e.startswith("request: data:")] == [
        f"request: {path.as_uri()}"
    ]
    drawn = [level for level in good.levels if level.name != "L0"]
    charts = tab.locator("[data-figure]")
    counts = [charts.nth(i).locator(".points path").count() for i in range(charts.count())]
    assert counts == [len(level.rows) for level in drawn]


def test_a_closed_table_opens_by_keyboard(good, tmp_path, open_offline):
    tab, _ = open_offline(write_page(good, tmp_path / "parity.html"))
    summary = tab.get_by_text(f"Table of all {len(good.levels[1].rows)}, float64 precision")
    row = tab.get_by_role("rowheader", name="ln_final.hook_scale", exact=True).first
    assert not row.is_visible()
    summary.focus()
    tab.keyboard.press("Enter")
    assert row.is_visible()


def test_nothing_sticks_out_of_a_telephone(bad, tmp_path, open_offline):
    tab, _ = open_offline(write_page(bad, tmp_path / "parity.html"))
    tab.set_viewport_size({"width": 360, "height": 800})
    tab.reload()
    look_at_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_errors_of_all_sizes_are_drawn(tmp_path):
    errors = [0.0, 1e-300, 1e-13, 1e300, math.inf, math.nan]
    page = parity_page(report(*[comparison(error=error) for error in errors]))
    assert "NaN" not in re.search(r'id="pictures">(.*?)</script>', page, re.S)[1]
    assert np.isfinite(
        [float(y) for y in re.findall(r'"range": ?\[(-?[\d.]+), ?-?[\d.]+\]', page)]
    ).all()
