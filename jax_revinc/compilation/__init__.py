"""How programs are compiled and kept, and the numerical settings of JAX."""
