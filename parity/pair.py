"""One model in each framework, and what both are asked."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import Module

from jax_revinc import HookedTransformer
from parity.jax_side import JaxSide
from parity.question import Question
from parity.torch_side import TorchSide


@dataclass(frozen=True)
class Pair:
    """Our model, TransformerLens' (of the installed world), the question, and what answers it for ours."""

    ours: HookedTransformer
    theirs: Module
    question: Question
    our_side: type[JaxSide] = JaxSide

    def jax_side(self, dtype: str) -> JaxSide:
        return self.our_side(self.ours, self.question, dtype)

    def torch_side(self, dtype: str) -> TorchSide:
        return TorchSide(self.theirs, self.ours.cfg, self.question, dtype)
