"""A compiled SIMD program made from the jaxpr of the one Flax model."""
