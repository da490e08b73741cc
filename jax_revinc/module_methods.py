"""Methods of a torch module that TransformerLens code calls: modes, gradients, modules by name."""

from __future__ import annotations

from typing import Any, Self

from jax_revinc.components.component import components, hook_attribute
from jax_revinc.hooks.hook_points import HookPoint


class ModuleMethods:
    """The part of a model that answers what TransformerLens code asks of a ``torch.nn.Module``.

    Training and evaluation do not differ, since there is no dropout. JAX differentiates with respect
    to what a caller asks for, so parameters hold no gradients.
    """

    tokenizer = None
    dataset = None

    def __getattr__(self, name: str) -> HookPoint:
        return hook_attribute(self, name, self)

    @property
    def mod_dict(self) -> dict[str, Any]:
        """Every component and every hook point, by name."""
        model: Any = self
        return dict(components(model)) | model.hook_dict

    def train(self, mode: bool = True, **attributes: Any) -> Self:  # noqa: ARG002
        """The model; there is no mode of training."""
        return self

    def eval(self, **attributes: Any) -> Self:  # noqa: ARG002
        """The model; there is no mode of evaluation."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """The model; ``jax.grad`` is told what to differentiate with respect to."""
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Without effect, as parameters hold no gradients."""
