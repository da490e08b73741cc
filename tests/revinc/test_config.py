from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError
from revinc.config import differences
from revinc.optimization import OPTIMIZERS

SHAPE = {"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 9, "d_vocab": 5}
SIZES = (*SHAPE, "n_heads", "d_mlp", "d_vocab_out")
BAD_SIZES = (0, -1, 2.0, True, "2", math.nan)
BAD_NUMBERS = (-1e-3, math.nan, math.inf, -math.inf, True, "0.1", None)

BAD_MODEL_FIELDS = [
    *[(size, value) for size in SIZES for value in BAD_SIZES],
    *[(size, None) for size in SHAPE],
    *[("eps", value) for value in BAD_NUMBERS],
    *[("initializer_range", value) for value in BAD_NUMBERS if value is not None],
    *[("act_fn", value) for value in ("swish", "RELU", "", None, 1)],
    *[("normalization_type", value) for value in ("rms", "ln", "None", "", False)],
    *[("dtype", value) for value in ("float16", "float", None, float)],
    *[("attn_only", value) for value in (1, 0, None, "no")],
    ("positional_embedding_type", "sinusoidal"),
    ("attention_dir", "anticausal"),
    ("init_mode", "muP"),
    *[("attn_scores_soft_cap", value) for value in (*BAD_NUMBERS, 0) if value is not None],
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
    with pytest.raises(UserError, match=r"act_fn='gelu_old'.*did you mean gelu"):
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


@settings(deadline=None, max_examples=60)
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
    with pytest.raises(UserError, match="needs n_layers, d_model, d_head, n_ctx, d_vocab"):
        TrainConfig.from_dict(sections | {"model": {}})
    with pytest.raises(UserError, match=r"no section.*model"):
        TrainConfig.from_dict({"train": sections["train"]})


@pytest.mark.parametrize("section", ["model", "task", "train"])
@pytest.mark.parametrize("contents", [None, 5, "text", [1], {"": 1}])
def test_from_dict_refuses_a_damaged_section(tutorial, section, contents):
    with pytest.raises(UserError):
        TrainConfig.from_dict(tutorial.to_dict() | {section: contents})


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
    constant = dataclasses.replace(cfg, lr_schedule="constant")
    assert [constant.learning_rate(step) for step in (4, 5, 9)] == [0.4, 0.5, 0.5]


def test_the_loss_on_all_tokens_needs_outputs_for_all(tutorial):
    assert tutorial.trained_positions == (5, 6, 7, 8)
    assert dataclasses.replace(tutorial, loss_on="all").trained_positions == tuple(range(1, 9))
    with pytest.raises(UserError, match=r"d_vocab_out=113 .*at least 114"):
        dataclasses.replace(PRESETS["grokking"], loss_on="all")
