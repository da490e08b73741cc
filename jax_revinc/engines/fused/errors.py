"""Errors of the fused engine: each says why it can't run a computation, so that XLA must run it."""


class NotFusible(Exception):
    """The fused engine can't compile a function, or the compiled results differ from XLA's."""


class UpdateNotFusible(NotFusible):
    """The fused engine can't compile an optimizer's update; perhaps it can compile the gradient."""


class CannotBuild(RuntimeError):
    """The fused engine can't compile C++ on this machine, for example for lack of a compiler."""
