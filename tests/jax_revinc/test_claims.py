from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pytest

from jax_revinc import HookedTransformer, ReverseIncrement, UserError
from jax_revinc.analysis.claims import claims, partners
from jax_revinc.analysis.increment import component_labels

# What holds of each hand-built model: (head, what increments, necessary, sufficient).
EXPECTED = {
    "ov": ("L0H0", {"L0H0"}, {"L0H0"}, {"L0H0"}),
    "mlp": ("L0H0", {"0_mlp_out"}, {"L0H0", "0_mlp_out"}, {"L0H0", "0_mlp_out"}),
    "unembedding": ("L0H0", {"embed"}, {"L0H0"}, {"L0H0"}),
    "mlp, before attention moves it": (
        "L1H0",
        {"0_mlp_out"},
        {"L1H0", "0_mlp_out"},
        {"L1H0", "0_mlp_out"},
    ),
}


@pytest.fixture(scope="module")
def noisy(hand_built, random_weights):
    """A model that half knows it: its components matter in part."""
    model = hand_built("mlp, before attention moves it")
    noise = random_weights(model.cfg)
    weights = {name: weight + 0.6 * noise[name] for name, weight in model.state_dict().items()}
    return HookedTransformer(model.cfg, params=weights)


@pytest.mark.parametrize("where", EXPECTED)
def test_hand_built_models_are_told_apart(hand_built, tutorial, where):
    model = hand_built(where)
    told = claims(model, tutorial.task).to_dict(model.cfg)
    head, *expected = EXPECTED[where]
    assert told["solved"]
    assert told["accuracy"] == 1
    assert told["attention_reverses"]
    assert [name for name, record in told["heads"].items() if record["reverses"]] == [head]
    np.testing.assert_allclose(told["heads"][head]["reading"], 1, atol=1e-6)
    for claim, names in zip(("increments", "necessary", "sufficient"), expected, strict=True):
        components = told["components"].items()
        assert {name for name, record in components if record[claim]} == names, claim


def test_sentences_say_it(hand_built, tutorial):
    model = hand_built("mlp")
    assert claims(model, tutorial.task).sentences(model.cfg) == [
        "The model solves the task: 100.0% of the predicted tokens are right.",
        "Attention reads every deciding position. "
        "Heads that give them most of their attention: L0H0 100%.",
        "Most of the increment is made by 0_mlp_out 113%.",
        "Necessary (with what accuracy without it): L0H0 19%, 0_mlp_out 0%.",
        "Sufficient (with what share of the answers restored by it alone): "
        "L0H0 100%, 0_mlp_out 100%.",
    ]


def test_an_untrained_model_does_none_of_it(tutorial, random_weights):
    cfg = tutorial.model
    tiny = {name: 0.01 * weight for name, weight in random_weights(cfg, 1).items()}
    model = HookedTransformer(cfg, params=tiny)
    told = claims(model, tutorial.task)
    assert not told.solved
    assert not told.attention_reverses
    for claim in (told.head_reverses, told.increments, told.necessary, told.sufficient):
        assert not claim.any()
    np.testing.assert_allclose(told.reading[0, 0], [1 / 5, 1 / 6, 1 / 7, 1 / 8], atol=0.01)
    solved, reads, made, *_ = told.sentences(cfg)
    assert solved.startswith("The model does not solve the task")
    assert reads.startswith("Attention does not read every deciding position")
    assert made.startswith("Most of the increment is made by no component alone (embed ")
    json.dumps(told.to_dict(cfg))


def accuracy(logits, sequences):
    return (np.asarray(logits)[:, 4:].argmax(-1) == sequences[:, 5:]).mean()


