"""The parity check: compares models in JAX, and their training, with TransformerLens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from jax_revinc import HookedTransformer, Run, TrainConfig, UserError
from jax_revinc.engines import make_engine
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible
from jax_revinc.engines.xla import Gradient
from jax_revinc.training import draw_weights
from parity.bridge import require_no_hooks, require_ours, require_theirs, to_torch
from parity.free_running_level import check_free_running
from parity.fused_side import FusedSide, gradient_by_fusing
from parity.inputs import Inputs, make_inputs, require_inputs_fit
from parity.jax_side import JaxSide
from parity.levels import TITLES, Level
from parity.model_levels import check_level, check_names, places_not_finite
from parity.model_pair import Pair
from parity.perturbed_runs import kept_run_in_torch
from parity.population_level import check_population, is_stored
from parity.report import Report
from parity.training_levels import (
    Step,
    check_every_step,
    check_optimizer,
    fused_step,
    jax_step,
    kept_trajectory,
)
from revinc.engine import Engine
from revinc.model_config import DTYPES
from revinc.provenance import installed_versions
from revinc.tasks import eval_positions
from revinc.validation import require_choice
from torch_reference.installed_transformer_lens import VERSION
from torch_reference.optimizer import COUNTERPARTS
from torch_reference.threads import fitting_threads, threads

OF_MODELS = ("L0", "L1", "L2", "L3")
"""The levels that need two models and tokens; the others need a training config."""

QUICK = (*OF_MODELS, "L4")
"""The levels that take seconds; the others train, for minutes."""


def compare(
    jax_model: HookedTransformer,
    torch_model: Any,
    tokens: Any,
    levels: Sequence[str] = OF_MODELS,
    *,
    dtypes: Sequence[str] = DTYPES,
    predicted: Sequence[int] | None = None,
) -> Report:
    """Compare a JAX model with a TransformerLens one: names, activations, gradients, interventions.

    Args:
        jax_model: the model in JAX.
        torch_model: a model of the installed TransformerLens.
        tokens: ids [batch, seq] of whole sequences: the models are fed all but the last token, and
            their loss is of predicting the next one.
        levels: any of "L0" to "L3".
        dtypes: precisions to compare in, whatever the models' own is.
        predicted: positions in a sequence whose token's loss counts; all but the first by default.

    Raises:
        UserError: for an unknown level or precision, an argument that is no model, or tokens that a
            model can't be fed.
    """
    require_among("levels", levels, OF_MODELS)
    require_among("dtypes", dtypes, DTYPES)
    require_ours("jax_model", jax_model)
    require_theirs("torch_model", torch_model)
    require_no_hooks("torch_model", torch_model)
    inputs = make_inputs(tokens, predicted)
    require_inputs_fit(inputs, jax_model.cfg)
    require_inputs_fit(inputs, torch_model.cfg)
    pair = Pair(jax_model, torch_model, inputs)
    names = check_names(pair)
    if names.passed:
        with threads(fitting_threads(jax_model.cfg, len(inputs.tokens))):
            found = [level for name in levels for level in model_level(name, pair, dtypes)]
    else:
        found = [no_further(names)]
    return make_report("two models", found, {"model": jax_model.cfg.to_dict()})


def no_further(names: Level) -> Level:
    """Add a remark to the failed result of parity level L0: no other level is checked."""
    names.remarks.append("models that fail here are not compared any further")
    return names


def assert_parity(
    jax_model: HookedTransformer, torch_model: Any, tokens: Any, **options: Any
) -> None:
    """Raise an AssertionError if a JAX and a TransformerLens model differ; its text shows where.

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
    found: Callable[[Level], object] | None = None,
    engine: str = "xla",
) -> Report:
    """Compare the model of a run or of a config, and its training in JAX, with TransformerLens.

    Args:
        subject: a finished run, or a training config.
        levels: any of "L0" to "L7"; by default the `QUICK` ones that can be checked for the config.
            `applicable_levels` names all that can be.
        dtypes: precisions, for the levels that have both; L5 and L6 are in float64.
        found: called with every result as soon as it is there.
        engine: the engine that computes the JAX side, one of `ENGINES`.

    Raises:
        UserError: for an unknown level, precision or engine, an unfinished run, a level of training
            with an optimizer that torch lacks, or a model that the engine can't run.
        Diverged: if a training loss, in torch or by L7 in JAX, becomes NaN or infinite.
    """
    if not isinstance(subject, Run | TrainConfig):
        raise UserError(
            "the parity check takes a Run or a TrainConfig, not a "
            f"{type(subject).__name__}; Run.load opens a run folder"
        )
    cfg = subject.config if isinstance(subject, Run) else subject
    levels = quick_levels(cfg) if levels is None else levels
    require_among("levels", levels, tuple(TITLES))
    require_among("dtypes", dtypes, DTYPES)
    require_choice("engine", engine, tuple(ENGINES))
    parts = ENGINES[engine]
    ours = (
        subject.model()
        if isinstance(subject, Run)
        else HookedTransformer(cfg.model, params=draw_weights(cfg))
    )
    inputs = Inputs(cfg.task.sequences(), eval_positions(cfg.task))
    case = Case(cfg, Pair(ours, to_torch(ours), inputs, parts.side), dtypes, parts)
    results = []
    n_examples = max(cfg.batch_size, len(inputs.tokens))
    try:
        with threads(fitting_threads(cfg.model, n_examples)):
            for result in results_of(case, levels):
                results.append(result)
                if found:
                    found(result)
    except (NotFusible, CannotBuild) as why:
        raise UserError(f"the fused engine can't run this model (use --engine xla): {why}") from why
    described = str(subject.path) if isinstance(subject, Run) else "a fresh model"
    if engine != "xla":
        described += f", by the {engine} engine"
    return make_report(described, results, cfg.to_dict())


