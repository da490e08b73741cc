"""What is trained and how: a frozen, hashable, validated dataclass."""

from __future__ import annotations

import dataclasses
import math
import operator
from dataclasses import dataclass
from typing import Any, cast

from revinc.errors import UserError
from revinc.fields import checked_fields, described
from revinc.model_config import HookedTransformerConfig
from revinc.tasks import ReverseIncrement, Task, check_known, check_task, make_task
from revinc.validation import require_choice, require_int, require_number

SPLITS = ("prefix", "random")
LR_SCHEDULES = ("constant", "cosine")
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
    lr: float = described(1e-2, help="AdamW learning rate")
    lr_schedule: str = described(
        "constant", help="constant, or cosine: from lr down to 0 at the last step"
    )
    weight_decay: float = described(1e-2, help="AdamW weight decay (torch's default)")
    b1: float = described(0.9, help="AdamW decay of the first moment")
    b2: float = described(0.999, help="AdamW decay of the second moment")
    adam_eps: float = described(1e-8, help="AdamW epsilon")
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
        require_choice("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        for size in ("steps", "batch_size", "eval_every"):
            require_int(size, getattr(self, size), at_least=1)
        for rate in ("lr", "weight_decay", "adam_eps"):
            require_number(rate, getattr(self, rate))
        for decay in ("b1", "b2"):
            require_number(decay, getattr(self, decay), below=1.0)
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
        n_outputs = int(sequences[:, self.task.loss_mask()].max()) + 1
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

    def learning_rate(self, step: int) -> float:
        """The rate of the update that follows `step` others (cosine: Loshchilov and Hutter 2017, eq. 5)."""
        if self.lr_schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))

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
