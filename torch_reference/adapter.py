"""The interface to TransformerLens, the same for versions 3.9 and 4.x."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from revinc import HookedTransformerConfig
from revinc.weights import StateDict

Model = torch.nn.Module
"""A `HookedTransformer` of 3.9, or a `TransformerBridge` of 4.x."""


@dataclass(frozen=True)
class KnownDifference:
    """A known difference between the installed TransformerLens and version 3.9.

    Attributes:
        level: the level of the parity check that shows it, such as "L3".
        name: the end of the names of the tensors that differ.
        why: the reason, in one sentence.
    """

    level: str
    name: str
    why: str


class Adapter(Protocol):
    """What this project needs of TransformerLens, with the names and layouts of version 3.9."""

    MODEL: type[Model]
    """The class of the models."""

    KNOWN_DIFFERENCES: tuple[KnownDifference, ...]

    def make_model(self, cfg: HookedTransformerConfig, device: str = "cpu", seed: int = 0) -> Model:
        """Make a model with initial weights as TransformerLens draws them from `seed`."""

    def our_config(self, cfg: Any) -> HookedTransformerConfig:
        """Convert a model config of TransformerLens to ours.

        Raises:
            UserError: naming the fields whose values are not supported here.
        """

    def read_weights(self, model: Any, cfg: HookedTransformerConfig) -> StateDict:
        """A copy of the model's weights as numpy arrays, without buffers.

        Raises:
            UserError: if the weights do not fit `cfg`.
        """

    def write_weights(self, model: Any, cfg: HookedTransformerConfig, weights: StateDict) -> None:
        """Load `weights` into the model.

        Raises:
            UserError: if the weights do not fit `cfg`.
        """

    def parameters(self, model: Any) -> dict[str, torch.Tensor]:
        """The model's parameters, by the names and in the layouts of TransformerLens 3.9."""

    def trainable(self, model: Any, cfg: HookedTransformerConfig) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by TransformerLens 3.9's names, but in the model's layouts."""

    def to_3_9(self, cfg: HookedTransformerConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Convert a tensor, such as a gradient, from the model's layout to that of 3.9."""

    def from_3_9(
        self, cfg: HookedTransformerConfig, name: str, tensor: torch.Tensor
    ) -> torch.Tensor:
        """Convert a tensor from TransformerLens 3.9's layout to the model's."""

    def in_dtype(self, model: Any, dtype: torch.dtype) -> Any:
        """A copy of the model that computes in `dtype`, on the CPU.

        Constants that the model derived from its config, such as rotary tables, are derived again:
        a cast would keep their rounding.
        """

    def in_3_9(self, cfg: HookedTransformerConfig, names: Iterable[str]) -> list[str]:
        """The activation names among `names` that TransformerLens 3.9 has too."""
