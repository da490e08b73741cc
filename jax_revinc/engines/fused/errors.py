"""Why a program is left to XLA."""


class NotFusible(Exception):
    """This loss can't be compiled into a fused program. Says why in one sentence; XLA runs it all the same."""


class UpdateNotFusible(NotFusible):
    """It is the optimizer that can't be fused."""
