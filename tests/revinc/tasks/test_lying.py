"""Tasks of one's own that lie about themselves: they train, or they are refused in one sentence."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revinc import Task, TrainConfig, UserError
from revinc.config_parser import make_config_parser, parse_config, preset
from revinc.dataset import make_dataset
from revinc.tasks import SAMPLE, DrawnTask, check_task, recordable, task_flag

PAIRS = np.array([[i, j, (i + j) % 4] for i in range(4) for j in range(4)])
MASK = np.array([False, False, True])


@dataclasses.dataclass(frozen=True)
class Sums(Task):
    """A task that fits together; each of those below has one part that does not."""

    n: int = 4
    vocabulary = ("0", "1", "2", "3")

    def sequences(self):
        return PAIRS

    def loss_mask(self):
        return MASK


@dataclasses.dataclass(frozen=True)
class DrawnSums(DrawnTask):
    """The same, drawn."""

    n: int = 4
    vocabulary = ("0", "1", "2", "3")
    n_words = 2

    def loss_mask(self):
        return MASK

    def draw(self, words):
        pairs = (words % 4).astype(np.int64)
        return np.concatenate([pairs, pairs.sum(axis=1, keepdims=True) % 4], axis=1)


def lying(truth, **parts):
    """A task that says `parts` of itself, and for the rest the truth; a method is given as what it returns."""

    def method(value):
        return lambda self, *_: value

    methods = {"loss_mask", "sequences", "draw"}
    said = {
        name: method(value) if name in methods and not callable(value) else value
        for name, value in parts.items()
    }
    return type("Lying", (truth,), {"__module__": __name__, **said})()


def raising(*_):
    raise RuntimeError("no\nidea")


ids = DrawnSums().draw

TEXTS = ("vocabulary", "position_labels", "title", "description")

WRONG = {
    "mask, a list": (Sums, {"loss_mask": [False, False, True]}, "loss_mask", "NumPy array"),
    "mask, None": (Sums, {"loss_mask": None}, "loss_mask", "None"),
    "mask, integers": (Sums, {"loss_mask": np.array([0, 0, 1])}, "loss_mask", "int64"),
    "mask, two axes": (Sums, {"loss_mask": MASK[None]}, "loss_mask", "[1, 3]"),
    "mask, longer": (
        Sums,
        {"loss_mask": np.array([False, True, True, True])},
        "3 tokens",
        "has 4 entries",
    ),
    "ids beyond 32 bits": (Sums, {"sequences": PAIRS + 2**40}, "example 0", 2**40, "from 0 to 3"),
    "ids below 0": (Sums, {"sequences": PAIRS - 1}, "example 0 has the token id -1"),
    "ids, floats": (Sums, {"sequences": PAIRS + 0.0}, "token ids", "float64"),
    "ids of no number of rows": (Sums, {"sequences": [[0, 1], [0]]}, "sequences()", "raised"),
    "ids, text": (Sums, {"sequences": "0123"}, "sequences()", "token ids"),
    "drawn beyond 32 bits": (
        DrawnSums,
        {"draw": lambda _, w: ids(w) + 2**40},
        "sample",
        "id 10995",
    ),
    "drawn floats": (DrawnSums, {"draw": lambda _, w: ids(w) + 0.9}, "draw()", "float64"),
    "drawn below 0": (DrawnSums, {"draw": lambda _, w: ids(w) - 7}, "token id -"),
    "drawn, too few": (DrawnSums, {"draw": lambda _, w: ids(w)[:1]}, "makes 1 examples of 1024"),
    "drawn, too long": (
        DrawnSums,
        {"draw": lambda _, w: np.concatenate([ids(w), ids(w)], axis=1)},
        "6 tokens",
    ),
    "drawn, nothing": (DrawnSums, {"draw": lambda _, w: None}, "draw()", "object"),
    "drawn from the number of rows": (
        DrawnSums,
        {"draw": lambda _, w: ids(w) if len(w) in (1, SAMPLE) else ids(w) * 0},
        "own row of words",
    ),
    "drawn from other rows": (
        DrawnSums,
        {"draw": lambda _, w: np.sort(ids(w), axis=0)},
        "own row of words",
    ),
    "drawn by another class": (Sums, {"is_drawn": True}, "DrawnTask"),
    "is_drawn, None": (Sums, {"is_drawn": None}, "is_drawn"),
    "words, a float": (DrawnSums, {"n_words": 2.0}, "n_words", "2.0"),
    "words, none": (DrawnSums, {"n_words": 0}, "n_words"),
    "words, too many": (DrawnSums, {"n_words": 10**12}, "n_words"),
    "words, an array": (DrawnSums, {"n_words": np.array([2, 2])}, "n_words"),
    "solved, NaN": (Sums, {"solved": float("nan")}, "solved", "nan"),
    "solved, 2": (Sums, {"solved": 2.0}, "solved", "2.0"),
    "solved, 0": (Sums, {"solved": 0}, "solved"),
    "solved, True": (Sums, {"solved": True}, "solved"),
    "solved, text": (Sums, {"solved": "much"}, "solved", "much"),
    "vocabulary, integers": (Sums, {"vocabulary": (0, 1, 2, 3)}, "vocabulary", "strings"),
    "vocabulary, a list": (Sums, {"vocabulary": list("0123")}, "vocabulary", "tuple"),
    "vocabulary, text": (Sums, {"vocabulary": "0123"}, "vocabulary", "tuple"),
    "vocabulary, doubles": (Sums, {"vocabulary": tuple("0122")}, "vocabulary", "no label twice"),
    "vocabulary, empty": (Sums, {"vocabulary": ()}, "vocabulary"),
    "vocabulary, a method": (Sums, {"vocabulary": lambda self: tuple("0123")}, "vocabulary"),
    "vocabulary, an escape": (Sums, {"vocabulary": ("0", "1", "2", "\x1b[31m")}, r"'\x1b'"),
    "vocabulary, half a character": (Sums, {"vocabulary": ("0", "1", "2", "\ud800")}, r"\ud800"),
    "labels, integers": (Sums, {"position_labels": (0, 1, 2)}, "position_labels", "strings"),
    "labels, too few": (Sums, {"position_labels": ("a", "b")}, "position_labels"),
    "labels, an escape": (Sums, {"position_labels": ("a", "b", "\x9b")}, "position_labels"),
    "sources, far": (Sums, {"sources": (99,), "answers": (0, 1, 2, 3)}, "sources", 99),
    "sources, below 0": (Sums, {"sources": (-1,), "answers": (0, 1, 2, 3)}, "sources", -1),
    "sources, at the answer": (Sums, {"sources": (2,), "answers": (0, 1, 2, 3)}, "sources"),
    "sources, text": (Sums, {"sources": "0", "answers": (0, 1, 2, 3)}, "sources", "tuple"),
    "sources, floats": (Sums, {"sources": (0.0,), "answers": (0, 1, 2, 3)}, "sources", "0.0"),
    "sources, an array": (Sums, {"sources": np.array([0])}, "sources", "tuple"),
    "answers, none": (Sums, {"sources": (0,)}, "answers must cover", "0 to 3"),
    "answers, too few": (Sums, {"sources": (0,), "answers": (0, 1, 2)}, "0 to 3, and there are 3"),
    "answers, far": (Sums, {"sources": (0,), "answers": (0, 1, 2, 9)}, "answers must be token ids"),
    "answers, others": (
        Sums,
        {"sources": (0,), "answers": (0, 1, 2, 3)},
        "answers disagree with its sequences",
    ),
    "title, half a character": (Sums, {"title": "\udfff"}, "title", "can't be printed"),
    "title, a number": (Sums, {"title": 3}, "title", "string"),
    "description, None": (Sums, {"description": None}, "description", "string"),
    **{
        f"{name} raises": (Sums, {name: property(raising)}, name, "RuntimeError: no idea")
        for name in (*TEXTS, "solved", "sources", "answers", "is_drawn")
    },
    "n_words raises": (DrawnSums, {"n_words": property(raising)}, "n_words", "RuntimeError"),
    "draw raises": (DrawnSums, {"draw": raising}, "draw()", "RuntimeError: no idea"),
}


def recipe(task):
    return TrainConfig(
        model=TrainConfig().model.replace(d_vocab=4), task=task, batch_size=4, steps=4, split_seed=1
    )


@pytest.mark.parametrize("lie", WRONG)
def test_a_part_that_does_not_fit_is_named(refuses_in_one_line, lie):
    truth, parts, *phrases = WRONG[lie]
    with refuses_in_one_line(UserError, "Lying", *phrases):
        check_task(lying(truth, **parts))


def liar_by_flag(monkeypatch, **parts):
    """The config of a command whose ``--task`` names a task that lies."""
    liar = type(lying(Sums, **parts))
    monkeypatch.setitem(vars(sys.modules[__name__]), "Lying", liar)
    words = ["--task", f"{__name__}:Lying"]
    return parse_config(make_config_parser("train"), words, preset)[0]


@pytest.mark.parametrize(
    "parts",
    [
        {"loss_mask": None},
        {"loss_mask": raising},
        {"vocabulary": None},
        {"vocabulary": ()},
        {"vocabulary": property(raising)},
        {"position_labels": 5},
    ],
    ids=["no mask", "mask raises", "no vocabulary", "no words", "vocabulary raises", "no labels"],
)
def test_a_command_checks_a_task_before_it_asks_for_its_size(
    refuses_in_one_line, monkeypatch, parts
):
    with refuses_in_one_line(UserError, "Lying", *parts):
        liar_by_flag(monkeypatch, **parts)


@pytest.mark.parametrize("method", ["sequences", "loss_mask"])
def test_a_method_that_raises_is_named(refuses_in_one_line, method):
    task = type("Lying", (Sums,), {method: raising})()
    with refuses_in_one_line(UserError, "Lying", method, "RuntimeError: no idea"):
        check_task(task)


@pytest.mark.parametrize("task", [None, "copy", Sums, 3, [], types])
def test_what_is_no_task_is_no_part_of_a_config(refuses_in_one_line, task):
    with refuses_in_one_line(UserError, "task must be a"):
        TrainConfig(task=task)


@pytest.mark.parametrize("name", [3, None, [], "sums", "sums:Sums", "no_such_module:Sums"])
def test_a_name_by_which_it_is_not_found_is_refused(refuses_in_one_line, name):
    with refuses_in_one_line(UserError, "name"):
        recipe(type("Lying", (Sums,), {"name": name})())


def test_scalars_of_numpy_are_taken_for_parts_too():
    parts = {"solved": np.float32(0.5), "is_drawn": np.bool_(False), "answers": tuple(np.arange(4))}
    check_task(lying(Sums, **parts))
    check_task(lying(DrawnSums, n_words=np.uint8(2)))


def test_a_line_break_is_a_token_like_others():
    check_task(lying(Sums, vocabulary=("a", "b", "\n", "\t")))


@dataclasses.dataclass(frozen=True)
class Rare(DrawnSums):
    """A token is `rare` in about one example of 8192, but in none of the sample."""

    rare: int = 1000
    where: int = 0

    def draw(self, words):
        made = super().draw(words)
        made[words[:, 0] % 8192 == 78, self.where] = self.rare
        return made


@pytest.mark.parametrize("rare", [1000, 4, -7, 2**40])
@pytest.mark.parametrize("where", [0, 2])
def test_every_example_that_is_drawn_is_looked_at(refuses_in_one_line, rare, where):
    cfg = recipe(Rare(rare=rare, where=where))
    data = make_dataset(cfg)
    with refuses_in_one_line(UserError, "Rare", "of its examples", f"id {rare},", "from 0 to 3"):
        data.examples(data.rows(0, 2**15))
    with refuses_in_one_line(UserError, "Rare", "of its holdout", f"id {rare},"):
        for seed in range(1000):
            make_dataset(dataclasses.replace(cfg, split_seed=seed))


def test_a_rare_target_beyond_the_outputs_is_refused(refuses_in_one_line):
    model = TrainConfig().model.replace(d_vocab=6, d_vocab_out=5)
    rare = Sixth(rare=5, where=2)
    cfg = TrainConfig(model=model, task=rare, batch_size=4, steps=4, split_seed=1)
    data = make_dataset(cfg)
    with refuses_in_one_line(UserError, "token 5", "d_vocab_out=5", "at least 6"):
        data.examples(data.rows(0, 2**15))


@dataclasses.dataclass(frozen=True)
class Sixth(Rare):
    vocabulary = tuple("012345")


# Fields


@dataclasses.dataclass(frozen=True)
class Fields(Sums):
    share: float = 0.5
    words: tuple | None = None


@pytest.mark.parametrize(
    "fields",
    [{"n": np.int64(4)}, {"n": np.array(4)}, {"share": np.float32(0.1)}, {"n": np.uint8(4)}],
    ids=repr,
)
def test_scalars_of_numpy_are_taken_and_become_pythons(fields):
    task = recipe(Fields(**fields)).task
    assert {type(task.n), type(task.share)} == {int, float}
    assert task == Fields(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"words": ("a",)}, {"n": [4]}, {"n": float("nan")}, {"n": len}, {"n": 1 + 2j}],
    ids=str,
)
def test_fields_that_a_record_can_t_hold_are_refused(refuses_in_one_line, fields):
    with refuses_in_one_line(UserError, "Fields"):
        recipe(Fields(**fields))


def test_equal_fields_of_other_types_are_other_tasks():
    @dataclasses.dataclass(frozen=True)
    class Counted(Sums):
        @property
        def vocabulary(self):
            return tuple(map(str, range(self.n)))

    check_task(Counted(n=4))
    with pytest.raises(UserError, match="vocabulary raised TypeError"):
        check_task(Counted(n=4.0))


def test_a_task_reads_the_same_from_a_record():
    assert recordable(Fields()) == Fields()
    assert task_flag(Sums()) == f" --task {__name__}:Sums"
    assert task_flag(TrainConfig().task) == ""


# Any lie

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-3, 9), max_size=4),
    st.tuples(st.text(max_size=2), st.text(max_size=2), st.text(max_size=2)),
    st.lists(st.integers(-1, 4), max_size=4).map(tuple),
    st.sampled_from([np.float64(0.5), np.array([0, 1]), np.zeros((2, 3), int), object(), Sums]),
    st.sampled_from([np.zeros((0, 3), int), np.zeros((2, 3), np.uint64), 10**5000, b"0", {1: 2}]),
)
PARTS = (
    *("vocabulary", "sequences", "loss_mask", "solved", "title", "description"),
    *("position_labels", "sources", "answers", "is_drawn", "n_words", "draw", "n", "name"),
)


@settings(max_examples=200)
@given(
    truth=st.sampled_from([Sums, DrawnSums]),
    parts=st.dictionaries(st.sampled_from(PARTS), ANYTHING, min_size=1, max_size=2),
)
def test_whatever_a_task_says_it_is_refused_or_trained_on(truth, parts):
    fields = {"n": parts.pop("n")} if "n" in parts else {}
    try:
        tokens, rows = trained_on(lying(truth, **parts), fields)
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert 0 <= tokens.min() <= tokens.max() < 4
        assert rows.shape == (4, 4)
    assert "\n" not in refusal
    assert len(refusal) < 600


def trained_on(task, fields):
    """The examples of a run of a task, whose class is then found where it says."""
    sys.modules[__name__].Lying = type(task)
    cfg = recipe(dataclasses.replace(task, **fields))
    data = make_dataset(cfg)
    return data.examples(data.rows(0, cfg.steps))
