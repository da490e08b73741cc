"""The HTML page of a run, ``report.html``: training curves, figures of its model, and claims."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jax_revinc.analysis.claims import Claims
from jax_revinc.analysis.snapshots import shown_steps
from jax_revinc.report import run_figures
from jax_revinc.report.descriptions import percent, run_facts
from jax_revinc.report.model_behaviour import View, mean_view, sample_views
from jax_revinc.report.model_findings import find
from jax_revinc.report.render_html import render
from jax_revinc.training import Run
from revinc import HookedTransformerConfig, Task
from revinc.atomic_files import write_text
from revinc.config_summary import count
from revinc.runs import REPORT
from revinc.tasks import eval_positions
from revinc.token_labels import which_sequences

SECTIONS = (
    "curves",
    "forming",
    "patterns",
    "attribution",
    "mlp_outputs",
    "effects",
    "circuits",
    "increments",
    "mlp_weights",
)
"""The galleries of pictures in the order of the page."""

CLAIM_COLUMNS = (
    "maps to the answer",
    "share of the answer",
    "makes it",
    "accuracy without",
    "needed",
    "restored",
    "enough",
)


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run, and return its path.

    Raises:
        UserError: if the run is unfinished, or one of its files is damaged.
        OSError: if the folder is not writable; an earlier report then stays as it was.
    """
    page = report_page(run)
    path = run.path / REPORT
    write_text(path, page)
    return path


def report_page(run: Run) -> str:
    """The page of a run as HTML text."""
    cfg, task, weights = run.config, run.config.task, run.state_dict()
    with ThreadPoolExecutor(max_workers=1) as aside:  # while this thread draws what it has
        finding = aside.submit(find, cfg.model, weights, task)
        samples, mean = sample_views(weights, cfg), mean_view(weights, cfg)
        views = [*samples, mean]
        patterns = [view.activity.patterns for view in views]
        labels = [view.labels for view in views]
        galleries = {
            "curves": run_figures.curves(run),
            "forming": run_figures.forming(run),
            "patterns": run_figures.pattern_pictures(
                "pattern", patterns, labels, run_figures.SEQUENCE, task
            ),
            "attribution": run_figures.attribution(task, views),
            "mlp_outputs": run_figures.mlp_outputs(views),
            "mlp_weights": run_figures.mlp_weights(weights, cfg.model),
        }
        found = finding.result()
    galleries |= {
        "effects": run_figures.effects(found, cfg.model, task),
        "circuits": run_figures.weight_circuits(found.circuits, cfg.model, task),
        "increments": run_figures.increments(found.increment, cfg.model, task),
    }
    pictures = {name: p for section in SECTIONS for name, p in galleries[section].items()}
    return render(
        "run.html",
        pictures,
        {
            **galleries,
            "run_name": run.path.resolve().name,
            "task": task,
            "example": f"{samples[0].name} → {' '.join(samples[0].answers['target'])}",
            "scores": final_scores(run, mean),
            "facts": run_facts(run),
            "claims": found.claims and claim_data(found.claims, cfg.model),
            "eval_every": cfg.eval_every,
            "predicted": count(len(eval_positions(task)), "token"),
            "step_labels": step_labels(run),
            "shown": shown_sequences(task, samples),
            "views": views,
            "view_options": view_options(views),
            "answers_are_shifted": task.answers == shifted(len(task.answers)),
            "answer_names": [task.position_labels[position] for position in eval_positions(task)],
            "cfg": cfg.model,
            "settings": {**cfg.to_dict(), "engine": run.engine, "versions": run.versions},
        },
    )


def shifted(n: int) -> tuple[int, ...]:
    """The answers of a task that adds 1 to each of `n` tokens, modulo `n`."""
    return tuple((token + 1) % n for token in range(n))


def final_scores(run: Run, mean: View) -> dict[str, str]:
    """A run's final accuracy on each split and on the task's sequences, as a dict of texts."""
    last = run.metrics.iloc[-1]
    sequences = which_sequences(run.config.task)
    return {
        "Train accuracy": percent(last["train_accuracy"]),
        "Holdout accuracy": percent(last["holdout_accuracy"]),
        f"Accuracy on {sequences} sequences": percent(mean.activity.right.mean()),
    }


def claim_data(found: Claims, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """The results of testing the tutorial's claims on a model: sentences, and tables of numbers."""
    records = found.to_dict(cfg)
    return {
        "sentences": found.sentences(cfg),
        "heads": {
            name: [*(f"{share:.2f}" for share in record["reading"]), record["reverses"]]
            for name, record in records["heads"].items()
        },
        "columns": CLAIM_COLUMNS,
        "components": {
            name: [
                f"{record['increment']:.2f}",
                percent(record["increment_share"]),
                record["increments"],
                percent(record["accuracy_without"]),
                record["necessary"],
                percent(record["accuracy_restored"]),
                record["sufficient"],
            ]
            for name, record in records["components"].items()
        },
    }


def step_labels(run: Run) -> list[str]:
    """The labels of the page's slider over a run's snapshots: steps and accuracies."""
    columns = (run.metrics[name] for name in ("step", "train_accuracy", "holdout_accuracy"))
    accuracies = {
        step: f": train {percent(train)}, holdout {percent(holdout)}"
        for step, train, holdout in zip(*columns, strict=True)
    }
    return [f"step {step:,}{accuracies.get(step, '')}" for step in shown_steps(run)]


def shown_sequences(task: Task, samples: Sequence[View]) -> str:
    """A phrase such as "60 of 6,561 sequences", on how many of them the page shows one by one."""
    total = len(task.sequences())
    if len(samples) == total:
        return f"{which_sequences(task).capitalize()} sequences"
    return f"{len(samples)} of {total:,} sequences"


def view_options(views: Sequence[View]) -> dict[str, list[dict[str, Any]]]:
    """The entries of a drop-down list of the sequences that the page shows, grouped by split."""
    groups = {"holdout": "Holdout", "train": "Train", "": "All"}
    options: dict[str, list[dict[str, Any]]] = {name: [] for name in groups.values()}
    for i, view in enumerate(views):
        mark = "" if view.right is None else " ✗" if view.is_wrong else " ✓"
        option = {"value": i, "name": view.name, "text": view.name + mark, "wrong": view.is_wrong}
        options[groups[view.split]].append(option)
    return options
