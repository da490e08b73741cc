"""The HTML page of a model without a run folder, such as one that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path

from jax_revinc.model import HookedTransformer
from jax_revinc.report.descriptions import model_facts
from jax_revinc.report.model_sections import model_sections
from jax_revinc.report.render_html import render
from jax_revinc.report.subject import subject_of_model
from revinc import HookedTransformerConfig, Task, UserError
from revinc.atomic_files import write_text
from revinc.config import task_section
from revinc.config_summary import nearest_preset
from revinc.tasks import check_task, eval_positions
from revinc.validation import require_path
from revinc.weights import check_finite


def write_model_page(model: HookedTransformer, task: Task, out: str | Path) -> Path:
    """Write the page of a model that was trained anywhere, and return its path.

    The page holds what the page of a run holds, except the training: curves and snapshots.

    Args:
        model: the model; `parity.from_torch` makes one of a TransformerLens model.
        task: the task that it was trained on.
        out: the page's file, such as ``model.html``. Its folder is made if it does not exist.

    Raises:
        UserError: if an argument has another type, the model has too few positions, tokens or
            outputs for the task, its weights hold NaN or infinite values, or `out` is a folder.
        OSError: if the file can't be written; an earlier page then stays as it was.
    """
    path = require_path("out", out)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; name the page's file in it, such as {path}/model.html"
        )
    page = model_page(model, task, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def model_page(model: HookedTransformer, task: Task, name: str) -> str:
    """The page of a model as HTML text. Takes and raises what `write_model_page` does.

    Args:
        model: the model.
        task: the task.
        name: what the page calls the model.
    """
    if not isinstance(model, HookedTransformer):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise UserError(
            f"model must be a jax_revinc.HookedTransformer, not {kind}; parity.from_torch makes "
            "one of a TransformerLens model"
        )
    check_task(task)
    require_fit(model.cfg, task)
    subject = subject_of_model(model, task)
    check_finite(subject.weights, "the model")
    pictures, data = model_sections(subject)
    sections = {"model": model.cfg.to_dict(), "task": task_section(task)}
    return render(
        "model.html",
        pictures,
        {
            **data,
            "eyebrow": {"model": name},
            "facts": model_facts(model.cfg),
            "nearest": nearest_preset(sections),
            "settings": sections,
        },
    )


def require_fit(cfg: HookedTransformerConfig, task: Task) -> None:
    """Raise a UserError if a model is too small to be fed a task's sequences, or to answer them."""
    tokens = task.sequences()
    answers = tokens[:, list(eval_positions(task))]
    for field, needed, what in (
        ("n_ctx", tokens.shape[1] - 1, "feeds it {} positions"),
        ("d_vocab", int(max(tokens.max() + 1, len(task.vocabulary))), "has {} tokens"),
        ("d_vocab_out", int(answers.max()) + 1, "asks for answers among {} tokens"),
    ):
        if getattr(cfg, field) < needed:
            raise UserError(
                f"the model has {field}={getattr(cfg, field)}, but the task {task.name} "
                f"{what.format(needed)}; give the task that the model was trained on"
            )
