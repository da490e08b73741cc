from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import revinc
from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError
from revinc.config import differences
from revinc.config_fields import fields_without_effect
from revinc.optimizer_fields import OPTIMIZERS
from revinc.tasks import make_task

SHAPE = {"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 9, "d_vocab": 5}
BAD_SIZES = (0, -1, 2.0, True, "2", math.nan)
NOT_SET_BELOW_ZERO = ("initializer_range", "attn_scores_soft_cap", "output_logits_soft_cap")
BAD_NUMBERS = (-1e-3, math.nan, math.inf, -math.inf, True, "0.1", None)

TUTORIALS_DIGEST = "cceecee6def066714429a6a407f5725a8640d66421dbd8d4503db21381498e70"
"""Of the tutorial's recipe as JSON: stores know their chunks by such."""

BAD_MODEL_FIELDS = [
    *[(size, value) for size in (*SHAPE, "d_mlp") for value in BAD_SIZES],
    *[
        (size, value)
        for size in ("n_heads", "d_vocab_out")
        for value in (-2, *BAD_SIZES)
        if value != -1
    ],
    *[(size, None) for size in SHAPE],
    *[("eps", value) for value in BAD_NUMBERS],
    *[(name, value) for name in NOT_SET_BELOW_ZERO for value in (math.nan, math.inf, True, "0.1")],
    *[("act_fn", value) for value in ("swish", "RELU", "", None, 1)],
    *[("normalization_type", value) for value in ("rms", "ln", "None", "", False)],
    *[("dtype", value) for value in ("float16", "float", None, float)],
    *[("attn_only", value) for value in (1, 0, None, "no")],
    ("positional_embedding_type", "sinusoidal"),
    ("attention_dir", "anticausal"),
    ("init_mode", "muP"),
    *[("seed", value) for value in (-1, 0.5, True)],
]

BAD_TRAIN_FIELDS = [
    *[(size, value) for size in ("steps", "batch_size", "eval_every") for value in BAD_SIZES],
    *[(rate, value) for rate in ("lr", "weight_decay", "adam_eps") for value in BAD_NUMBERS],
    *[
        (share, value)
        for share in ("b1", "b2", "momentum", "label_smoothing")
        for value in (*BAD_NUMBERS, 1, 1.5)
    ],
    *[("clip_grad_norm", value) for value in (0.0, *BAD_NUMBERS) if value is not None],
    *[("warmup_steps", value) for value in (-1, 4000, 1.0, True, None)],
    *[("optimizer", value) for value in ("AdamW", "adam_w", "", None, 1)],
    *[("lr_schedule", value) for value in ("Cosine", "exponential", None)],
    *[("loss_on", value) for value in ("answers", "", None, True)],
    *[
        (seed, value)
        for seed in ("init_seed", "data_seed", "split_seed")
        for value in (-1, 2**32, 0.0, True, None, "0", math.nan)
    ],
    *[("train_fraction", value) for value in (*BAD_NUMBERS, 0.0, 1.0, 1.5, 1e-9, 0.9999)],
    *[("split", value) for value in ("suffix", "Random", None, 0)],
    ("batch_size", 201),
    ("snapshots", (-1,)),
    ("snapshots", (4001,)),
    ("snapshots", (1.0,)),
    ("snapshots", (True,)),
    ("snapshots", "abc"),
    ("snapshots", (1, "a")),
    ("snapshots", (None, 1)),
    ("snapshots", 5),
    ("snapshots", None),
    ("snapshots", ([1],)),
]

CONFIGS = st.builds(
    HookedTransformerConfig,
    n_layers=st.integers(1, 4),
    d_model=st.integers(1, 64),
    d_head=st.integers(1, 8),
    n_ctx=st.integers(9, 20),
    d_vocab=st.integers(5, 9),
    n_heads=st.integers(1, 4),
    d_mlp=st.none() | st.integers(1, 64),
    d_vocab_out=st.none() | st.integers(5, 9),
    act_fn=st.sampled_from(["relu", "gelu", "gelu_new", "silu"]),
    attn_only=st.booleans(),
    normalization_type=st.sampled_from(["LN", "LNPre", None]),
    eps=st.floats(0, 1),
    initializer_range=st.none() | st.floats(0, 1),
    dtype=st.sampled_from(["float32", "float64"]),
)
TRAIN_CONFIGS = st.builds(
    TrainConfig,
    model=CONFIGS,
    task=st.builds(ReverseIncrement, length=st.integers(3, 4), shift=st.integers(-9, 9)),
    split=st.sampled_from(["prefix", "random"]),
    batch_size=st.integers(1, 20),
    lr=st.floats(0, 10),
    optimizer=st.sampled_from(["adamw", "nadamw"]),
    lr_schedule=st.sampled_from(["constant", "cosine", "linear"]),
    warmup_steps=st.integers(0, 3999),
    clip_grad_norm=st.none() | st.floats(1e-3, 10),
    label_smoothing=st.floats(0, 0.9),
    snapshots=st.lists(st.integers(0, 4000), max_size=4).map(tuple),
    data_seed=st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize(("field", "value"), BAD_MODEL_FIELDS)
def test_a_bad_model_field_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"\b{field}\b"):
        HookedTransformerConfig(**SHAPE | {field: value})


@pytest.mark.parametrize(("field", "value"), BAD_TRAIN_FIELDS)
def test_a_bad_training_field_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=rf"\b{field}\b"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "too_small", "enough"), [("n_ctx", 7, 8), ("d_vocab", 4, 5), ("d_vocab_out", 3, 4)]
)
def test_a_model_too_small_for_its_task_is_refused_by_field(tutorial, field, too_small, enough):
    with pytest.raises(UserError, match=rf"\b{field}={too_small}\b.*at least {enough}"):
        TrainConfig(model=dataclasses.replace(tutorial.model, **{field: too_small}))
    TrainConfig(model=dataclasses.replace(tutorial.model, **{field: enough}))