def test_the_evidence_is_what_hooks_give(noisy, tutorial):
    """Mean ablations and patches of a noisy model, one component at a time."""
    sequences = tutorial.task.sequences()
    other = sequences[partners(tutorial.task)]
    _, clean = noisy.run_with_cache(sequences[:, :-1])
    told = claims(noisy, tutorial.task)
    assert float(told.accuracy) == accuracy(noisy(sequences[:, :-1]), sequences)
    labels = component_labels(noisy.cfg)
    hooks = {
        "L0H0": "blocks.0.attn.hook_z",
        "L1H0": "blocks.1.attn.hook_z",
        "0_mlp_out": "blocks.0.hook_mlp_out",
        "1_mlp_out": "blocks.1.hook_mlp_out",
    }
    found = []
    for label, name in hooks.items():

        def averaged(activation, hook):
            return 0 * activation + activation.mean(0)

        def from_clean(activation, hook):
            return clean[hook.name]

        without = noisy.run_with_hooks(sequences[:, :-1], fwd_hooks=[(name, averaged)])
        restored = noisy.run_with_hooks(other[:, :-1], fwd_hooks=[(name, from_clean)])
        i = labels.index(label)
        expected = accuracy(without, sequences), accuracy(restored, sequences)
        assert (float(told.accuracy_without[i]), float(told.accuracy_restored[i])) == expected
        found += expected
    assert len(set(found)) > 4  # these numbers differ, so the comparison says something


def test_the_direct_path_is_changed_at_its_end(hand_built, tutorial):
    """Without blocks, the token where a model stands is incremented: right for y0, which is x3 + 1."""
    model = hand_built("mlp, before attention moves it")
    weights = {
        name: weight * (not name.startswith("blocks"))
        for name, weight in model.state_dict().items()
    }
    W_U = weights["unembed.W_U"]
    W_U[:, :4] = np.roll(W_U[:, :4], 1, axis=1)
    direct = HookedTransformer(model.cfg, params=weights)
    sequences = tutorial.task.sequences()
    other = sequences[partners(tutorial.task)]
    told = claims(direct, tutorial.task)

    def accuracy_on(fed):
        return accuracy(direct(fed[:, :-1]), sequences)

    assert accuracy_on(sequences) > accuracy_on(other) + 0.1
    assert float(told.accuracy_restored[0]) == accuracy_on(sequences)
    assert np.asarray(told.accuracy_restored[1:]).tolist() == 4 * [accuracy_on(other)]
    assert told.accuracy_without[0] < told.accuracy


def test_many_models_at_once(hand_built, tutorial):
    models = [hand_built(where) for where in ("ov", "mlp", "unembedding")]
    (cfg,) = {model.cfg for model in models}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(m.params for m in models))
    together = jax.vmap(lambda p: claims(HookedTransformer(cfg, params=p), tutorial.task))(stacked)
    assert len({tuple(row) for row in np.asarray(together.increments).tolist()}) == 3
    for i, model in enumerate(models):
        for all_, alone in zip(together, claims(model, tutorial.task), strict=True):
            np.testing.assert_allclose(all_[i], alone, rtol=1e-5, atol=1e-5)


def test_partners_differ_in_every_deciding_token():
    task = ReverseIncrement(length=2, n_symbols=3)
    sequences = task.sequences()
    changed = sequences[partners(task)]
    assert np.array_equal(changed[:, 1:3], (sequences[:, 1:3] + 1) % 3)


@dataclass(frozen=True, kw_only=True)
class Halved(ReverseIncrement):
    """Sequences that start with 0 or 1."""

    name: ClassVar[str] = "halved"

    def sequences(self):
        return super().sequences()[:128]


@dataclass(frozen=True, kw_only=True)
class Sourceless(ReverseIncrement):
    """A task in which no single token decides."""

    name: ClassVar[str] = "sourceless"
    sources: ClassVar[tuple[int, ...]] = ()


def test_tasks_that_allow_no_claims_are_named(noisy):
    with pytest.raises(UserError, match="sourceless names no sources"):
        claims(noisy, Sourceless())
    with pytest.raises(UserError, match=r"no sequence has \[2, 1, 1, 1\]"):
        claims(noisy, Halved())
