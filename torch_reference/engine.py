"""The torch engine: the tutorial's training loop, one optimizer step at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from revinc import TrainConfig
from revinc.dataset import Dataset, make_dataset
from revinc.engine import METRICS
from revinc.objective import make_objective
from revinc.weights import StateDict, parameter_shapes
from torch_reference.adapter import Model
from torch_reference.installed_transformer_lens import VERSION, adapter
from torch_reference.objective import mean_loss, predictions, token_losses
from torch_reference.optimizer import clip_gradients, make_optimizer, require_counterpart

UPDATES = "updates"
"""The name of the array that holds a state's number of updates."""


def chosen_device(device: str | None) -> str:
    """Return `device` if it is given, else the GPU if there is one, else the CPU."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def free_memory(device: str | None) -> int | None:
    """The free memory of a GPU in bytes; None for any other device."""
    chosen = chosen_device(device)
    if not chosen.startswith("cuda") or not torch.cuda.is_available():
        return None
    return int(torch.cuda.mem_get_info(chosen)[0])


@dataclass
class State:
    """A model and its optimizer, changed in place, after `step` updates."""

    model: Model
    optimizer: torch.optim.Optimizer
    step: int = 0


class TorchEngine:
    """An engine that trains TransformerLens' model in torch. See `revinc.engine.Engine`.

    Args:
        cfg: the training config.
        device: a torch device; by default the GPU if there is one.
        data: the dataset of the run; made from `cfg` by default.

    Raises:
        UserError: if torch has no counterpart of the optimizer.
    """

    def __init__(
        self, cfg: TrainConfig, device: str | None = None, data: Dataset | None = None
    ) -> None:
        require_counterpart(cfg)
        device = chosen_device(device)
        on_gpu = device.startswith("cuda")
        self.cfg = cfg
        self.identity = {
            "name": "torch",
            "platform": device,
            "torch": torch.__version__,
            "transformer_lens": VERSION,
        }
        self.device = f"{device}: {torch.cuda.get_device_name(device)}" if on_gpu else device
        self._torch_device = device
        self._data = data or make_dataset(cfg)
        self._eval_positions = torch.as_tensor(self._data.eval_positions, device=device)
        objective = make_objective(cfg)
        self._train_positions = torch.as_tensor(objective.train_positions, device=device)
        self._label_smoothing = objective.label_smoothing

    def start(self, weights: StateDict) -> State:
        model = adapter.make_model(self.cfg.model, self._torch_device)
        adapter.write_weights(model, self.cfg.model, weights)
        return State(model, make_optimizer(model.parameters(), self.cfg))

    def advance(
        self, state: State, rows: Int[np.ndarray, "steps batch"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        tokens, rows = self._data.examples(rows)
        return self.train_on(state, tokens[rows])

    def train_on(
        self, state: State, sequences: Int[np.ndarray, "steps batch seq"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        """Train on batches of token ids: returns the state after them and each batch's loss."""
        losses = []
        state.model.train()
        for batch in self._on_device(sequences):
            loss = mean_loss(state.model, batch, self._train_positions, self._label_smoothing)
            state.optimizer.zero_grad()
            loss.backward()
            if self.cfg.clip_grad_norm is not None:
                clip_gradients(state.model.parameters(), self.cfg.clip_grad_norm)
            for group in state.optimizer.param_groups:
                group["lr"] = self.cfg.learning_rate(state.step)
            state.optimizer.step()
            state.step += 1
            losses.append(loss.item())
        return state, np.array(losses)

    def evaluate(self, state: State) -> dict[str, float]:
        state.model.eval()
        losses, accuracies = [], []
        with torch.no_grad():
            for rows in (self._data.train_rows, self._data.holdout_rows):
                tokens = self._on_device(self._data.tokens[rows])
                logits, targets = predictions(state.model, tokens, self._eval_positions)
                losses.append(token_losses(logits, targets).double().mean().item())
                accuracies.append((logits.argmax(-1) == targets).double().mean().item())
        return dict(zip(METRICS, losses + accuracies, strict=True))

    def _on_device(self, tokens: Int[np.ndarray, "*shape"]) -> torch.Tensor:
        return torch.as_tensor(tokens, dtype=torch.long, device=self._torch_device)

    def weights(self, state: State) -> StateDict:
        return adapter.read_weights(state.model, self.cfg.model)

    def to_arrays(self, state: State) -> dict[str, np.ndarray]:
        arrays = {**self.weights(state), UPDATES: np.array(state.step)}
        cfg = self.cfg.model
        for name, parameter in adapter.trainable(state.model, cfg).items():
            for moment, value in state.optimizer.state[parameter].items():
                ours = adapter.to_3_9(cfg, name, value) if value.ndim else value
                arrays[f"{moment}/{name}"] = ours.detach().cpu().numpy().copy()
        return arrays

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> State:
        cfg = self.cfg.model
        state = self.start({name: arrays[name] for name in parameter_shapes(cfg)})
        state.step = int(arrays[UPDATES])
        parameters = adapter.trainable(state.model, cfg)
        for key, array in arrays.items():
            moment, is_moment, name = key.partition("/")
            if is_moment:
                value = torch.from_numpy(array.copy())
                # A count of steps stays on the CPU; moments are on their parameter's device.
                state.optimizer.state[parameters[name]][moment] = (
                    adapter.from_3_9(cfg, name, value).to(self._torch_device)
                    if value.ndim
                    else value
                )
        return state