def test_the_largest_and_smallest_values_allowed(tutorial):
    dataclasses.replace(
        tutorial,
        batch_size=200,
        lr=0,
        weight_decay=0,
        b1=0.0,
        snapshots=(0, 4000),
        init_seed=2**32 - 1,
    )
    dataclasses.replace(tutorial, train_fraction=1 / 256, batch_size=1, steps=1, eval_every=10**6)


def test_heads_that_cannot_be_derived_must_be_given():
    with pytest.raises(UserError, match=r"n_heads.*d_model=8.*d_head=3"):
        HookedTransformerConfig(**SHAPE | {"d_head": 3})
    assert HookedTransformerConfig(**SHAPE | {"d_head": 3}, n_heads=2).n_heads == 2


def test_near_values_are_suggested():
    with pytest.raises(UserError, match=r"unknown act_fn 'gelu_old'; .*did you mean gelu"):
        HookedTransformerConfig(**SHAPE, act_fn="gelu_old")


def test_the_tutorials_recipe(tutorial):
    assert tutorial == TrainConfig()
    assert (tutorial.steps, tutorial.batch_size, tutorial.lr) == (4000, 16, 1e-2)
    assert (tutorial.n_train, tutorial.split, tutorial.weight_decay) == (200, "prefix", 1e-2)
    assert tutorial.model.initializer_range == 0.4


def test_replace_derives_anew_what_was_derived_and_keeps_what_was_given():
    cfg = HookedTransformerConfig(**SHAPE, d_mlp=5)
    wider = cfg.replace(d_model=16, d_vocab=6)
    assert (wider.n_heads, wider.d_vocab_out, wider.d_mlp) == (4, 6, 5)
    assert wider.initializer_range == 0.2
    assert cfg.replace(d_mlp=7).replace(d_model=16).d_mlp == 7
    assert cfg.replace(n_heads=3).replace(d_model=16).n_heads == 3
    assert cfg.replace() == cfg


@settings(max_examples=60)
@given(cfg=TRAIN_CONFIGS)
def test_configs_survive_json(cfg):
    restored = TrainConfig.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert restored == cfg
    assert hash(restored) == hash(cfg)
    assert differences(restored, cfg) == []


def test_from_dict_refuses_unknown_and_missing_fields(tutorial):
    sections = tutorial.to_dict()
    with pytest.raises(UserError, match="no field 'd_modle'; did you mean d_model"):
        TrainConfig.from_dict(sections | {"model": sections["model"] | {"d_modle": 4}})
    with pytest.raises(UserError, match="no field 'learning_rate'"):
        TrainConfig.from_dict(sections | {"train": sections["train"] | {"learning_rate": 1}})
    with pytest.raises(UserError, match="no field 'lenght'; did you mean length"):
        TrainConfig.from_dict(sections | {"task": sections["task"] | {"lenght": 1}})
    needed = "needs a value for n_layers, d_model, d_head, n_ctx, d_vocab"
    with pytest.raises(UserError, match=needed):
        TrainConfig.from_dict(sections | {"model": {}})
    with pytest.raises(UserError, match=r"no section.*model"):
        TrainConfig.from_dict({"train": sections["train"]})


