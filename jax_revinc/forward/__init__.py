"""A forward pass: its arguments, its way through hooks, and the generation of tokens."""
