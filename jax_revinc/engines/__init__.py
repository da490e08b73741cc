"""How runs are executed. Every engine runs the one model; they differ in speed and rounding."""

from jax_revinc.engines.fused_population import FusedPopulation
from jax_revinc.engines.xla import XlaEngine
from jax_revinc.engines.xla_population import XlaPopulation

POPULATION_ENGINES = {"xla": XlaPopulation, "fused": FusedPopulation}
"""What trains a population, by name."""

__all__ = ["POPULATION_ENGINES", "FusedPopulation", "XlaEngine", "XlaPopulation"]
