"""The tutorial's training loop, as an engine: one optimizer step at a time, in plain torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import METRICS
from revinc.objective import make_objective
from revinc.weights import StateDict, parameter_shapes
from torch_reference.adapter import Model
from torch_reference.installed import VERSION, adapter
from torch_reference.objective import mean_loss, predictions, token_losses
from torch_reference.optimizer import clip_gradients, make_optimizer, require_counterpart

UPDATES = "updates"
"""The array of a state that says how many updates it has had."""


@dataclass
class State:
    """A model and its optimizer, changed in place, after `step` updates."""

    model: Model
    optimizer: torch.optim.Optimizer
    step: int = 0


class TorchEngine:
    """See `revinc.engine.Engine`.

    Raises:
        UserError: if torch has no such optimizer.
    """

    def __init__(self, cfg: TrainConfig, device: str | None = None) -> None:
        require_counterpart(cfg)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
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
        self._data = make_dataset(cfg)
        self._predicted = torch.as_tensor(self._data.predicted, device=device)
        objective = make_objective(cfg)
        self._trained_on = torch.as_tensor(objective.predicted, device=device)
        self._label_smoothing = objective.label_smoothing

    def start(self, weights: StateDict) -> State:
        model = adapter.make_model(self.cfg.model, self._torch_device)
        adapter.write_weights(model, self.cfg.model, weights)
        return State(model, make_optimizer(model.parameters(), self.cfg))

    def advance(
        self, state: State, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        losses = []
        state.model.train()
        tokens, rows = self._data.examples(batches)
        for batch in self._on_device(tokens[rows]):
            loss = mean_loss(state.model, batch, self._trained_on, self._label_smoothing)
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
                logits, targets = predictions(state.model, tokens, self._predicted)
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
                # A count of steps stays on the CPU, moments are beside their parameter.
                state.optimizer.state[parameters[name]][moment] = (
                    adapter.from_3_9(cfg, name, value).to(self._torch_device)
                    if value.ndim
                    else value
                )
        return state
