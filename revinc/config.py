"""The training config: everything that decides a run, as a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from revinc.config_fields import (
    SEED,
    SIZE,
    Condition,
    check_effects,
    checked_fields,
    checks_names,
    described,
    hold_plain_values,
    short_repr,
)
from revinc.errors import UserError
from revinc.json_records import SECTIONS
from revinc.model_config import HookedTransformerConfig
from revinc.optimizer_fields import HYPERPARAMETERS, LR_SCHEDULES, OPTIMIZERS
from revinc.tasks import (
    ReverseIncrement,
    Task,
    build_task,
    check_known,
    check_task,
    eval_positions,
    recordable,
    recorded_task,
)

SPLITS = ("prefix", "random")
LOSS_ON = ("task", "all")
SEEDS = ("init_seed", "data_seed", "split_seed")

MOST_PAUSES = 2**20
"""The largest number of evaluations, and of snapshots, in a run."""


DECAYS = Condition("lr_schedule is cosine or linear", lambda cfg: cfg.lr_schedule != "constant")

TUTORIAL_TASK = ReverseIncrement()
TUTORIAL_MODEL = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, n_heads=1, d_mlp=4, d_vocab=5, n_ctx=9, act_fn="relu"
)


@checks_names
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run: model, task, split, optimizer, evaluation, seeds.

    The defaults are the tutorial's. "Step N" means after N updates.

    Raises:
        UserError: a ValueError that names the field.
    """

    model: HookedTransformerConfig = TUTORIAL_MODEL
    task: Task = TUTORIAL_TASK
    split: str = described(
        "prefix",
        help="train on the first sequences in product order, or on random ones",
        choices=SPLITS,
    )
    train_fraction: float = described(
        200 / 256,
        help="share of the sequences trained on (the tutorial's: 200 of 256)",
        above=0,
        below=1,
    )
    steps: int = described(4000, help="number of updates", **SIZE)
    batch_size: int = described(16, help="examples per update, drawn without replacement", **SIZE)
    optimizer: str = described(
        "adamw", help="the optimizer of Optax with this name", choices=tuple(OPTIMIZERS)
    )
    lr: float = described(1e-2, help="learning rate", at_least=0)
    lr_schedule: str = described(
        "constant",
        help="how the learning rate goes from lr to lr_end at the last step, if not constant",
        choices=tuple(LR_SCHEDULES),
    )
    lr_end: float = described(
        0.0, help="learning rate at which cosine and linear end", needs=DECAYS, at_least=0
    )
    warmup_steps: int = described(
        0,
        help="updates over which the learning rate first rises linearly from 0 to lr",
        at_least=0,
        below=2**31,
    )
    weight_decay: float = described(
        1e-2,
        help="decoupled weight decay (default: torch's); 0 if the optimizer has none",
        at_least=0,
    )
    b1: float = described(0.9, help="decay of the first moment", at_least=0, below=1)
    b2: float = described(0.999, help="decay of the second moment", at_least=0, below=1)
    adam_eps: float = described(
        1e-8, help="epsilon, added to the square root of the second moment", at_least=0
    )
    momentum: float = described(
        0.0, help="share of the last update that sgd keeps", at_least=0, below=1
    )
    clip_grad_norm: float | None = described(
        None, help="norm of the gradient of all parameters, above which it is scaled down", above=0
    )
    loss_on: str = described(
        "task",
        help="train on the tokens that the task asks for, or on all but the first",
        choices=LOSS_ON,
    )
    label_smoothing: float = described(
        0.0,
        help="share of a target's probability that training spreads over all outputs",
        at_least=0,
        below=1,
    )
    eval_every: int = described(100, help="steps between evaluations of both splits", **SIZE)
    snapshots: tuple[int, ...] = described(
        (),
        help="steps whose weights are kept beside the first and last; every:N: multiples of N",
        at_least=0,
        below=2**31,
    )
    init_seed: int = described(0, help="seed of the initial weights", **SEED)
    data_seed: int = described(
        0, help="seed of the batches, or of the examples themselves if they are drawn", **SEED
    )
    split_seed: int = described(
        0,
        help="seed of the random split, or of the holdout if examples are drawn",
        **SEED,
    )

    __repr__ = short_repr

    def __post_init__(self) -> None:
        hold_plain_values(self)
        check_effects(self)
        self._check_optimizer()
        self._check_pauses()
        if self.model.seed is not None:
            raise UserError(
                f"the model's seed={self.model.seed} has no effect: a run's weights come from "
                "init_seed; set that, and leave seed out"
            )
        self._check_task_fits()

    def _check_optimizer(self) -> None:
        taken = OPTIMIZERS[self.optimizer]
        neutral = {field.name: field.default for field in train_fields()} | {"weight_decay": 0.0}
        for field in HYPERPARAMETERS:
            value = getattr(self, field)
            if field not in taken and value != neutral[field]:
                raise UserError(
                    f"optimizer={self.optimizer!r} takes no {field} (it takes "
                    f"{', '.join(('lr', *taken))}), so {field}={value} would have no effect; set "
                    f"{field} to {neutral[field]:g}"
                )
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"warmup_steps={self.warmup_steps} leaves no update at the full learning rate; "
                f"choose fewer than steps={self.steps}"
            )

    def _check_pauses(self) -> None:
        object.__setattr__(self, "snapshots", tuple(sorted(set(self.snapshots))))
        if self.snapshots and self.snapshots[-1] > self.steps:
            raise UserError(
                f"snapshots: step {self.snapshots[-1]} is after the last step, steps={self.steps}; "
                "choose steps up to that"
            )
        pauses = {"eval_every": self.steps // self.eval_every, "snapshots": len(self.snapshots)}
        for field, n_pauses in pauses.items():
            if n_pauses > MOST_PAUSES:
                raise UserError(
                    f"{field} stops the training {n_pauses:,} times in {self.steps:,} steps; "
                    f"choose at most {MOST_PAUSES:,} stops"
                )

    def _check_task_fits(self) -> None:
        object.__setattr__(self, "task", recordable(self.task))
        check_known(self.task)
        check_task(self.task)
        sequences = self.task.sequences()
        length = sequences.shape[1]
        n_tokens = len(self.task.vocabulary)
        if self.model.n_ctx < length - 1:
            raise UserError(
                f"n_ctx={self.model.n_ctx} is shorter than the model's input, which is a sequence "
                f"of {length} tokens without the last one; set n_ctx to at least {length - 1}"
            )
        trained_on = list(self.train_positions)
        n_outputs = int(sequences[:, trained_on].max()) + 1
        for field, needed, what in (
            ("d_vocab", n_tokens, "vocabulary"),
            ("d_vocab_out", n_outputs, "outputs"),
        ):
            if getattr(self.model, field) < needed:
                raise UserError(
                    f"{field}={getattr(self.model, field)} is smaller than the task's {what} of "
                    f"{needed} tokens; set {field} to at least {needed}"
                )
        if self.task.is_drawn:
            self._check_unsplit()
        else:
            self._check_split()

    def require_unseen_answers(self) -> None:
        """Raise a UserError if the model's input shows it a token that it is trained to predict.

        A training checks this when it begins. A config does not, so that old runs still open.
        """
        # The model's input is every token except the last.
        last = self.task.sequences().shape[1] - 1
        if self.model.attention_dir == "bidirectional" and self.train_positions[0] < last:
            label = self.task.position_labels[self.train_positions[0]]
            raise UserError(
                "attention_dir='bidirectional' lets the model see the tokens that it is trained to "
                f"predict, such as {label}, so it would copy them; choose attention_dir='causal', "
                "or a task with one answer, at the end, and loss_on='task'"
            )

    def _check_unsplit(self) -> None:
        defaults = {field.name: field.default for field in train_fields()}
        for name in ("split", "train_fraction"):
            if getattr(self, name) != defaults[name]:
                raise UserError(
                    f"{name}={getattr(self, name)!r} has no effect: this task has too many "
                    f"examples to list and split, so they are drawn at random; leave {name} at "
                    f"{defaults[name]!r}"
                )

    def _check_split(self) -> None:
        n_train, n_sequences = self.n_train, len(self.task.sequences())
        if not 0 < n_train < n_sequences:
            raise UserError(
                f"train_fraction={self.train_fraction} leaves {n_train} of {n_sequences} sequences "
                "to train on; choose a fraction that leaves at least one in each split"
            )
        if self.batch_size > n_train:
            raise UserError(
                f"batch_size={self.batch_size} is larger than the training split of {n_train} "
                "sequences, from which batches are drawn without replacement; choose a smaller "
                "batch_size"
            )

    @property
    def n_train(self) -> int:
        """The number of sequences in the training split of a task that lists all its sequences."""
        return round(self.train_fraction * len(self.task.sequences()))

    @property
    def train_positions(self) -> tuple[int, ...]:
        """The positions of the tokens whose loss is trained on, never the first position."""
        if self.loss_on == "all":
            return tuple(range(1, self.task.sequences().shape[1]))
        return eval_positions(self.task)

    def learning_rate(self, step: int) -> float:
        """The learning rate of the update after step `step`.

        It follows Optax' joined schedules: the first update of a warmup has the rate 0, the first
        update after it has the rate `lr`, and after the last step the rate stays as it is.
        """
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        share = LR_SCHEDULES[self.lr_schedule](min(done, 1.0))
        return self.lr_end + (self.lr - self.lr_end) * share

    def with_seed(self, seed: int) -> TrainConfig:
        """A copy of the config with all three seeds set to `seed`."""
        seeds: dict[str, Any] = dict.fromkeys(SEEDS, seed)
        return dataclasses.replace(self, **seeds)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The config as the sections ``model``, ``task`` and ``train``, which JSON can hold."""
        train = {f.name: getattr(self, f.name) for f in train_fields()}
        return {"model": self.model.to_dict(), "task": task_section(self.task), "train": train}

    @classmethod
    def from_dict(
        cls, sections: dict[str, Any], task: str | type[Task] | None = None
    ) -> TrainConfig:
        """Make a config from the dict that `to_dict` returns; other sections in it are ignored.

        Args:
            sections: fields by section, for example from a file.
            task: the expected task, a name or class. The user's own task is imported only if it is
                given here or the user's settings trust its module: see
                `revinc.tasks.recorded_task`.

        Raises:
            UserError: for a missing section or field, an unknown field or value, or a task that
                is not the expected one or may not be imported.
        """
        sections = sections if isinstance(sections, Mapping) else {}
        missing = [name for name in SECTIONS if not isinstance(sections.get(name), dict)]
        if missing:
            raise UserError(f"the config has no section {', '.join(missing)}")
        task_fields = dict(sections["task"])
        task_type = recorded_task(task_fields.pop("name", None), task)
        return cls(
            model=HookedTransformerConfig.from_dict(sections["model"]),
            task=build_task(task_type, task_fields),
            **checked_fields(cls, sections["train"], [field.name for field in train_fields()]),
        )


def train_fields() -> list[dataclasses.Field[Any]]:
    """The fields of `TrainConfig` other than its model and its task."""
    return [f for f in dataclasses.fields(TrainConfig) if f.name not in ("model", "task")]


def task_section(task: Task) -> dict[str, Any]:
    """A task's name and fields, as JSON can hold them."""
    return {"name": task.name, **dataclasses.asdict(cast(Any, task))}


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """Phrases that name the fields in which configs differ, such as ``lr: 0.1 here, 0.2 there``."""
    here, there = ours.to_dict(), theirs.to_dict()
    return [
        f"{field}: {here[section].get(field)} here, {there[section].get(field)} there"
        for section in here
        for field in here[section] | there[section]
        if here[section].get(field) != there[section].get(field)
    ]
