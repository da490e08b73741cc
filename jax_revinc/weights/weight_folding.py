"""Weights that compute the same and are easier to read, as methods of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from jax_revinc.compilation.numerical_settings import with_numerics
from revinc import HookedTransformerConfig, weight_processing


class WeightFolding:
    """The part of a model that folds, centres and factors weights.

    The steps take a state dict and return another: dicts of NumPy or JAX arrays by TransformerLens'
    names. The model stays as it is. `revinc.weight_processing` defines them.
    """

    cfg: HookedTransformerConfig

    @with_numerics
    def fold_layer_norm(
        self,
        state_dict: Mapping[str, Any],
        fold_biases: bool = True,
        center_weights: bool = True,
    ) -> dict[str, Any]:
        """Fold the gains and biases of norms into the weights that read the norms' outputs.

        Args:
            state_dict: the weights.
            fold_biases, center_weights: False leaves out this part of folding a layer norm; without
                effect on RMS norms. See `revinc.weight_processing.fold_layer_norm`.

        Raises:
            UserError: if no norm has weights.
        """
        return weight_processing.fold_layer_norm(state_dict, self.cfg, fold_biases, center_weights)

    @with_numerics
    def center_writing_weights(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Subtract the mean over d_model from the weights that write to the residual stream.

        Raises:
            UserError: if a norm does not centre its input, so that this changes the model.
        """
        return weight_processing.center_writing_weights(state_dict, self.cfg)

    @with_numerics
    def center_unembed(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Subtract the mean over the logits, which softmax ignores, from ``W_U`` and ``b_U``.

        Raises:
            UserError: if the logits have a soft cap.
        """
        return weight_processing.center_unembed(state_dict, self.cfg)

    @with_numerics
    def fold_value_biases(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Fold ``b_V`` into ``b_O``: as attention patterns sum to 1, it only adds a constant."""
        return weight_processing.fold_value_biases(state_dict, self.cfg)

    @with_numerics
    def refactor_factored_attn_matrices(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Choose other factors of each head's QK and OV matrices: products of singular vectors.

        See `revinc.weight_processing.refactor_factored_attn_matrices`.

        Raises:
            UserError: for rotary positions, grouped queries, or a d_head above d_model.
        """
        return weight_processing.refactor_factored_attn_matrices(state_dict, self.cfg)

    @with_numerics
    def process_weights(self, **steps: bool) -> Self:
        """A model that computes the same, with weights that are easier to interpret.

        See `revinc.weight_processing.process_weights`.

        Args:
            steps: `fold_ln`, `center_writing_weights`, `center_unembed`, `fold_value_biases`: each is
                done unless it is False, or would change what this model computes.
                `refactor_factored_attn_matrices` is done if it is True.

        Raises:
            UserError: if attention can't be refactored, and shall be.
        """
        model: Any = self
        make: Any = type(self)
        params, cfg = weight_processing.process_weights(model.params, self.cfg, **steps)
        return make(cfg, params=params)

    def process_weights_(
        self,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        refactor_factored_attn_matrices: bool = False,
        *,
        fold_value_biases: bool = True,
    ) -> None:
        """Process this model's weights in place; see `process_weights`."""
        model: Any = self
        processed: Any = self.process_weights(
            fold_ln=fold_ln,
            center_writing_weights=center_writing_weights,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
            refactor_factored_attn_matrices=refactor_factored_attn_matrices,
        )
        model._build(processed.cfg, processed.params)

    def load_and_process_state_dict(
        self,
        state_dict: Mapping[str, Any],
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
    ) -> None:
        """Load parameters, then process them in place; see `load_state_dict`, `process_weights`."""
        model: Any = self
        model.load_state_dict(state_dict)
        self.process_weights_(
            fold_ln,
            center_writing_weights,
            center_unembed,
            refactor_factored_attn_matrices,
            fold_value_biases=fold_value_biases,
        )
