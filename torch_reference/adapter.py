"""The face that both TransformerLens worlds show here: what this project asks of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from revinc import HookedTransformerConfig
from revinc.weights import StateDict

Model = torch.nn.Module
"""A `HookedTransformer` of 3.9 or a `TransformerBridge` of 4.x."""


@dataclass(frozen=True)
class KnownDifference:
    """Where a world's numbers are not 3.9's, and why.

    Attributes:
        level: the level of parity at which it shows, such as "L3".
        name: what the name of a tensor of that level ends with.
        why: one sentence.
    """

    level: str
    name: str
    why: str


class Adapter(Protocol):
    """What this project asks of TransformerLens. Names and layouts of arguments are 3.9's."""

    KNOWN_DIFFERENCES: tuple[KnownDifference, ...]

    def make_model(self, cfg: HookedTransformerConfig, device: str = "cpu", seed: int = 0) -> Model:
        """A model with TransformerLens' own initialisation, drawn from `seed`."""

    def our_config(self, cfg: Any) -> HookedTransformerConfig:
        """Our config for TransformerLens'.

        Raises:
            UserError: naming the fields whose values are not implemented here.
        """

    def read_weights(self, model: Any, cfg: HookedTransformerConfig) -> StateDict:
        """A copy of the model's weights as numpy arrays, without buffers that are no parameters in 3.9.

        Raises:
            UserError: if they are not those of `cfg`.
        """

    def write_weights(self, model: Any, cfg: HookedTransformerConfig, weights: StateDict) -> None:
        """Load `weights` into the model.

        Raises:
            UserError: if they are not those of `cfg`.
        """

    def shapes(self, model: Any) -> dict[str, tuple[int, ...]]:
        """The name and shape of everything that is a parameter in 3.9, in 3.9's layout."""

    def trainable(self, model: Any, cfg: HookedTransformerConfig) -> dict[str, torch.nn.Parameter]:
        """What an optimizer moves, by 3.9's names, in the model's own layout."""

    def to_3_9(self, cfg: HookedTransformerConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in the model's layout of a parameter, such as its gradient, in 3.9's layout."""

    def from_3_9(
        self, cfg: HookedTransformerConfig, name: str, tensor: torch.Tensor
    ) -> torch.Tensor:
        """The inverse of `to_3_9`."""

    def in_dtype(self, model: Any, dtype: torch.dtype) -> Any:
        """A copy of the model that computes in `dtype`."""

    def in_3_9(self, cfg: HookedTransformerConfig, names: Iterable[str]) -> list[str]:
        """Those of a model's activation names that 3.9 has too."""
