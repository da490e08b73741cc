"""What single heads and neurons write into the residual stream."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jax_revinc.activations.cached_activations import CachedActivations
from jax_revinc.activations.residual_stream.components import (
    EVERY,
    Block,
    head_labels,
    head_results,
    of_stream,
    remainder,
)
from jax_revinc.activations.residual_stream.layers import fed_layer
from jax_revinc.activations.residual_stream.norms import NO_NORM, Reading, norm_before
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.slices import Slice, SliceInput
from revinc import UserError
from revinc.validation import require_index


class HeadsAndNeurons(CachedActivations):
    """The methods of a cache about single heads and neurons."""

    @with_numerics
    def compute_head_results(self) -> None:
        """Add the output of every head to the cache, as ``blocks.0.attn.hook_result``, ...

        They are [batch, pos, head, d_model]. A cache that has them (see ``cfg.use_attn_result``)
        stays as it is.

        Raises:
            UserError: if the cache holds no model.
            KeyError: if the cache lacks a ``hook_z``.
        """
        for layer in range(self.cfg.n_layers):
            self.cache_dict[f"blocks.{layer}.attn.hook_result"] = self.results_of(layer)

    @with_numerics
    def stack_head_results(
        self,
        layer: int | None = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: SliceInput = None,
        apply_ln: bool = False,
    ) -> Any:
        """The output of every head in the layers before `layer`: its ``hook_z`` times its W_O.

        A cached ``hook_result`` is taken as it is. Unlike in TransformerLens, none is added to the
        cache: `compute_head_results` does that.

        Args:
            layer, pos_slice, apply_ln: see `decompose_resid`.
            return_labels: return ``(stack, labels)``: "L0H0", ..., and "remainder".
            incl_remainder: append the rest of the stream, so that the stack sums to the input to
                `layer`.

        Returns:
            The stack [layer * n_heads, batch, pos, d_model], and the remainder.

        Raises:
            UserError: for a layer or position that does not exist, or a cache without a model.
            KeyError: if an activation is missing.
        """
        fed = fed_layer(self.cfg, layer)
        reading = Reading(self, pos_slice, norm_before(self, fed) if apply_ln else NO_NORM)
        blocks = self.head_blocks(fed, reading)
        return self.with_remainder(blocks, fed, reading, incl_remainder, return_labels)

    @with_numerics
    def get_neuron_results(
        self,
        layer: int,
        neuron_slice: SliceInput = None,
        pos_slice: SliceInput = None,
        project_output_onto: Array | None = None,
    ) -> Float[Array, "*batch pos neurons d_model"]:
        """The output of neurons of one MLP: each activation times the neuron's row of W_out.

        Args:
            layer: the layer, 0..n_layers-1.
            neuron_slice: the neurons to keep; an int drops the axis.
            pos_slice: the positions to keep; an int drops the axis.
            project_output_onto: see `stack_neuron_results`.

        Raises:
            UserError: for a layer, neuron or position that does not exist, an attention-only model,
                or a cache without a model.
            KeyError: if the cache lacks the layer's ``hook_post``.
        """
        require_index("layer", layer, self.cfg.n_layers)
        reading = Reading(self, pos_slice, onto=project_output_onto)
        results = self.neuron_results(layer, reading, Slice(neuron_slice))
        return results[..., 0] if reading.is_one_direction else results

    @with_numerics
    def stack_neuron_results(
        self,
        layer: int | None,
        pos_slice: SliceInput = None,
        neuron_slice: SliceInput = None,
        return_labels: bool = False,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        project_output_onto: Array | None = None,
    ) -> Any:
        """The output of every MLP neuron before `layer`: its activation times its row of W_out.

        Args:
            layer, pos_slice, apply_ln: see `decompose_resid`.
            neuron_slice: the neurons to keep, in every layer.
            return_labels: return ``(stack, labels)``: "L0N0", ..., and "remainder".
            incl_remainder: see `stack_head_results`.
            project_output_onto: directions [d_model, n_outputs], or one direction [d_model]: the
                stack then holds products with them instead of vectors, and each row of W_out is
                projected before it is expanded.

        Returns:
            The stack [layer * neurons, batch, pos, d_model], and the remainder.

        Raises:
            UserError: for a layer, position or neuron that does not exist, an attention-only model,
                or a cache without a model.
            KeyError: if an activation is missing.
        """
        fed = fed_layer(self.cfg, layer)
        norm = norm_before(self, fed) if apply_ln else NO_NORM
        reading = Reading(self, pos_slice, norm, project_output_onto)
        neurons = Slice.unwrap(neuron_slice)
        self.require_mlps()
        blocks = [self.neuron_block(earlier, reading, neurons) for earlier in range(fed)]
        return self.with_remainder(blocks, fed, reading, incl_remainder, return_labels)

    def head_blocks(self, n_layers: int, reading: Reading) -> list[Block]:
        """The outputs of the heads of the first layers, read but for the norm's scale."""
        blocks = []
        for layer in range(n_layers):
            results = reading.positions.apply(self.results_of(layer), -3, "position")
            block = Block(head_labels(self.cfg, layer), jnp.moveaxis(results, -2, 0))
            blocks.append(reading.block(block))
        return blocks

    def results_of(self, layer: int) -> Float[Array, "*batch pos n_heads d_model"]:
        """The cached outputs of a layer's heads, or, if there are none, computed ones."""
        if f"blocks.{layer}.attn.hook_result" in self.cache_dict:
            return self["result", layer]
        return jnp.moveaxis(head_results(self, layer).stack, 0, -2)

    def with_remainder(
        self,
        blocks: list[Block],
        fed: int,
        reading: Reading,
        incl_remainder: bool,
        return_labels: bool,
    ) -> Any:
        """Stack blocks, if asked for with the rest of the stream; of no blocks, an empty stack."""
        if incl_remainder:
            hook = f"blocks.{fed - 1}.hook_resid_post" if fed else "blocks.0.hook_resid_pre"
            stream = reading.block(of_stream(self, "", hook, reading.positions))
            blocks = [*blocks, remainder(stream.stack[0], blocks)]
        if not blocks:
            some = reading.block(of_stream(self, "", "blocks.0.hook_resid_pre", reading.positions))
            blocks = [Block((), some.stack[:0])]
        found = reading.stack(blocks)
        return (found.stack, list(found.labels)) if return_labels else found.stack

    def neuron_block(self, layer: int, reading: Reading, neurons: Slice = EVERY) -> Block:
        """The outputs of some neurons of a layer, read as components but for the norm's scale."""
        results = self.neuron_results(layer, reading, neurons)
        kept = np.arange(self.cfg.d_mlp)[neurons.checked(self.cfg.d_mlp, "neuron")]
        labels = tuple(f"L{layer}N{neuron}" for neuron in kept)
        return Block(labels, jnp.moveaxis(results, -2, 0))

    def neuron_results(
        self, layer: int, reading: Reading, neurons: Slice
    ) -> Float[Array, "*batch pos neurons width"]:
        """The outputs of some neurons of a layer, read but for the norm's scale."""
        self.require_mlps()
        W_out_FM = neurons.apply(self.known_model().blocks[layer].mlp.W_out[...], 0, "neuron")
        post = reading.positions.apply(self["post", layer], -2, "position")
        return neurons.apply(post, -1, "neuron")[..., None] * reading.vectors(W_out_FM)

    def require_mlps(self) -> None:
        """Raise a UserError if the model is attention-only."""
        if self.cfg.attn_only:
            raise UserError("this model is attention-only, so it has no neurons to stack")
