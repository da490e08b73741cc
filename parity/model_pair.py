"""A pair of models, the same in JAX and TransformerLens, with the tokens that both are run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int
from torch.nn import Module

from jax_revinc import HookedTransformer
from parity.inputs import Inputs
from parity.jax_side import JaxSide
from parity.torch_side import TorchSide, least_likely


@dataclass(frozen=True)
class Pair:
    """A model in JAX and the same model in TransformerLens, with the inputs that both are run on.

    Attributes:
        ours: the model in JAX.
        theirs: the model of the installed TransformerLens.
        inputs: the tokens that both are fed.
        our_side: the class that computes the JAX model's answers.
    """

    ours: HookedTransformer
    theirs: Module
    inputs: Inputs
    our_side: type[JaxSide] = JaxSide

    @cached_property
    def unlikely(self) -> Int[np.ndarray, "batch n_predicted"]:
        """The token that TransformerLens finds least likely, at every predicted position."""
        return least_likely(self.theirs, self.inputs)

    def on_sample(self, n_sequences: int) -> Pair:
        """The same models on at most `n_sequences` of the sequences: see `Inputs.sample`."""
        return replace(self, inputs=self.inputs.sample(n_sequences))

    def jax_side(self, dtype: str) -> JaxSide:
        return self.our_side(self.ours, self.inputs, self.unlikely, dtype)

    def torch_side(self, dtype: str) -> TorchSide:
        return TorchSide(self.theirs, self.ours.cfg, self.inputs, self.unlikely, dtype)
