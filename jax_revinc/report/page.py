"""The page of a run: one file that opens without a network, with every figure inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from jax_revinc.analysis.claims import claims, why_none
from jax_revinc.model import HookedTransformer
from jax_revinc.report import gallery, markup, shell, words
from jax_revinc.report.circuits import circuit_pictures, increment_pictures
from jax_revinc.report.contents import View, mean_view, percent, sample_views
from jax_revinc.report.effects import effect_pictures
from jax_revinc.report.forming import STEP, forming_pictures, step_labels
from jax_revinc.report.shell import Gallery, Picture
from jax_revinc.training import Run
from revinc import Task, TrainConfig
from revinc.atomic import write_atomically
from revinc.labels import which_sequences
from revinc.runs import REPORT
from revinc.tasks import predicted_positions

FILTERED = ("pattern", "mlp_out")
"""Pictures of one sequence that belong to a layer, or to a layer and a head."""


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
    forming = forming_pictures(run)
    patterns = gallery.patterns(cfg.task, views)
    votes = gallery.attribution(cfg.task, views)
    mlp_outs = gallery.mlp_outs(views)
    effects = effect_pictures(model, cfg.task)
    circuits = circuit_pictures(model, cfg.task)
    increments = increment_pictures(model, cfg.task)
    weights = gallery.weights(run)
    title = cfg.task.title
    run_name = run.path.resolve().name
    body = Template(shell.asset(__package__, "run.html")).substitute(
        title=markup.text(title),
        run_name=markup.text(run_name),
        task_sentence=markup.text(cfg.task.description),
        example=markup.text(f"{samples[0].name} → {' '.join(samples[0].answers['target'])}"),
        scores=markup.facts(scores(run, mean)),
        facts=markup.facts(words.run_facts(run)),
        claims=claims_section(model, cfg.task),
        eval_every=cfg.eval_every,
        noscript=markup.NO_SCRIPT,
        curves=places(curves, 360),
        forming=forming_part(run, forming),
        shown=shown(cfg, samples),
        chooser=markup.view_chooser(views),
        filter=markup.filters({"layer": cfg.model.n_layers, "head": cfg.model.n_heads}),
        answers=answers(cfg, views),
        attention=places(patterns),
        attribution=places(votes, 120 + 26 * len(mean.activity.attribution)),
        mlp_outs=mlp_places(cfg, mlp_outs, words.MLP_OUTS),
        effects=effects_section(effects),
        circuits=circuits_section(circuits, increments),
        weights=mlp_places(cfg, weights, words.MLP_WEIGHTS),
        settings=settings(run),
        predicted=words.count(len(predicted_positions(cfg.task)), "token"),
    )
    drawn = (
        curves | forming | patterns | votes | mlp_outs | effects | circuits | increments | weights
    )
    return shell.make_page(f"{title} · {run_name}", body, drawn)


def place(name: str, picture: Picture, height: int | None = None) -> str:
    """Where a picture is drawn. Its name ends with the layer, or the layer and the head, that it shows."""
    kind, *numbers = name.split("-")
    of = dict(zip(("layer", "head"), map(int, numbers), strict=False)) if kind in FILTERED else {}
    return markup.place(name, picture.figure.layout.title.text, height=height, of=of)


def places(drawn: Gallery, height: int | None = None) -> str:
    """Where pictures are drawn, side by side."""
    return markup.grid(place(name, picture, height) for name, picture in drawn.items())


def matrices(drawn: Gallery) -> str:
    """Where matrices are drawn, side by side, as high as their rows need."""
    return markup.grid(
        place(name, picture, min(120 + 32 * len(picture.figure.data[0].y), 560))
        for name, picture in drawn.items()
    )


def shown(cfg: TrainConfig, samples: Sequence[View]) -> str:
    """How many sequences can be chosen, in words."""
    total = len(cfg.task.sequences())
    return (
        f"{which_sequences(cfg.task).capitalize()} sequences"
        if len(samples) == total
        else f"{len(samples)} of {total:,} sequences"
    )


def forming_part(run: Run, forming: Gallery) -> str:
    """The circuit at every snapshot, with the slider that chooses it."""
    if not forming:
        return markup.paragraph(words.NO_SNAPSHOTS, "note")
    return (
        f"<h3>How the circuit formed</h3>{markup.paragraph(words.FORMING)}"
        f"{markup.slider(STEP, 'Snapshot', step_labels(run))}{places(forming)}"
    )


def circuits_section(circuits: Gallery, increments: Gallery) -> str:
    """What the weights do to a token on each path, and who makes the answer of it."""
    return markup.section(
        "Circuits",
        markup.paragraph(words.CIRCUITS) + matrices(circuits) if circuits else "",
        f"<h3>Who makes the answer</h3>{markup.paragraph(words.INCREMENTS)}{matrices(increments)}"
        if increments
        else "",
    )


def effects_section(effects: Gallery) -> str:
    """What breaks if a component is taken away, and what is repaired if it is put back."""
    return markup.section("Cause and effect", markup.paragraph(words.EFFECTS), matrices(effects))


def claims_section(model: HookedTransformer, task: Task) -> str:
    """What holds of the model, in sentences, with the numbers behind them; nothing where `why_none` has a reason."""
    if why_none(task):
        return ""
    found = claims(model, task)
    told = found.to_dict(model.cfg)
    components = {
        name: [
            f"{record['increment']:.2f}",
            percent(record["increment_share"]),
            record["increments"],
            percent(record["accuracy_without"]),
            record["necessary"],
            percent(record["accuracy_restored"]),
            record["sufficient"],
        ]
        for name, record in told["components"].items()
    }
    heads = {
        name: [*(f"{share:.2f}" for share in record["reading"]), record["reverses"]]
        for name, record in told["heads"].items()
    }
    asked = [task.position_labels[position] for position in predicted_positions(task)]
    return markup.section(
        "What it learned",
        markup.bullets(found.sentences(model.cfg)),
        markup.table(
            "Attention on the token that decides each answer", [*asked, "reads it"], heads
        ),
        markup.paragraph(words.CLAIMS),
        markup.table("Components", words.CLAIM_COLUMNS, components),
    )


def mlp_places(cfg: TrainConfig, drawn: Gallery, explanation: str) -> str:
    """Places for figures of the MLPs, as high as their rows ask for; or why there are none."""
    if cfg.model.attn_only:
        return "<p class='note'>This model is attention only: it has no MLPs.</p>"
    if not drawn:
        shape = f"{cfg.model.d_model} by {cfg.model.d_mlp}"
        return f"<p class='note'>Matrices of {shape} are too large to be drawn here.</p>"
    return f"<p class='legend'>{explanation}</p>{matrices(drawn)}"


def scores(run: Run, mean: View) -> dict[str, str]:
    """The final accuracy on both splits, and on all sequences or those that stand for them."""
    last = run.metrics.iloc[-1]
    return {
        "Train accuracy": percent(last["train_accuracy"]),
        "Holdout accuracy": percent(last["holdout_accuracy"]),
        f"Accuracy on {which_sequences(run.config.task)} sequences": percent(
            mean.activity.right.mean()
        ),
    }


def answers(cfg: TrainConfig, views: Sequence[View]) -> str:
    """The tables of what the model answered, one per view."""
    columns = [cfg.task.position_labels[position] for position in predicted_positions(cfg.task)]
    return "".join(markup.answers_table(i, view, columns) for i, view in enumerate(views))


def settings(run: Run) -> str:
    """Everything that defines the run, as tables."""
    sections = {**run.config.to_dict(), "engine": run.engine, "versions": run.versions}
    return markup.settings_tables(sections)
