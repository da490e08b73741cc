"""MLPs: plain or gated, with or without a norm after the activation function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jax_revinc.components.component import Component
from jax_revinc.components.norms import LayerNorm, LayerNormPre
from jax_revinc.components.params import Params, within
from jax_revinc.hooks.taps import Tap, identity, scoped
from revinc import HookedTransformerConfig

Neurons = Float[Array, "batch pos d_mlp"]


def relu2(x: Neurons) -> Neurons:
    """The squared ReLU (So et al. 2021, arXiv:2109.08668)."""
    return jax.nn.relu(x) ** 2


def gelu_fast(x: Neurons) -> Neurons:
    """The tanh form of the GELU, with sqrt(2 / pi) rounded to ten digits as in TransformerLens."""
    return 0.5 * x * (1.0 + jnp.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def solu(x: Neurons) -> Neurons:
    """The SoLU, ``x * softmax(x)`` over the neurons (Elhage et al. 2022).

    See transformer-circuits.pub/2022/solu.
    """
    return x * jax.nn.softmax(x, axis=-1)


gelu_tanh = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: dict[str, Callable[[Neurons], Neurons]] = {
    "relu": jax.nn.relu,
    "relu2": relu2,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_fast": gelu_fast,
    "silu": jax.nn.silu,
    "solu": solu,
    "solu_ln": solu,
}


class MLP(Component):
    """An MLP with one hidden layer."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        self.act_fn = ACTIVATIONS[cfg.act_fn]
        self.W_in = nnx.Param(params["W_in"])
        self.b_in = nnx.Param(params["b_in"])
        self.W_out = nnx.Param(params["W_out"])
        self.b_out = nnx.Param(params["b_out"])

    def __call__(
        self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap = identity
    ) -> Float[Array, "batch pos d_model"]:
        return tap("hook_post", self.neurons(x_BPM, tap)) @ self.W_out + self.b_out

    def neurons(self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap) -> Neurons:
        """The activations of the MLP's hidden layer."""
        return self.act_fn(tap("hook_pre", x_BPM @ self.W_in + self.b_in))


class GatedMLP(MLP):
    """An MLP whose hidden layer is gated by a second one; `b_in` is added to the product.

    Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        super().__init__(cfg, params)
        self.W_gate = nnx.Param(params["W_gate"])

    def neurons(self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap) -> Neurons:
        pre_BPF = tap("hook_pre", x_BPM @ self.W_gate)
        linear_BPF = tap("hook_pre_linear", x_BPM @ self.W_in)
        return self.act_fn(pre_BPF) * linear_BPF + self.b_in


class NormedMLP(MLP):
    """An MLP with a layer norm after the activation function (``solu_ln``)."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        super().__init__(cfg, params)
        norm = LayerNorm if cfg.normalization_type == "LN" else LayerNormPre
        self.ln = norm(cfg.eps, within(params, "ln"))

    def neurons(self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap) -> Neurons:
        return self.ln(tap("hook_mid", super().neurons(x_BPM, tap)), scoped(tap, "ln"))


def make_mlp(cfg: HookedTransformerConfig, params: Params) -> MLP:
    """Make the MLP of one layer, of the class that the config asks for."""
    if cfg.gated_mlp:
        return GatedMLP(cfg, params)
    return (NormedMLP if cfg.act_fn == "solu_ln" else MLP)(cfg, params)