@pytest.mark.parametrize("section", ["model", "task", "train"])
@pytest.mark.parametrize("contents", [None, 5, "text", [1], {"": 1}])
def test_from_dict_refuses_a_damaged_section(tutorial, section, contents):
    with pytest.raises(UserError):
        TrainConfig.from_dict(tutorial.to_dict() | {section: contents})


ODD_VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1.5,
        -0.0,
        4.0,
        1e300,
        10**400,
        -(10**400),
        2**31,
        2**32,
        10**7,
    ),
    *(math.nan, math.inf, "", "1", "none", "relu", "ReLU", "local", "x" * 10**5, [], [1], [[]], {}),
    *(
        {"name": 1},
        ["local", "global"],
        ["local", 5],
        [1.0],
        [None],
        "evil",
        "\n",
        [True, 2],
        "float64",
    ),
)

EXTRA_KEYS = (
    "model",
    "task",
    "train",
    "name",
    "self",
    "cls",
    "d_modle",
    "",
    "fields",
    "n_devices",
    "a b",
)


@st.composite
def edits(draw):
    """A config's sections with one value in them replaced, removed or added."""
    cfg = draw(st.sampled_from([TrainConfig(), PRESETS["grokking"], LOCAL]))
    sections = json.loads(json.dumps(cfg.to_dict()))
    fields = draw(st.sampled_from(list(sections.values())))
    key = draw(st.sampled_from([*fields, *EXTRA_KEYS]))
    if draw(st.integers(0, 9)):
        fields[key] = draw(st.sampled_from(ODD_VALUES))
    else:
        fields.pop(key, None)
    if not draw(st.integers(0, 9)):
        sections[draw(st.sampled_from(list(sections)))] = draw(st.sampled_from(ODD_VALUES))
    return sections


LOCAL = TrainConfig(
    model=HookedTransformerConfig(
        **SHAPE, use_local_attn=True, window_size=3, attn_types=("local", "global"), attn_scale=2.0
    ),
    snapshots=(1, 2),
)


@settings(max_examples=500)
@given(sections=edits())
def test_an_edited_config_is_refused_in_a_short_sentence_or_means_what_it_says(sections):
    refusal, cfg = None, TrainConfig()
    try:
        cfg = TrainConfig.from_dict(sections)
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert len(refusal) < 600
        assert "\n" not in refusal
        return
    again = cfg.to_dict()
    assert TrainConfig.from_dict(json.loads(json.dumps(again))) == cfg
    assert isinstance(hash(cfg), int)
    defaults = {field.name: field.default for field in dataclasses.fields(cfg.model)}
    without_effect = {
        name: defaults[name] for name in fields_without_effect(type(cfg.model), cfg.model)
    }
    for section, fields in again.items():
        for name in fields.keys() & sections[section].keys():
            asked, got = sections[section][name], fields[name]
            derived = asked is None or (
                section == "model" and isinstance(asked, int | float) and asked <= 0
            )
            ignored = section == "model" and name in without_effect
            assert got == asked or derived or ignored or name == "snapshots", name
    assert {name: getattr(cfg.model, name) for name in without_effect} == without_effect


@pytest.mark.parametrize("section", ["model", "train"])
def test_every_field_refuses_other_types_by_its_name(tutorial, section):
    for name, right in tutorial.to_dict()[section].items():
        for wrong in ([[]], {"a": 1}, [None, {}]):
            sections = tutorial.to_dict()
            sections[section][name] = wrong
            with pytest.raises(UserError, match=rf"\b{name}\b"):
                TrainConfig.from_dict(sections)
        if not isinstance(right, str | type(None) | list | tuple):
            sections = tutorial.to_dict()
            sections[section][name] = "1"
            with pytest.raises(UserError, match=rf"\b{name}\b"):
                TrainConfig.from_dict(sections)


def test_a_field_of_another_section_is_none_of_the_training(tutorial):
    for name in ("model", "task"):
        sections = tutorial.to_dict()
        sections["train"][name] = 1
        with pytest.raises(UserError, match=f"no field '{name}'"):
            TrainConfig.from_dict(sections)


