"""TransformerLens 4.x: its weights are ours in another layout, and what it does otherwise is what we know."""

import math

import numpy as np
import pytest
import torch

from revinc import HookedTransformerConfig, TrainConfig
from revinc.transformer_lens_fields import in_their_words
from revinc.weights import parameter_shapes
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "4.x", reason="TransformerLens 4.x is not installed")

CFG = HookedTransformerConfig(
    n_layers=2, d_model=6, d_head=3, n_heads=4, d_mlp=8, d_vocab=5, n_ctx=9, d_vocab_out=7
)


def boot(**fields):
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_native(TransformerBridgeConfig(**fields))


def test_weights_move_both_ways_without_a_changed_bit(random_weights):
    weights = random_weights(CFG)
    model = adapter.make_model(CFG)
    adapter.write_weights(model, CFG, weights)
    back = adapter.read_weights(model, CFG)
    assert list(back) == list(weights)
    for name, weight in weights.items():
        np.testing.assert_array_equal(back[name], weight, err_msg=name)


def test_layouts_are_inverse_and_keep_every_shape():
    for name, shape in parameter_shapes(CFG).items():
        ours = torch.arange(math.prod(shape)).reshape(shape)
        theirs = adapter.from_3_9(CFG, name, ours)
        assert torch.equal(adapter.to_3_9(CFG, name, theirs), ours), name


def test_parameters_are_found_under_their_old_names(random_weights):
    weights = random_weights(CFG)
    model = adapter.make_model(CFG)
    adapter.write_weights(model, CFG, weights)
    for name, parameter in adapter.trainable(model, CFG).items():
        moved = adapter.to_3_9(CFG, name, parameter.detach()).numpy()
        np.testing.assert_array_equal(moved, weights[name], err_msg=name)
    shapes = {name: tuple(p.shape) for name, p in adapter.parameters(model).items()}
    assert shapes == parameter_shapes(CFG)


def test_another_dtype_is_another_model(random_weights):
    model = adapter.make_model(CFG)
    model(torch.tensor([[1, 2]])).sum().backward()
    wide = adapter.in_dtype(model, torch.float64)
    assert wide(torch.tensor([[1, 2]])).dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32
    for name, weight in adapter.read_weights(model, CFG).items():
        np.testing.assert_array_equal(
            adapter.read_weights(wide, CFG.replace(dtype="float64"))[name], weight
        )


def test_the_unembeddings_bias_is_known_not_to_train():
    cfg = TrainConfig().model
    model = adapter.make_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == 280
    assert parameter_shapes(cfg).keys() - adapter.trainable(model, cfg).keys() == {"unembed.b_U"}


def test_initial_output_weights_are_known_to_be_smaller_than_in_3_9():
    cfg = HookedTransformerConfig(n_layers=8, d_model=64, d_head=64, d_vocab=5, n_ctx=9)
    weights = adapter.read_weights(adapter.make_model(cfg), cfg)
    in_3_9 = 0.8 / math.sqrt(cfg.d_model)
    scale = 1 / math.sqrt(2 * cfg.n_layers)
    for name, weight in weights.items():
        expected = {"W_O": scale, "W_out": scale, "W_Q": 1.0, "W_in": 1.0}.get(name.split(".")[-1])
        if expected:
            assert weight.std() == pytest.approx(expected * in_3_9, rel=0.1), name


def test_seeds_draw_what_they_drew_and_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    weights = [adapter.read_weights(adapter.make_model(CFG, seed=seed), CFG) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(weights[0]["embed.W_E"], weights[1]["embed.W_E"])
    assert (weights[0]["embed.W_E"] != weights[2]["embed.W_E"]).all()


@pytest.mark.parametrize(
    "ignored",
    [
        {"parallel_attn_mlp": True},
        {"use_local_attn": True, "window_size": 1, "attn_types": ["local", "local"]},
        {"scale_attn_by_inverse_layer_idx": True},
        {"use_attn_scale": False},
    ],
)
def test_fields_that_are_known_to_be_ignored(ignored):
    from torch_reference.transformer_lens_4 import LEFT_OUT

    fields = in_their_words(CFG.to_dict()) | {"dtype": torch.float32}
    given = {name: value for name, value in fields.items() if name not in LEFT_OUT}
    plain, other = boot(**given), boot(**given | ignored)
    other.load_state_dict(plain.state_dict())
    tokens = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 3]])
    assert torch.equal(plain(tokens), other(tokens))
