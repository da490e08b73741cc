"""The page of a run: one file that opens without a network, with every figure inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from plotly.graph_objects import Figure

from jax_revinc.report import gallery, markup, shell, words
from jax_revinc.report.contents import (
    View,
    mean_view,
    percent,
    sample_views,
)
from jax_revinc.report.shell import Gallery
from jax_revinc.training import Run
from revinc import TrainConfig
from revinc.atomic import write_atomically
from revinc.runs import REPORT
from revinc.tasks import predicted_positions


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the folder of a finished run, and return its path.

    Raises:
        UserError: if the run is unfinished, or one of its files is damaged.
        OSError: if the folder is not writable; an earlier report is then as it was.
    """
    page = report_page(run)
    path = run.path / REPORT
    write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


def report_page(run: Run) -> str:
    """The page as HTML."""
    cfg = run.config
    model = run.model()
    samples = sample_views(model, cfg)
    mean = mean_view(model, cfg)
    views = [*samples, mean]
    curves = gallery.curves(run)
    patterns = gallery.patterns(cfg.task, views)
    mlp_outs = gallery.mlp_outs(views)
    weights = gallery.weights(run)
    title = words.task_title(cfg.task)
    run_name = run.path.resolve().name
    body = Template(shell.asset(__package__, "run.html")).substitute(
        title=markup.text(title),
        run_name=markup.text(run_name),
        task_sentence=markup.text(words.task_sentence(cfg.task)),
        example=markup.text(f"{samples[0].name} → {' '.join(samples[0].answers['target'])}"),
        scores=markup.facts(scores(run, mean)),
        facts=markup.facts(words.run_facts(run)),
        eval_every=cfg.eval_every,
        noscript=markup.NO_SCRIPT,
        curves=markup.grid(place(name, figures, 360) for name, figures in curves.items()),
        n_samples=len(samples),
        chooser=markup.view_chooser(views),
        answers=answers(cfg, views),
        attention=markup.grid(place(name, figures) for name, figures in patterns.items()),
        mlp_outs=mlp_places(cfg, mlp_outs, words.MLP_OUTS),
        weights=mlp_places(cfg, weights, words.MLP_WEIGHTS),
        settings=settings(run),
        n_predicted=len(predicted_positions(cfg.task)),
    )
    return shell.make_page(f"{title} · {run_name}", body, curves | patterns | mlp_outs | weights)


def place(name: str, alternatives: Sequence[Figure], height: int | None = None) -> str:
    """Where a figure is drawn, whose title is the same in every view."""
    return markup.place(name, alternatives[0].layout.title.text, height=height)


def mlp_places(cfg: TrainConfig, drawn: Gallery, explanation: str) -> str:
    """Places for figures of the MLPs, as high as their rows ask for; or why there are none."""
    if cfg.model.attn_only:
        return "<p class='note'>This model is attention only: it has no MLPs.</p>"
    if not drawn:
        shape = f"{cfg.model.d_model} by {cfg.model.d_mlp}"
        return f"<p class='note'>Matrices of {shape} are too large to be drawn here.</p>"
    return f"<p class='legend'>{explanation}</p>" + markup.grid(
        place(name, figures, min(120 + 32 * len(figures[0].data[0].y), 560))
        for name, figures in drawn.items()
    )


def scores(run: Run, mean: View) -> dict[str, str]:
    """The final accuracy on both splits and on every sequence."""
    last = run.metrics.iloc[-1]
    return {
        "Train accuracy": percent(last["train_accuracy"]),
        "Holdout accuracy": percent(last["holdout_accuracy"]),
        "Accuracy on all sequences": percent(mean.activity.right.mean()),
    }


def answers(cfg: TrainConfig, views: Sequence[View]) -> str:
    """The tables of what the model answered, one per view."""
    columns = [cfg.task.position_labels[position] for position in predicted_positions(cfg.task)]
    return "".join(markup.answers_table(i, view, columns) for i, view in enumerate(views))


def settings(run: Run) -> str:
    """Everything that defines the run, as tables."""
    sections = {**run.config.to_dict(), "engine": run.engine, "versions": run.versions}
    return markup.settings_tables(sections)