def test_a_misspelt_field_in_a_constructor_is_named_with_near_ones(tutorial):
    with pytest.raises(UserError, match="TrainConfig has no field 'stps'; did you mean steps"):
        TrainConfig(stps=3)
    with pytest.raises(UserError, match="no field 'stps'; did you mean steps"):
        dataclasses.replace(tutorial, stps=3)
    with pytest.raises(UserError, match="no field 'd_modle'; did you mean d_model"):
        HookedTransformerConfig(d_modle=4)
    with pytest.raises(UserError, match="no field 'd_modle'; did you mean d_model"):
        tutorial.model.replace(d_modle=4)
    needed = "HookedTransformerConfig needs a value for n_layers, d_model, d_head"
    with pytest.raises(UserError, match=needed):
        HookedTransformerConfig()
    with pytest.raises(UserError, match="takes its fields by name only"):
        TrainConfig(tutorial.model)
    with pytest.raises(UserError, match="model must be a HookedTransformerConfig, not 5"):
        TrainConfig(model=5)
    with pytest.raises(UserError, match="task must be a Task, not 'copy'"):
        TrainConfig(task="copy")
    assert "steps: 'int' = 4000" in str(inspect.signature(TrainConfig))


def test_values_of_numpy_are_kept_as_pythons(tutorial):
    model = HookedTransformerConfig(
        **{name: np.int16(size) for name, size in SHAPE.items()},
        attn_only=np.True_,
        eps=np.float64(1e-5),
        dtype=np.float32,
        act_fn=np.str_("relu"),
    )
    assert model == HookedTransformerConfig(**SHAPE, attn_only=True)
    cfg = dataclasses.replace(
        tutorial, steps=np.int64(50), lr=np.float16(0.5), snapshots=np.arange(0, 50, 25)
    )
    plain = dataclasses.replace(tutorial, steps=50, lr=0.5, snapshots=(0, 25))
    assert cfg == plain
    assert json.dumps(cfg.to_dict()) == json.dumps(plain.to_dict())
    assert type(dataclasses.replace(tutorial, lr=1).lr) is float


@pytest.mark.parametrize("seed", [1.5, "3", None, True, -1, 2**32])
def test_with_seed_refuses_what_is_no_seed(tutorial, seed):
    with pytest.raises(UserError, match="init_seed must be"):
        tutorial.with_seed(seed)


def test_huge_numbers_of_stops_are_refused(tutorial):
    with pytest.raises(UserError, match="eval_every stops the training 1,000,000,000 times"):
        dataclasses.replace(tutorial, steps=10**9, eval_every=1)
    with pytest.raises(UserError, match="snapshots stops the training 1,048,577 times"):
        dataclasses.replace(tutorial, steps=2**20, snapshots=range(2**20 + 1))
    with pytest.raises(UserError, match=r"steps must be below 2\*\*31"):
        dataclasses.replace(tutorial, steps=10**400)
    dataclasses.replace(tutorial, steps=10**9, eval_every=10**6)


def test_the_tutorials_record_is_the_same_to_the_byte_as_ever(tutorial):
    record = tutorial.to_dict()
    assert record["train"].pop("lr_end") == 0  # added later
    text = json.dumps(record)
    assert hashlib.sha256(text.encode()).hexdigest() == TUTORIALS_DIGEST


def test_snapshots_are_sorted_and_unique(tutorial):
    assert dataclasses.replace(tutorial, snapshots=[300, 100, 300]).snapshots == (100, 300)


def test_with_seed_sets_all_three(tutorial):
    cfg = tutorial.with_seed(5)
    assert (cfg.init_seed, cfg.data_seed, cfg.split_seed) == (5, 5, 5)


def test_differences_name_the_field_and_both_values(tutorial):
    other = dataclasses.replace(tutorial, lr=0.5, model=tutorial.model.replace(d_mlp=8))
    assert differences(tutorial, other) == ["d_mlp: 4 here, 8 there", "lr: 0.01 here, 0.5 there"]


def test_a_task_that_is_not_registered_is_refused_and_one_that_is_comes_back(monkeypatch):
    from revinc import ReverseIncrement
    from revinc.tasks import TASKS

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Copy(ReverseIncrement):
        name = "copy"
        shift: int = 0
        reverse: bool = False

    with pytest.raises(UserError, match=r"TASKS\['copy'\] = Copy"):
        TrainConfig(task=Copy())
    monkeypatch.setitem(TASKS, "copy", Copy)
    cfg = TrainConfig(task=Copy())
    assert TrainConfig.from_dict(cfg.to_dict()) == cfg


