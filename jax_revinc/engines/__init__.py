"""How a run is executed. Every engine runs the one model; they differ in speed and rounding."""

from jax_revinc.engines.xla import XlaEngine

__all__ = ["XlaEngine"]
