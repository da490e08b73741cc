"""Running the judge: on two models, and on a whole run with its training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_revinc import HookedTransformer, Run, TrainConfig, UserError
from jax_revinc.engines import FusedEngine, XlaEngine
from jax_revinc.engines.fused.compiler import CannotBuild
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.xla import Gradient
from jax_revinc.model import check_range, check_tokens
from jax_revinc.training import draw_weights
from parity.bridge import to_torch
from parity.free_running import check_free_running
from parity.fused_side import FusedSide, gradient_by_fusing
from parity.jax_side import JaxSide
from parity.levels import TITLES, Level
from parity.model_levels import check_level, check_names
from parity.pair import Pair
from parity.population import check_population, is_stored
from parity.question import Question
from parity.report import Report
from parity.training_levels import Step, check_every_step, check_optimizer, fused_step, jax_step
from revinc.engine import Engine
from revinc.model_config import DTYPES
from revinc.provenance import installed_versions
from revinc.tasks import predicted_positions
from revinc.validation import require_choice
from torch_reference.installed import VERSION
from torch_reference.optimizer import COUNTERPARTS

OF_MODELS = ("L0", "L1", "L2", "L3")
"""The levels that need two models and tokens; the others need a recipe to train by."""


def compare(
    jax_model: HookedTransformer,
    torch_model: Any,
    tokens: Any,
    levels: Sequence[str] = OF_MODELS,
    *,
    dtypes: Sequence[str] = DTYPES,
    predicted: Sequence[int] | None = None,
) -> Report:
    """Whether two models are the same, by their names, activations, gradients and reactions to edits.

    Args:
        jax_model: ours.
        torch_model: the installed TransformerLens' own.
        tokens: ids [batch, seq] of whole sequences: the models are fed all but the last token, and
            their loss is of predicting the next one.
        levels: any of "L0" to "L3".
        dtypes: precisions to compare in, whatever the models' own is.
        predicted: positions in a sequence whose token's loss counts; all but the first by default.

    Raises:
        UserError: for an unknown level or precision, or tokens that the model can't be fed.
    """
    require_among("levels", levels, OF_MODELS)
    require_among("dtypes", dtypes, DTYPES)
    pair = Pair(jax_model, torch_model, make_question(jax_model, tokens, predicted))
    names = check_names(pair)
    if not names.passed:
        names.remarks.append("what has other names or shapes can't be compared any further")
        levels = ()
    found = [level for name in levels for level in model_level(name, pair, dtypes)]
    return make_report("two models", found or [names], {"model": jax_model.cfg.to_dict()})


def make_question(
    model: HookedTransformer, tokens: Any, predicted: Sequence[int] | None
) -> Question:
    """The question that `compare` describes; a UserError if `model` can't be asked it."""
    tokens = np.array(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise UserError(f"tokens must have shape [batch, seq], seq at least 2, not {tokens.shape}")
    check_tokens(model.cfg, tokens[:, :-1])
    check_range(tokens, model.cfg.d_vocab_out, "d_vocab_out")
    counted = tuple(range(1, tokens.shape[1]) if predicted is None else predicted)
    if not counted or not all(1 <= position < tokens.shape[1] for position in counted):
        raise UserError(f"predicted must be positions in 1..{tokens.shape[1] - 1}, not {counted}")
    return Question(tokens, counted)


def assert_parity(
    jax_model: HookedTransformer, torch_model: Any, tokens: Any, **options: Any
) -> None:
    """The one line for a test: `compare`, and an error that shows what differs.

    Raises:
        AssertionError: if a level fails; its message is the failed levels' tables.
        UserError: as `compare`.
    """
    report = compare(jax_model, torch_model, tokens, **options)
    failed = make_report(report.subject, [x for x in report.levels if not x.passed], report.config)
    assert report.passed, f"the two models differ\n{failed}"


def check(
    subject: Run | TrainConfig,
    levels: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    follow: Callable[[Sequence[str]], Iterable[str]] = iter,
    engine: str = "xla",
) -> Report:
    """The judge's verdict on a run: its final model, and its recipe's training; a recipe: its fresh model.

    Args:
        subject: a finished run, or a recipe.
        levels: any of "L0" to "L7"; by default all, L7 if a population of the recipe is stored.
        dtypes: precisions, for the levels that know both; the others say which is theirs.
        follow: is given the levels and yields them in turn, so that it can show progress.
        engine: what computes our side: of `OURS`.

    Raises:
        UserError: for an unknown level, precision or engine, a run that is not finished, a level of training
            with an optimizer that torch lacks, or a model that the engine can't run.
    """
    cfg = subject.config if isinstance(subject, Run) else subject
    levels = applicable_levels(cfg) if levels is None else levels
    require_among("levels", levels, tuple(TITLES))
    require_among("dtypes", dtypes, DTYPES)
    require_choice("engine", engine, tuple(OURS))
    by = OURS[engine]
    ours = (
        subject.model()
        if isinstance(subject, Run)
        else HookedTransformer(cfg.model, params=draw_weights(cfg))
    )
    question = Question(cfg.task.sequences(), predicted_positions(cfg.task))
    pair = Pair(ours, to_torch(ours), question, by.side)
    of_training = {
        "L4": lambda: [check_optimizer(cfg, dtype, by.step) for dtype in dtypes],
        "L5": lambda: [check_every_step(cfg, by.gradient)],
        "L6": lambda: [check_free_running(cfg, by.gradient)],
        "L7": lambda: [check_population(cfg, make_engine=by.engine)],
    }
    found: list[Level] = []
    try:
        for name in follow(levels):
            found += of_training[name]() if name in of_training else model_level(name, pair, dtypes)
    except (NotFusible, CannotBuild) as why:
        raise UserError(f"the fused engine can't run this: {why}") from why
    described = str(subject.path) if isinstance(subject, Run) else "a fresh model"
    if engine != "xla":
        described += f", by the {engine} engine"
    return make_report(described, found, cfg.to_dict())


class Ours(NamedTuple):
    """What computes our side."""

    side: type[JaxSide]
    step: Step
    gradient: Gradient | None
    engine: Callable[[TrainConfig], Engine]


OURS = {
    "xla": Ours(JaxSide, jax_step, None, XlaEngine),
    "fused": Ours(FusedSide, fused_step, gradient_by_fusing, FusedEngine),
}
"""By engine. The fused one has no activations: those, and interventions, are XLA's all the same."""


def applicable_levels(cfg: TrainConfig) -> list[str]:
    """All levels, without L7 where no population of the recipe is stored; of an optimizer that torch lacks, `OF_MODELS`."""
    if cfg.optimizer not in COUNTERPARTS:
        return list(OF_MODELS)
    return [name for name in TITLES if name != "L7" or is_stored(cfg)]


def model_level(name: str, pair: Pair, dtypes: Sequence[str]) -> list[Level]:
    """One of `OF_MODELS` in each precision that it has: L0 needs none."""
    if name == "L0":
        return [check_names(pair)]
    return [check_level(name, pair, dtype) for dtype in dtypes]


def make_report(subject: str, levels: list[Level], config: dict[str, Any]) -> Report:
    """A report of the packages that are installed."""
    return Report(
        f"{subject}, against TransformerLens {VERSION}", levels, installed_versions(), config
    )


def require_among(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raise a UserError unless all of `given`, at least one, are known."""
    unknown = [name for name in given if name not in known]
    if unknown or not given or isinstance(given, str):
        raise UserError(f"{what} must be some of {', '.join(known)}, not {given!r}")
