"""How runs are executed. Every engine runs the one model; they differ in speed and rounding."""

from jax_revinc.engines.population import FusedPopulation, XlaPopulation
from jax_revinc.engines.single import FusedEngine, XlaEngine

ENGINES = {"xla": XlaEngine, "fused": FusedEngine}
"""What executes one run, by name."""

POPULATION_ENGINES = {"xla": XlaPopulation, "fused": FusedPopulation}
"""What trains a population, by name."""

__all__ = [
    "ENGINES",
    "POPULATION_ENGINES",
    "FusedEngine",
    "FusedPopulation",
    "XlaEngine",
    "XlaPopulation",
]
