"""The fused engine: it compiles a JAX function to one C++ program for this CPU's SIMD vectors.

Its stages are `trace`, `graph`, `simplify`, `schedule`, `emit`, `build` and `verify`. `gradient`,
`vmap` and `training` run them for a `Spec`.
"""
