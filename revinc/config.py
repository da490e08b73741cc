"""What is trained and how: a frozen, hashable, validated dataclass."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any, cast

from revinc.errors import UserError
from revinc.fields import checked_fields, described
from revinc.model_config import HookedTransformerConfig
from revinc.optimization import HYPERPARAMETERS, LR_SCHEDULES, OPTIMIZERS
from revinc.tasks import (
    ReverseIncrement,
    Task,
    check_known,
    check_task,
    make_task,
    predicted_positions,
)
from revinc.validation import require_choice, require_int, require_number

SPLITS = ("prefix", "random")
LOSS_ON = ("task", "all")
SEEDS = ("init_seed", "data_seed", "split_seed")


TUTORIAL_TASK = ReverseIncrement()
TUTORIAL_MODEL = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, n_heads=1, d_mlp=4, d_vocab=5, n_ctx=9, act_fn="relu"
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run: model, task, split, optimizer, evaluation, seeds.

    The defaults are the tutorial's recipe. "Step N" means after N updates.

    Raises:
        UserError: a ValueError that names the field.
    """

    model: HookedTransformerConfig = TUTORIAL_MODEL
    task: Task = TUTORIAL_TASK
    split: str = described(
        "prefix", help="prefix: train on the first sequences in product order; random: seeded"
    )
    train_fraction: float = described(
        200 / 256, help="share of the sequences trained on (the tutorial's: 200 of 256)"
    )
    steps: int = described(4000, help="number of updates")
    batch_size: int = described(16, help="examples per update, drawn without replacement")
    optimizer: str = described("adamw", help=f"{', '.join(OPTIMIZERS)}: optax's")
    lr: float = described(1e-2, help="learning rate")
    lr_schedule: str = described(
        "constant", help="constant, or cosine or linear: from lr down to 0 at the last step"
    )
    warmup_steps: int = described(
        0, help="updates over which the rate first rises linearly from 0 to lr"
    )
    weight_decay: float = described(
        1e-2, help="decoupled weight decay (torch's default); 0 for an optimizer without"
    )
    b1: float = described(0.9, help="decay of the first moment")
    b2: float = described(0.999, help="decay of the second moment")
    adam_eps: float = described(1e-8, help="epsilon, added to the root of the second moment")
    momentum: float = described(0.0, help="share of the last update that sgd keeps")
    clip_grad_norm: float | None = described(
        None, help="largest norm that the gradient of all parameters together may have"
    )
    loss_on: str = described(
        "task", help="task: train on the tokens that the task asks for; all: on every next token"
    )
    label_smoothing: float = described(
        0.0, help="share of a target's probability spread over all outputs, in training alone"
    )
    eval_every: int = described(100, help="steps between evaluations of both splits")
    snapshots: tuple[int, ...] = described(
        (),
        help="steps whose weights are kept besides the first and the last; every:N for multiples of N",
    )
    init_seed: int = described(0, help="seed of the initial weights")
    data_seed: int = described(
        0, help="seed of the batches, or of the examples themselves where the task is drawn"
    )
    split_seed: int = described(
        0,
        help="seed of the random split, or of the holdout where the task is drawn (prefix has none)",
    )

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        require_choice("lr_schedule", self.lr_schedule, tuple(LR_SCHEDULES))
        require_choice("loss_on", self.loss_on, LOSS_ON)
        for size in ("steps", "batch_size", "eval_every"):
            require_int(size, getattr(self, size), at_least=1)
        for rate in ("lr", "weight_decay", "adam_eps"):
            require_number(rate, getattr(self, rate))
        for share in ("b1", "b2", "momentum", "label_smoothing"):
            require_number(share, getattr(self, share), below=1.0)
        if self.clip_grad_norm is not None:
            require_number("clip_grad_norm", self.clip_grad_norm, above=True)
        self._check_optimizer()
        for seed in SEEDS:
            require_int(seed, getattr(self, seed), at_least=0)
            if getattr(self, seed) >= 2**32:
                raise UserError(f"{seed} must be below 2**32, not {getattr(self, seed)}")
        require_number("train_fraction", self.train_fraction, below=1.0, above=True)
        if not isinstance(self.snapshots, tuple | list):
            raise UserError(f"snapshots must be a tuple of steps, not {self.snapshots!r}")
        for step in self.snapshots:
            require_int("snapshots", step, at_least=0)
            if step > self.steps:
                raise UserError(f"snapshots: step {step} lies beyond the last, steps={self.steps}")
        object.__setattr__(self, "snapshots", tuple(sorted(set(self.snapshots))))
        if self.model.seed is not None:
            raise UserError(
                f"the model's seed={self.model.seed} has no effect: a run's weights come from init_seed; "
                "set that, and leave seed out"
            )
        self._check_task_fits()

    def _check_optimizer(self) -> None:
        require_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        taken = OPTIMIZERS[self.optimizer]
        unset = {field.name: field.default for field in train_fields()} | {"weight_decay": 0.0}
        for field in HYPERPARAMETERS:
            value = getattr(self, field)
            if field not in taken and value != unset[field]:
                raise UserError(
                    f"optimizer={self.optimizer!r} takes no {field} (but {', '.join(('lr', *taken))}), so "
                    f"{field}={value} would have no effect; set {field} to {unset[field]:g}"
                )
        require_int("warmup_steps", self.warmup_steps, at_least=0)
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"warmup_steps={self.warmup_steps} leaves no update at the full learning rate; choose "
                f"fewer than steps={self.steps}"
            )

    def _check_task_fits(self) -> None:
        check_known(self.task)
        check_task(self.task)
        sequences = self.task.sequences()
        length = sequences.shape[1]
        n_tokens = len(self.task.vocabulary)
        if self.model.n_ctx < length - 1:
            raise UserError(
                f"n_ctx={self.model.n_ctx} is shorter than what the model is fed, the task's sequences of "
                f"{length} tokens but for the last; set n_ctx to at least {length - 1}"
            )
        trained_on = list(self.trained_positions)
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

    def _check_unsplit(self) -> None:
        usual = {field.name: field.default for field in train_fields()}
        for name in ("split", "train_fraction"):
            if getattr(self, name) != usual[name]:
                raise UserError(
                    f"{name}={getattr(self, name)!r} is of no use: this task has too many examples to split "
                    f"them, so they are drawn; leave it at {usual[name]!r}"
                )

    def _check_split(self) -> None:
        n_train, n_sequences = self.n_train, len(self.task.sequences())
        if not 0 < n_train < n_sequences:
            raise UserError(
                f"train_fraction={self.train_fraction} leaves {n_train} of {n_sequences} sequences "
                "to train on; both splits need at least one"
            )
        if self.batch_size > n_train:
            raise UserError(
                f"batch_size={self.batch_size} is larger than the training split of {n_train} "
                "sequences; batches are drawn without replacement"
            )

    @property
    def n_train(self) -> int:
        """Number of sequences in the training split of a task that lists them."""
        return round(self.train_fraction * len(self.task.sequences()))

    @property
    def trained_positions(self) -> tuple[int, ...]:
        """The positions whose token's loss is trained on; the first token is never predicted."""
        if self.loss_on == "all":
            return tuple(range(1, self.task.sequences().shape[1]))
        return predicted_positions(self.task)

    def learning_rate(self, step: int) -> float:
        """The rate of the update that follows `step` others.

        As optax joins schedules: the first update of a warmup has the rate 0, the one that follows the warmup
        is the first at `lr`, and what has decayed stays there.
        """
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.lr * LR_SCHEDULES[self.lr_schedule](min(done, 1.0))

    def with_seed(self, seed: int) -> TrainConfig:
        """The same run with all three seeds set to `seed`."""
        seed = operator.index(seed)  # numpy's integers too
        seeds: dict[str, Any] = dict.fromkeys(SEEDS, seed)
        return dataclasses.replace(self, **seeds)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Three sections, ``model``, ``task`` and ``train``, that JSON can hold."""
        train = {f.name: getattr(self, f.name) for f in train_fields()}
        task = {"name": self.task.name, **dataclasses.asdict(cast(Any, self.task))}
        return {"model": self.model.to_dict(), "task": task, "train": train}

    @classmethod
    def from_dict(cls, sections: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; other sections are left alone.

        Raises:
            UserError: for a section or field that is missing, or a field that does not exist.
        """
        needed = ("model", "task", "train")
        missing = [name for name in needed if not isinstance(sections.get(name), dict)]
        if missing:
            raise UserError(f"the config has no section {', '.join(missing)}")
        task = dict(sections["task"])
        return cls(
            model=HookedTransformerConfig.from_dict(sections["model"]),
            task=make_task(task.pop("name", None), **task),
            **checked_fields(cls, sections["train"]),
        )


def train_fields() -> list[dataclasses.Field[Any]]:
    """The fields of `TrainConfig` other than its model and its task."""
    return [f for f in dataclasses.fields(TrainConfig) if f.name not in ("model", "task")]


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """A phrase for every field in which two configs differ, such as ``lr: 0.01 here, 0.02 there``."""
    here, there = ours.to_dict(), theirs.to_dict()
    return [
        f"{field}: {here[section].get(field)} here, {there[section].get(field)} there"
        for section in here
        for field in here[section] | there[section]
        if here[section].get(field) != there[section].get(field)
    ]
