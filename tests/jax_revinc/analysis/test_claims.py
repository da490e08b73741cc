from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pytest

from jax_revinc import HookedTransformer, ReverseIncrement, UserError
from jax_revinc.analysis.claims import claims, fewest_right, judge, partners
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
        "The model solves the task: 100% of the predicted tokens are right.",
        "Attention fetches the right token for every answer. "
        "Most of a head's attention is on it in L0H0 100%.",
        "The answers are made by 0_mlp_out 113% (other components work against it).",
        "Needed, with the accuracy that is left without it: L0H0 19%, 0_mlp_out 0%.",
        "Enough on its own, with the share of answers that it restores: L0H0 100%, 0_mlp_out 100%.",
    ]


@dataclass(frozen=True)
class Demanding(ReverseIncrement):
    """Solved by another share of right answers."""

    share: float = 1.0

    @property
    def solved(self):
        return self.share


def test_a_task_is_solved_from_its_share_on_and_not_by_one_answer_less(noisy):
    accuracy = claims(noisy, Demanding()).accuracy.item()
    n_right, n = accuracy * 1024, 1024  # 256 sequences of 4 answers
    assert n_right == round(n_right)
    assert 0 < n_right < n
    assert claims(noisy, Demanding(share=n_right / n)).solved
    assert not claims(noisy, Demanding(share=(n_right + 0.3) / n)).solved


def test_how_many_answers_make_a_share_is_not_rounded():
    assert 0.07 * 100 > 7
    assert fewest_right(0.07, 100) == 7
    assert fewest_right(0.99, 1024) == 1014
    assert [fewest_right(share, 3) for share in (0, 1 / 3, 2 / 3, 1)] == [0, 1, 2, 3]


def test_a_model_with_one_wrong_answer_in_many_is_not_all_right(noisy, tutorial):
    told = claims(noisy, tutorial.task)._replace(
        accuracy=np.float64(0.99999), solved=np.array(False)
    )
    assert told.sentences(noisy.cfg)[0] == (
        "The model does not solve the task: 99.9% of the predicted tokens are right."
    )


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
    solved, reads, needed, enough = told.sentences(cfg)
    assert solved.startswith("The model does not solve the task")
    assert reads.startswith("Attention does not fetch the right token for every answer")
    assert needed.endswith(": none.")
    assert enough.endswith(": none.")
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


def test_half_of_the_skill_is_enough_and_less_is_not():
    """An intact accuracy of 1 and a guess of 1/4: 5/8 is exactly half way."""
    accuracies = np.array([0.625, 0.624, 0.626])
    necessary, sufficient = judge(np.float32(1), 0.25, accuracies, accuracies)
    assert necessary.tolist() == [False, True, False]
    assert sufficient.tolist() == [True, False, True]


def test_a_head_that_reads_one_cell_of_four_does_not_reverse(hand_built, tutorial):
    """Where it reads no position it looks everywhere alike."""
    model = hand_built("ov")
    weights = model.state_dict()
    weights["blocks.0.attn.W_Q"][0, 5 + 5 :] = 0  # of the queries at positions 5, 6, 7
    told = claims(HookedTransformer(model.cfg, params=weights), tutorial.task)
    np.testing.assert_allclose(told.reading[0, 0], [1, 1 / 6, 1 / 7, 1 / 8], atol=1e-6)
    assert not told.head_reverses.any()


def test_one_right_answer_too_few_does_not_solve_a_task(noisy):
    """The share that solves it, between two counts of right answers, is not rounded down."""
    task = ReverseIncrement()
    n_tokens = task.sequences()[:, 5:].size
    n_right = round(float(claims(noisy, task).accuracy) * n_tokens)
    assert 0 < n_right < n_tokens
    for missing, solved in ((-0.5, True), (0.5, False)):

        class Demanding(ReverseIncrement):
            solved = (n_right + missing) / n_tokens

        assert bool(claims(noisy, Demanding()).solved) == solved


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
    with pytest.raises(UserError, match="sourceless, no single token does"):
        claims(noisy, Sourceless())
    with pytest.raises(
        UserError, match=r"no sequence of the task has the deciding tokens \[2, 1, 1, 1\]"
    ):
        claims(noisy, Halved())
