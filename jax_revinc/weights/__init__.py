"""Weights: how they are drawn, stacked over layers, and multiplied with each other."""
