"""The engines, which train models. All compute the same model, and differ in speed and rounding."""

from jax_revinc.engines.make_engine import PROGRAMS, make_engine, make_population_engine
from jax_revinc.engines.many_models import JaxPopulation
from jax_revinc.engines.single_model import JaxEngine

__all__ = ["PROGRAMS", "JaxEngine", "JaxPopulation", "make_engine", "make_population_engine"]
