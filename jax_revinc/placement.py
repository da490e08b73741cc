"""Moving a model to a device, as methods of a model."""

from __future__ import annotations

from typing import Any, Self

import jax

from jax_revinc.compilation.devices import find_device
from revinc.errors import UserError


class Placement:
    """The part of a model that moves its parameters, in place."""

    def to(self, device: Any, print_details: bool = True) -> Self:  # noqa: ARG002
        """Move the parameters to a device, and return the model.

        Args:
            device: a device of JAX's, or torch's name of it, such as "cpu" or "cuda:0"; None leaves the
                parameters where they are.
            print_details: without effect.

        Raises:
            UserError: if this machine has no such device, or for a type of numbers.
        """
        model: Any = self
        if "float" in str(device):
            raise UserError(
                f"the type of a model's numbers is in its config; instead of .to({device}), use "
                "HookedTransformer(cfg.replace(dtype='float64'), params=model.params)"
            )
        target = find_device(device)
        for variable in model.param_variables().values():
            variable.set_raw_value(jax.device_put(variable.get_raw_value(), target))
        return self

    def cpu(self) -> Self:
        """Move the parameters to the CPU, and return the model."""
        return self.to("cpu")

    def cuda(self, device: int = 0) -> Self:
        """Move the parameters to a GPU, and return the model.

        Raises:
            UserError: if JAX sees no such GPU.
        """
        return self.to(f"cuda:{device}")
