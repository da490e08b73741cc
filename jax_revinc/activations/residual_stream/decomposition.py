"""What embeddings, attention layers and MLPs write into the residual stream, and the stream itself."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from jax_revinc.activations.residual_stream.components import (
    Block,
    embeddings,
    everywhere,
    layer_output,
    of_stream,
)
from jax_revinc.activations.residual_stream.heads_and_neurons import HeadsAndNeurons
from jax_revinc.activations.residual_stream.layers import fed_layer, mlp_stream, n_attentions_before
from jax_revinc.activations.residual_stream.logit_attribution import LogitAttribution
from jax_revinc.activations.residual_stream.norms import NO_NORM, Reading, norm_before
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.slices import SliceInput
from revinc import UserError
from revinc.validation import require_choice


class Decomposition(HeadsAndNeurons, LogitAttribution):
    """The methods of a cache that split the residual stream."""

    @with_numerics
    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Literal["all", "mlp", "attn"] = "all",
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """The outputs of the embeddings and of all earlier layers: they sum to the input to `layer`.

        An embedding that is not in the cache is left out.

        Args:
            layer: the layer whose input is split, 0..n_layers; n_layers, -1 and None mean the
                unembedding.
            mlp_input: split the input to the layer's MLP instead of that to its attention.
            mode: "all", or only the "mlp" or the "attn" outputs.
            apply_ln: scale as that layer's norm does (see `apply_ln_to_stack`).
            pos_slice: the positions to keep; an int drops the axis.
            incl_embeds: include the embeddings, in any `mode`.
            return_labels: return ``(stack, labels)``: "embed", "pos_embed", "0_attn_out",
                "0_mlp_out", ...

        Returns:
            The stack [components, batch, pos, d_model].

        Raises:
            UserError: for a layer, MLP, mode or position that does not exist, or if nothing is
                left.
            KeyError: if an activation is missing.
        """
        require_choice("mode", mode, ("all", "mlp", "attn"))
        fed = fed_layer(self.cfg, layer, mlp_input)
        reading = Reading(
            self, pos_slice, norm_before(self, fed, mlp_input) if apply_ln else NO_NORM
        )
        at = reading.positions
        blocks = embeddings(self, at) if incl_embeds else []
        for earlier in range(self.cfg.n_layers):
            if mode != "mlp" and earlier < n_attentions_before(self.cfg, fed, mlp_input):
                blocks.append(layer_output(self, earlier, "attn_out", at))
            if mode != "attn" and earlier < fed and not self.cfg.attn_only:
                blocks.append(layer_output(self, earlier, "mlp_out", at))
        if not blocks:
            raise UserError(
                "there are no components to stack: none of those asked for comes before layer "
                f"{fed}"
            )
        return labelled(reading.stack([reading.block(b) for b in blocks]), return_labels)

    @with_numerics
    def accumulated_resid(
        self,
        layer: int | None = None,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        mlp_input: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """The residual stream before each layer up to `layer`; the last layer is the unembedding.

        Args:
            layer, pos_slice: see `decompose_resid`.
            incl_mid: include the stream between attention and MLP of every earlier layer.
            apply_ln: normalise as the input to `layer`. At the unembedding, apply the final norm
                anew to each entry, with gain and bias; elsewhere, divide by the cached scale.
            mlp_input: include the input to the layer's MLP.
            return_labels: return ``(stack, labels)``: "0_pre", "0_mid", ..., "final_post".

        Returns:
            The stack [components, batch, pos, d_model].

        Raises:
            UserError: for a layer, MLP or position that does not exist.
            KeyError: if an activation is missing.
        """
        fed = fed_layer(self.cfg, layer, mlp_input)
        has_mid = mlp_stream(self.cfg) == "resid_mid"
        if incl_mid and not has_mid:
            raise UserError(
                "incl_mid asks for the residual stream between attention and MLP, which this model "
                "does not have; leave incl_mid out"
            )
        reading = Reading(self, pos_slice)
        at = reading.positions
        blocks = []
        for earlier in range(min(fed + 1, self.cfg.n_layers)):
            before = f"blocks.{earlier}.hook_resid"
            blocks.append(of_stream(self, f"{earlier}_pre", f"{before}_pre", at))
            if (incl_mid and earlier < fed) or (mlp_input and has_mid and earlier == fed):
                blocks.append(of_stream(self, f"{earlier}_mid", f"{before}_mid", at))
        to_unembed = fed == self.cfg.n_layers
        if to_unembed:
            blocks.append(of_stream(self, "final_post", f"blocks.{fed - 1}.hook_resid_post", at))
        found = reading.stack(blocks)
        if apply_ln:
            stack = self.apply_ln_to_stack(found.stack, fed, mlp_input, at, recompute_ln=to_unembed)
            found = Block(found.labels, stack)
        return labelled(found, return_labels)

    @with_numerics
    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: SliceInput = None,
        return_labels: bool = False,
        project_output_onto: Array | None = None,
    ) -> Any:
        """The outputs of heads, neurons, embeddings and biases, whose sum is the input to `layer`.

        Args:
            layer, mlp_input, apply_ln, pos_slice: see `decompose_resid`.
            expand_neurons: split MLPs into neurons; else whole MLPs, with their biases.
            return_labels: return ``(stack, labels)``; the last is "bias".
            project_output_onto: see `stack_neuron_results`.

        Returns:
            The stack [components, batch, pos, d_model].

        Raises:
            UserError: for a layer, MLP or position that does not exist, or a cache without a model.
            KeyError: if an activation is missing.
        """
        cfg, model = self.cfg, self.known_model()
        fed = fed_layer(cfg, layer, mlp_input)
        norm = norm_before(self, fed, mlp_input) if apply_ln else NO_NORM
        reading = Reading(self, pos_slice, norm, project_output_onto)
        at = reading.positions
        attentions = range(n_attentions_before(cfg, fed, mlp_input))
        blocks = self.head_blocks(len(attentions), reading)
        biases = [model.blocks[earlier].attn.b_O[...] for earlier in attentions]
        for earlier in range(0 if cfg.attn_only else fed):
            if expand_neurons:
                blocks.append(self.neuron_block(earlier, reading))
                biases.append(model.blocks[earlier].mlp.b_out[...])
            else:
                blocks.append(reading.block(layer_output(self, earlier, "mlp_out", at)))
        blocks += [reading.block(embedding) for embedding in embeddings(self, at)]
        bias = reading.vectors(sum(biases, jnp.zeros(cfg.d_model, cfg.dtype)))
        like = at.apply(self["hook_embed"], -2, "position")
        blocks.append(everywhere("bias", bias, (*like.shape[:-1], *bias.shape)))
        return labelled(reading.stack(blocks), return_labels)


def labelled(block: Block, return_labels: bool) -> Any:
    """The stack of a block, with its labels as a list if they are asked for."""
    return (block.stack, list(block.labels)) if return_labels else block.stack
