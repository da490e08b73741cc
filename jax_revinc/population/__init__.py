"""Populations: many models of one training config, trained side by side into one folder."""

from jax_revinc.population.read_population import Population, load
from jax_revinc.population.training import train_population

__all__ = ["Population", "load", "train_population"]
