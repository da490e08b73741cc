"""Switching optional hook points on and off, in place, as methods of a model."""

from __future__ import annotations

from typing import Any

from revinc.errors import UserError


class HookSwitches:
    """The part of a model that adds and removes optional hook points.

    Each method changes the model's config and keeps its parameters and hooks.
    """

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether the output of every head is hooked: ``hook_result``."""
        self._switch(use_attn_result=use_attn_result)

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether the inputs of queries, keys and values are hooked by head: ``hook_q_input``, ..."""
        self._switch(use_split_qkv_input=use_split_qkv_input)

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Whether the input of every MLP is hooked: ``hook_mlp_in``.

        Raises:
            UserError: for a model without MLPs.
        """
        self._switch(use_hook_mlp_in=use_hook_mlp_in)

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Whether the input of attention is hooked by head: ``hook_attn_in``.

        Raises:
            UserError: for a model whose heads share keys and values.
        """
        self._switch(use_attn_in=use_attn_in)

    def set_ungroup_grouped_query_attention(self, ungroup_grouped_query_attention: bool) -> None:
        """Whether keys and values that heads share are hooked once for every head.

        Without effect if the heads share none, as in TransformerLens.
        """
        model: Any = self
        if model.cfg.n_key_value_heads is not None:
            self._switch(ungroup_grouped_query_attention=ungroup_grouped_query_attention)

    def _switch(self, **changes: bool) -> None:
        model: Any = self
        before, params = model.cfg, model.params
        model._build(before.replace(**changes), params)
        vanished = {handle.name for handle in model._handles} - set(model.hook_names)
        if vanished:
            model._build(before, params)
            raise UserError(
                f"the model would lose {', '.join(sorted(vanished))}, which has hooks; remove them "
                "first, by reset_hooks"
            )
