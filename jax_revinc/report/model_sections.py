"""The sections of a page that are about one model, whether a run trained it or anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from jax_revinc.analysis.claims import Claims
from jax_revinc.evaluation import evaluate_weights, has_own_predictions
from jax_revinc.report import run_figures
from jax_revinc.report.model_behaviour import View, given_words, mean_view, sample_views
from jax_revinc.report.model_findings import find
from jax_revinc.report.render_html import Gallery
from jax_revinc.report.subject import UNSPLIT, Subject
from revinc import HookedTransformerConfig, Task
from revinc.config_summary import count
from revinc.number_format import percentage
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

GROUPS = {"holdout": "Holdout", "train": "Train", UNSPLIT: "Sequences", "": "All"}
"""By split, the heading of its sequences in the list of those that a reader can choose."""

MOST_WORDS = 12
"""Words of a sequence that a reader is told one by one."""

CLAIM_COLUMNS = (
    "maps to the answer",
    "share of the answer",
    "makes it",
    "accuracy without",
    "needed",
    "restored",
    "enough",
)


class Sections(NamedTuple):
    """What the template ``model.html`` shows.

    Attributes:
        pictures: all pictures by name, in the order of the page.
        data: the galleries, and everything else, by the names in the template.
    """

    pictures: Gallery
    data: dict[str, Any]


def accuracies(subject: Subject, mean: View) -> dict[str, str]:
    """The accuracy on the task's sequences, fed the right tokens and its own, as texts by title."""
    cfg, task = subject.cfg, subject.task
    title = f"Accuracy on {which_sequences(task)} sequences"
    scores = {title: percentage(mean.activity.right.mean())}
    if has_own_predictions(cfg, task):
        sequences = task.sequences()
        own = evaluate_weights(cfg, subject.weights, task, sequences, free_running=True)
        scores["Fed its own predictions"] = percentage(own.accuracy)
    return scores


def no_more() -> Mapping[str, Gallery]:
    """No further galleries."""
    return {}


def model_sections(
    subject: Subject, draw_more: Callable[[], Mapping[str, Gallery]] = no_more
) -> Sections:
    """What a page tells of a model: claims, sequences one by one, effects, circuits, weights.

    Args:
        subject: the model and its task.
        draw_more: draws further galleries of `SECTIONS`, while the findings are computed.
    """
    cfg, task, weights = subject.cfg, subject.task, subject.weights
    with ThreadPoolExecutor(max_workers=1) as aside:  # while this thread draws what it has
        finding = aside.submit(find, cfg, weights, task)
        samples, mean = sample_views(subject), mean_view(subject)
        views = [*samples, mean]
        patterns = [view.activity.patterns for view in views]
        labels = [view.labels for view in views]
        galleries = {
            **draw_more(),
            "patterns": run_figures.pattern_pictures(
                "pattern", patterns, labels, run_figures.SEQUENCE, task
            ),
            "attribution": run_figures.attribution(task, views),
            "mlp_outputs": run_figures.mlp_outputs(views),
            "mlp_weights": run_figures.mlp_weights(weights, cfg),
        }
        scores = accuracies(subject, mean)
        found = finding.result()
    galleries |= {
        "effects": run_figures.effects(found, cfg, task),
        "circuits": run_figures.weight_circuits(found.circuits, cfg, task),
        "increments": run_figures.increments(found.increment, cfg, task),
    }
    drawn = [galleries[section] for section in SECTIONS if section in galleries]
    return Sections(
        {name: picture for gallery in drawn for name, picture in gallery.items()},
        {
            **galleries,
            "task": task,
            "example": f"{samples[0].name} → {' '.join(samples[0].answers['target'])}",
            "scores": scores,
            "claims": found.claims and claim_data(found.claims, cfg),
            "shown": shown_sequences(task, samples),
            "expected": expected_sequence(task, samples),
            "views": views,
            "view_options": view_options(views),
            "answers_are_shifted": task.answers == shifted(len(task.answers)),
            "answer_names": [task.position_labels[position] for position in eval_positions(task)],
            "cfg": cfg,
        },
    )


def shifted(n: int) -> tuple[int, ...]:
    """The answers of a task that adds 1 to each of `n` tokens, modulo `n`."""
    return tuple((token + 1) % n for token in range(n))


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
                percentage(record["increment_share"]),
                record["increments"],
                percentage(record["accuracy_without"]),
                record["necessary"],
                percentage(record["accuracy_restored"]),
                record["sufficient"],
            ]
            for name, record in records["components"].items()
        },
    }


def shown_sequences(task: Task, samples: Sequence[View]) -> str:
    """A phrase such as "60 of 6,561 sequences", on how many of them the page shows one by one."""
    total = len(task.sequences())
    if len(samples) == total:
        return f"{which_sequences(task).capitalize()} sequences"
    return f"{len(samples)} of {total:,} sequences"


def expected_sequence(task: Task, samples: Sequence[View]) -> str:
    """What a reader is to type to see a sequence: its length, its words and an example."""
    example = samples[0].name
    words: dict[str, None] = {}  # in order
    for tokens in task.sequences():
        words |= dict.fromkeys(given_words(task, tokens))
        if len(words) > MOST_WORDS:
            break
    of = "" if len(words) > MOST_WORDS else f", each one of {', '.join(words)}"
    some = len(samples) < len(task.sequences())
    shown = f" ({shown_sequences(task, samples)} are shown here)" if some else ""
    return f"type {count(len(example.split()), 'token')}{of}, such as {example}{shown}"


def view_options(views: Sequence[View]) -> dict[str, list[dict[str, Any]]]:
    """The entries of a drop-down list of the sequences that the page shows, grouped by split."""
    options: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS.values()}
    for i, view in enumerate(views):
        mark = "" if view.right is None else " ✗" if view.is_wrong else " ✓"
        option = {"value": i, "name": view.name, "text": view.name + mark, "wrong": view.is_wrong}
        options[GROUPS[view.split]].append(option)
    return options
