"""Cached activations, and what the residual stream is made of."""
