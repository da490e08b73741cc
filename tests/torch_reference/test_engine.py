"""The torch engine keeps the engine's contract, and is the tutorial's program."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformer_lens

from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.schedule import draw_batches
from torch_reference import TorchEngine, adapter
from torch_reference.installed import WORLD

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
