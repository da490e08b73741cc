"""The HTML page that compares two runs, ``compared_with_B.html`` in the folder of the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jax_revinc.analysis.claims import why_none
from jax_revinc.plots.run_comparison import compared_curves
from jax_revinc.report.comparison import tables
from jax_revinc.report.render_html import make_gallery, render
from jax_revinc.training import Run
from revinc import UserError
from revinc.atomic_files import write_text
from revinc.config_summary import model_size
from revinc.token_labels import which_sequences


def write_comparison(run: Run, other: Run) -> Path:
    """Write the page that compares two runs into the folder of the first, and return its path.

    Args:
        run: a finished run.
        other: another finished run of the same task.

    Raises:
        UserError: if the runs are one and the same, have different tasks, or one is unfinished or
            damaged.
        OSError: if the folder is not writable; an earlier page then stays as it was.
    """
    page = comparison_page(run, other)
    path = run.path / f"compared_with_{other.path.resolve().name}.html"
    write_text(path, page)
    return path


def comparison_page(run: Run, other: Run) -> str:
    """The page that compares two runs as HTML text. Takes and raises what `write_comparison` does."""
    require_comparable(run, other)
    runs, names, task = (run, other), run_names(run, other), run.config.task
    predictions = tables.predict(runs)
    final = [of.state_dict() for of in runs]
    initial = [of.state_dict(0) for of in runs]
    metrics = {name: of.metrics for name, of in zip(names, runs, strict=True)}
    gallery = make_gallery(
        {quantity: compared_curves(metrics, quantity) for quantity in ("loss", "accuracy")}
    )
    differing = tables.differing_rows(runs, predictions)
    n_differing = int(predictions.differ.sum())
    return render(
        "comparison.html",
        gallery,
        {
            "names": names,
            "task": task,
            "facts": {
                f"Run {name}": f"{model_size(of.config.model)}; trained by "
                f"{tables.engine_in_words(of)}"
                for name, of in zip(names, runs, strict=True)
            },
            "predictions": f"Of {which_sequences(task)} sequences, the two models predict "
            f"{n_differing:,} differently.",
            "counts": tables.right_counts(predictions, names),
            "outcomes": tables.final_metrics(runs, predictions),
            "fields": tables.differing_fields(runs),
            "curves": gallery,
            "why_no_claims": why_none(task),
            "claims": {} if why_none(task) else tables.claim_rows(runs),
            "weight_sentences": [
                tables.weight_sentence("The initial weights", *initial),
                tables.weight_sentence("The final weights", *final),
            ],
            "weights": tables.weight_rows(*final),
            "sequences": differing,
            "n_differing": n_differing,
            "sequence_columns": ["target", *names, *([] if task.is_drawn else ["split"])],
        },
    )


def require_comparable(run: Run, other: Run) -> None:
    """Raise a UserError unless two runs are different folders with the same task."""
    if run.path.resolve() == other.path.resolve():
        raise UserError(f"{run.path} and {other.path} are the same run; name two runs to compare")
    if run.config.task != other.config.task:
        raise UserError(
            f"{run.path} and {other.path} have different tasks ({run.config.task} and "
            f"{other.config.task}); compare runs of the same task"
        )


def run_names(run: Run, other: Run) -> Sequence[str]:
    """What the page calls two runs: the names of their folders, or their paths if these are equal."""
    names = [of.path.resolve().name for of in (run, other)]
    return names if names[0] != names[1] else [str(of.path) for of in (run, other)]