def test_numpy_integers_are_seeds_too():
    import numpy as np

    cfg = TrainConfig().with_seed(np.int64(3))
    assert cfg == TrainConfig().with_seed(3)
    assert type(cfg.init_seed) is int


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("field", ["weight_decay", "b1", "b2", "adam_eps", "momentum"])
def test_what_an_optimizer_does_not_take_is_refused_by_name(optimizer, field):
    plain = TrainConfig(optimizer=optimizer, weight_decay=0.0)
    if field in OPTIMIZERS[optimizer]:
        assert getattr(dataclasses.replace(plain, **{field: 0.5}), field) == 0.5
    else:
        with pytest.raises(UserError, match=rf"'{optimizer}' takes no {field}.*set {field} to"):
            dataclasses.replace(plain, **{field: 0.5})


def test_the_default_weight_decay_is_refused_where_there_is_none():
    with pytest.raises(UserError, match=r"optimizer='sgd' takes no weight_decay .*set .* to 0$"):
        TrainConfig(optimizer="sgd")


def test_a_rate_rises_and_falls_as_the_schedule_says():
    cfg = TrainConfig(steps=10, lr=0.5, lr_schedule="linear", warmup_steps=5)
    rates = [cfg.learning_rate(step) for step in range(12)]
    np.testing.assert_allclose(
        rates, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0], atol=1e-15
    )
    ending = dataclasses.replace(cfg, lr_end=0.25)
    rates = [ending.learning_rate(step) for step in range(12)]
    np.testing.assert_allclose(
        rates, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.25], atol=1e-15
    )
    constant = dataclasses.replace(cfg, lr_schedule="constant")
    assert [constant.learning_rate(step) for step in (4, 5, 9)] == [0.4, 0.5, 0.5]


def test_a_constant_rate_has_no_end_of_its_own():
    with pytest.raises(UserError, match=r"lr_end=0\.1 has no effect unless lr_schedule is cosine"):
        TrainConfig(lr_end=0.1)


def test_the_loss_on_all_tokens_needs_outputs_for_all(tutorial):
    assert tutorial.train_positions == (5, 6, 7, 8)
    assert dataclasses.replace(tutorial, loss_on="all").train_positions == tuple(range(1, 9))
    with pytest.raises(UserError, match=r"d_vocab_out=113 .*at least 114"):
        dataclasses.replace(PRESETS["grokking"], loss_on="all")


# What a bidirectional model sees


def bidirectional(task, **fields):
    """A recipe of a model that sees all tokens that it is fed."""
    model = HookedTransformerConfig(
        **SHAPE
        | {"n_heads": 1, "act_fn": "relu", "attention_dir": "bidirectional"}
        | {"d_vocab": len(task.vocabulary), "n_ctx": len(task.position_labels)}
    )
    return TrainConfig(model=model, task=task, batch_size=1, **fields)


@pytest.mark.parametrize(
    ("task", "seen"),
    [
        *[(make_task(name), "y0") for name in ("reverse_increment", "copy", "sort")],
        (make_task("cumulative_sum"), "y0"),
        (make_task("induction"), "y1"),
        (make_task("copy", length=8), "y0"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_model_that_sees_its_answers_is_refused(task, seen):
    cfg = bidirectional(task)  # a run that was trained so before opens
    with pytest.raises(UserError, match=rf"attention_dir='bidirectional'.* such as {seen}, "):
        cfg.require_unseen_answers()


@pytest.mark.parametrize(
    "task",
    [
        *map(make_task, ("modular_addition", "brackets")),
        make_task("copy", length=1),
        make_task("induction", length=2),
    ],
    ids=lambda task: task.name,
)
def test_one_answer_at_the_end_is_not_seen(task):
    cfg = bidirectional(task)
    cfg.require_unseen_answers()
    assert cfg.train_positions == (task.sequences().shape[1] - 1,)
    if cfg.train_positions[0] > 1:
        with pytest.raises(UserError, match="loss_on='task'"):
            bidirectional(task, loss_on="all").require_unseen_answers()


@pytest.mark.parametrize("cfg", PRESETS.values(), ids=PRESETS)
def test_a_config_prints_as_the_call_that_makes_it(cfg):
    assert "eval_every" not in repr(dataclasses.replace(cfg, eval_every=TrainConfig().eval_every))
    assert eval(repr(cfg), vars(revinc) | vars(revinc.tasks)) == cfg
