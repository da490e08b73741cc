"""Thousands of runs of one recipe: trained side by side, kept in a store, opened lazily."""

from jax_revinc.population.handle import Population, load
from jax_revinc.population.training import train_population

__all__ = ["Population", "load", "train_population"]
