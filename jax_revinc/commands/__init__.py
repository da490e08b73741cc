"""The subcommands of ``jax-revinc``, a module each. None is imported before it is called."""