def results_of(case: Case, levels: Sequence[str]) -> Iterator[Level]:
    """Check levels one after the other, and yield their results; only L0's if a weight is a NaN."""
    if places_not_finite(case.pair):  # then every level fails, also those of training
        yield no_further(check_names(case.pair))
        return
    for name in levels:
        yield from LEVELS[name](case)


class EngineParts(NamedTuple):
    """The functions and classes by which an engine computes the JAX side of the parity check.

    Attributes:
        side: computes activations, gradients and interventions.
        step: makes one optimizer step.
        gradient: computes the training loss and its gradient; None for XLA's.
        engine: makes the engine that trains.
    """

    side: type[JaxSide]
    step: Step
    gradient: Gradient | None
    engine: Callable[[TrainConfig], Engine]


ENGINES = {
    "xla": EngineParts(JaxSide, jax_step, None, make_engine),
    "fused": EngineParts(
        FusedSide, fused_step, gradient_by_fusing, partial(make_engine, engine_name="fused")
    ),
}
"""By engine name. The fused engine has no activations: XLA computes those, and interventions."""


class Case(NamedTuple):
    """The training config and the models of a parity check, with its precisions and its engine.

    Attributes:
        cfg: the training config.
        pair: its model in both frameworks.
        dtypes: precisions, for the levels that have several.
        parts: the parts of the engine that computes the JAX side.
    """

    cfg: TrainConfig
    pair: Pair
    dtypes: Sequence[str]
    parts: EngineParts


def model_level(name: str, pair: Pair, dtypes: Sequence[str]) -> Iterator[Level]:
    """Check one of the parity levels L0 to L3 on two models; yield a result for each precision."""
    if name == "L0":
        yield check_names(pair)
        return
    for dtype in dtypes:
        yield check_level(name, pair, dtype)


LEVELS: dict[str, Callable[[Case], Iterable[Level]]] = {
    "L0": lambda case: model_level("L0", case.pair, case.dtypes),
    "L1": lambda case: model_level("L1", case.pair, case.dtypes),
    "L2": lambda case: model_level("L2", case.pair, case.dtypes),
    "L3": lambda case: model_level("L3", case.pair, case.dtypes),
    "L4": lambda case: (check_optimizer(case.cfg, d, case.parts.step) for d in case.dtypes),
    "L5": lambda case: [check_every_step(case.cfg, case.parts.gradient, kept_trajectory)],
    "L6": lambda case: [check_free_running(case.cfg, case.parts.gradient, kept_run_in_torch)],
    "L7": lambda case: [check_population(case.cfg, make_engine=case.parts.engine)],
}
"""By level, the function that checks it, in each precision that it has."""


def applicable_levels(cfg: TrainConfig) -> list[str]:
    """The names of the parity levels that can be checked for a config.

    L4 to L7 need its optimizer in torch, and L7 stored outcomes of many seeds in torch.
    """
    if cfg.optimizer not in COUNTERPARTS:
        return list(OF_MODELS)
    return [name for name in TITLES if name != "L7" or is_stored(cfg)]


def quick_levels(cfg: TrainConfig) -> list[str]:
    """The names of the `QUICK` parity levels that can be checked for a config."""
    return [name for name in applicable_levels(cfg) if name in QUICK]


def make_report(subject: str, levels: list[Level], config: dict[str, Any]) -> Report:
    """Make the report of a parity check, with the versions of the installed packages."""
    return Report(
        f"{subject}, against TransformerLens {VERSION}", levels, installed_versions(), config
    )


def require_among(what: str, given: Any, known: Sequence[str]) -> None:
    """Raise a UserError unless `given` is a non-empty list of names that are all in `known`."""
    is_list = isinstance(given, list | tuple) and given
    if not is_list or not all(isinstance(name, str) and name in known for name in given):
        raise UserError(
            f"{what} must be a list with one or more of {', '.join(known)}, not {given!r}"
        )
