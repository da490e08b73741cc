"""The torch engine keeps the engine's contract, and is the tutorial's program."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformer_lens

from revinc import TrainConfig, UserError
from revinc.batch_schedule import draw_batches
from revinc.dataset import make_dataset
from torch_reference import TorchEngine, adapter, train
from torch_reference.installed_transformer_lens import WORLD
from torch_reference.optimizer import clip_gradients

needs_3_9 = pytest.mark.skipif(WORLD != "3.9", reason="TransformerLens 3.9 is not installed")

CFG = TrainConfig(steps=30, eval_every=10)


@pytest.fixture(scope="module")
def engine():
    return TorchEngine(CFG, "cpu")


@pytest.fixture(scope="module")
def initial_weights():
    return adapter.read_weights(adapter.make_model(CFG.model, seed=0), CFG.model)


@pytest.fixture(scope="module")
def batches():
    return draw_batches(0, make_dataset(CFG).train_rows, CFG.batch_size, 0, CFG.steps)


def the_tutorial(initial_weights, batches):
    """The tutorial's code, word for word but for the batches, the initial weights and the device."""
    all_sequences = list(itertools.product(range(4), repeat=4))
    all_sequences = torch.tensor(all_sequences, dtype=torch.long)
    targets = torch.flip((all_sequences + 1) % 4, dims=[1])
    BOS_TOKEN = 4
    BOS_column = torch.full((all_sequences.size(0), 1), BOS_TOKEN, dtype=torch.long)
    full_dataset = torch.cat([BOS_column, all_sequences, targets], dim=1)
    train_dataset = full_dataset[:200]
    holdout_dataset = full_dataset[200:]

    cfg = transformer_lens.HookedTransformerConfig(
        n_layers=2,
        d_model=4,
        d_head=2,
        n_heads=1,
        d_mlp=4,
        d_vocab=5,
        n_ctx=9,
        act_fn="relu",
        device="cpu",
    )
    model = transformer_lens.HookedTransformer(cfg)
    tensors = {name: torch.tensor(weight) for name, weight in initial_weights.items()}
    model.load_state_dict(model.state_dict() | tensors)

    def loss_fn(logits, tokens):
        return F.cross_entropy(
            logits[:, 4:].reshape(-1, logits.size(-1)), tokens[:, 5:].reshape(-1)
        )

    def evaluate_model(model, dataset):
        model.eval()
        with torch.no_grad():
            logits = model(dataset[:, :-1])
            preds = logits.argmax(dim=-1)
            correct = (preds[:, 4:] == dataset[:, 5:]).sum().item()
            total = dataset.size(0) * 4
            return correct / total

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for indices in batches:
        model.train()
        batch = train_dataset[torch.tensor(indices)]
        logits = model(batch[:, :-1])
        loss = loss_fn(logits, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, evaluate_model(model, train_dataset), evaluate_model(model, holdout_dataset)


@needs_3_9
def test_it_trains_as_the_tutorial_does(engine, initial_weights, batches):
    losses, train_accuracy, holdout_accuracy = the_tutorial(initial_weights, batches)
    state, engine_losses = engine.advance(engine.start(initial_weights), batches)
    metrics = engine.evaluate(state)
    # Both are float32 torch; only the order of summation in the loss differs.
    np.testing.assert_allclose(engine_losses, losses, rtol=1e-4)
    assert metrics["train_accuracy"] == pytest.approx(train_accuracy, abs=2 / 800)
    assert metrics["holdout_accuracy"] == pytest.approx(holdout_accuracy, abs=2 / 224)


def test_a_state_survives_as_arrays_bit_for_bit(engine, initial_weights, batches):
    straight, losses = engine.advance(engine.start(initial_weights), batches)

    half, first = engine.advance(engine.start(initial_weights), batches[:13])
    resumed = engine.from_arrays(engine.to_arrays(half))
    resumed, second = engine.advance(resumed, batches[13:])

    np.testing.assert_array_equal(np.concatenate([first, second]), losses)
    for name, array in engine.to_arrays(straight).items():
        np.testing.assert_array_equal(engine.to_arrays(resumed)[name], array, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "warmup_steps": 9, "clip_grad_norm": 0.5},
        {"optimizer": "sgd", "lr_schedule": "linear", "lr_end": 1e-3},
        {"optimizer": "rmsprop", "label_smoothing": 0.1, "loss_on": "all"},
    ],
    ids=str,
)
def test_a_state_of_another_optimizer_survives_too(initial_weights, batches, changes):
    engine = TorchEngine(dataclasses.replace(CFG, weight_decay=0.0, **changes), "cpu")
    straight, losses = engine.advance(engine.start(initial_weights), batches[:20])
    half, _ = engine.advance(engine.start(initial_weights), batches[:13])
    resumed, rest = engine.advance(engine.from_arrays(engine.to_arrays(half)), batches[13:20])
    np.testing.assert_array_equal(rest, losses[13:])
    for name, array in engine.to_arrays(straight).items():
        np.testing.assert_array_equal(engine.to_arrays(resumed)[name], array, err_msg=name)


@pytest.mark.parametrize("optimizer", ["lion", "nadamw"])
def test_an_optimizer_that_torch_lacks_is_refused_by_name(optimizer, tmp_path):
    cfg = dataclasses.replace(CFG, optimizer=optimizer)
    with pytest.raises(UserError, match=f"optimizer='{optimizer}' has no counterpart in torch"):
        train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_clipping_scales_all_gradients_to_the_norm_and_leaves_shorter_ones():
    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    given = [torch.tensor([3.0, 0, 0]), torch.tensor([0, 4.0])]
    unused = torch.zeros(1, requires_grad=True)
    for largest, expected in [(6.0, 5.0), (2.0, 2.0)]:
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = gradient.clone()
        clip_gradients([*parameters, unused], largest)
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        assert float(norm) == pytest.approx(expected)
        assert float(parameters[0].grad[0] / parameters[1].grad[1]) == pytest.approx(0.75)


def test_weights_are_copies_and_hold_no_buffers(engine, initial_weights, batches):
    state = engine.start(initial_weights)
    before = engine.weights(state)
    engine.advance(state, batches[:1])
    assert len(before) == len(initial_weights)
    for name, weight in initial_weights.items():
        np.testing.assert_array_equal(before[name], weight)


@needs_3_9
def test_initial_weights_are_transformer_lens_own():
    torch.manual_seed(7)
    theirs = transformer_lens.HookedTransformer(
        transformer_lens.HookedTransformerConfig(
            n_layers=2, d_model=4, d_head=2, n_heads=1, d_mlp=4, d_vocab=5, n_ctx=9, device="cpu"
        )
    )
    ours = adapter.read_weights(adapter.make_model(CFG.model, seed=7), CFG.model)
    for name, weight in ours.items():
        np.testing.assert_array_equal(weight, theirs.state_dict()[name].numpy())


def test_drawing_weights_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    adapter.make_model(CFG.model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_it_chooses_the_gpu_where_there_is_one(initial_weights, batches):
    engine = TorchEngine(CFG)
    assert engine.identity["platform"] == "cuda"
    _, losses = engine.advance(engine.start(initial_weights), batches)
    assert np.isfinite(losses).all()
