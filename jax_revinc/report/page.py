"""The HTML page of a run, ``report.html``: training curves, figures of its model, and claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax_revinc.analysis.snapshots import shown_steps
from jax_revinc.report import run_figures
from jax_revinc.report.descriptions import run_facts
from jax_revinc.report.model_sections import model_sections
from jax_revinc.report.render_html import Gallery, render
from jax_revinc.report.subject import subject_of_run
from jax_revinc.training import Run
from revinc.atomic_files import write_text
from revinc.config_summary import count, nearest_preset
from revinc.number_format import percentage
from revinc.runs import REPORT
from revinc.tasks import eval_positions


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run, and return its path.

    Args:
        run: the run.

    Raises:
        UserError: if the run is unfinished, or one of its files is damaged.
        OSError: if the folder is not writable; an earlier report then stays as it was.
    """
    page = report_page(run)
    path = run.path / REPORT
    write_text(path, page)
    return path


def report_page(run: Run, eyebrow: Mapping[str, str] | None = None) -> str:
    """The page of a run as HTML text.

    Args:
        run: a finished run.
        eyebrow: the line above the title, as names by kind; by default the run and its name.
    """
    cfg = run.config

    def curves() -> dict[str, Gallery]:
        return {"curves": run_figures.curves(run), "forming": run_figures.forming(run)}

    pictures, data = model_sections(subject_of_run(run), curves)
    sections = cfg.to_dict()
    return render(
        "run.html",
        pictures,
        {
            **data,
            "eyebrow": eyebrow or {"run": run.path.resolve().name},
            "scores": final_scores(run) | data["scores"],
            "facts": run_facts(run),
            "eval_every": cfg.eval_every,
            "predicted": count(len(eval_positions(cfg.task)), "token"),
            "step_labels": step_labels(run),
            "nearest": nearest_preset(sections),
            "settings": {**sections, **origin(run)},
        },
    )


def origin(run: Run) -> dict[str, Mapping[str, Any]]:
    """The engine and the package versions of a run, by section."""
    return {"engine": run.engine, "versions": run.versions}


def final_scores(run: Run) -> dict[str, str]:
    """A run's final accuracy on each split, as a dict of texts."""
    last = run.metrics.iloc[-1]
    return {
        "Train accuracy": percentage(last["train_accuracy"]),
        "Holdout accuracy": percentage(last["holdout_accuracy"]),
    }


def step_labels(run: Run) -> list[str]:
    """The labels of the page's slider over a run's snapshots: steps and accuracies."""
    columns = (run.metrics[name] for name in ("step", "train_accuracy", "holdout_accuracy"))
    accuracies = {
        step: f": train {percentage(train)}, holdout {percentage(holdout)}"
        for step, train, holdout in zip(*columns, strict=True)
    }
    return [f"step {step:,}{accuracies.get(step, '')}" for step in shown_steps(run)]
