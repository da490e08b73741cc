"""The tutorial's training loop, as an engine: one optimizer step at a time, in plain torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import METRICS
from revinc.weights import StateDict
from torch_reference.adapter import Model
from torch_reference.installed import VERSION, adapter
from torch_reference.objective import mean_loss, predictions, token_losses

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class State:
    """A model and its optimizer, changed in place, after `step` updates."""

    model: Model
    optimizer: torch.optim.AdamW
    step: int = 0


class TorchEngine:
    """See `revinc.engine.Engine`."""

    def __init__(self, cfg: TrainConfig, device: str | None = None) -> None:
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

    def start(self, weights: StateDict) -> State:
        model = adapter.make_model(self.cfg.model, self._torch_device)
        adapter.write_weights(model, self.cfg.model, weights)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.cfg.lr,
            betas=(self.cfg.b1, self.cfg.b2),
            eps=self.cfg.adam_eps,
            weight_decay=self.cfg.weight_decay,
        )
        return State(model, optimizer)

    def advance(
        self, state: State, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        losses = []
        state.model.train()
        tokens, rows = self._data.examples(batches)
        for batch in self._on_device(tokens[rows]):
            loss = mean_loss(state.model, batch, self._predicted)
            state.optimizer.zero_grad()
            loss.backward()
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
        arrays = dict(self.weights(state))
        cfg = self.cfg.model
        for name, parameter in adapter.trainable(state.model, cfg).items():
            for moment, value in state.optimizer.state[parameter].items():
                ours = adapter.to_3_9(cfg, name, value) if value.ndim else value
                arrays[f"{moment}/{name}"] = ours.detach().cpu().numpy().copy()
        return arrays

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> State:
        state = self.start({name: value for name, value in arrays.items() if "/" not in name})
        cfg = self.cfg.model
        for name, parameter in adapter.trainable(state.model, cfg).items():
            if f"step/{name}" in arrays:
                state.step = int(arrays[f"step/{name}"])
                kept = {m: torch.from_numpy(arrays[f"{m}/{name}"].copy()) for m in MOMENTS}
                # AdamW keeps its step count on the CPU, the moments beside their parameter.
                state.optimizer.state[parameter] = {
                    moment: adapter.from_3_9(cfg, name, value).to(self._torch_device)
                    if value.ndim
                    else value
                    for moment, value in kept.items()
                }
        return state
