"""The model in plain torch: an ``nn.Module`` without hooks, with TransformerLens' names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revinc import PRESETS, HookedTransformerConfig, TrainConfig
from revinc.dataset import make_dataset
from revinc.weights import StateDict, parameter_shapes

SIZES = (
    *("n_layers", "d_model", "d_head", "n_heads", "d_mlp", "n_ctx"),
    *("d_vocab", "d_vocab_out", "dtype"),
)
"""The fields of a model config in which the module may differ from the tutorial's."""

AS_THE_TUTORIAL = (
    *("optimizer", "lr_schedule", "warmup_steps"),
    *("clip_grad_norm", "label_smoothing"),
)
"""The fields of a training config in which the loop must not differ from the tutorial's."""


class Parameters(nn.Module):
    """A module with a parameter for every name below `prefix`."""

    W_E: Tensor
    W_pos: Tensor
    W_U: Tensor
    b_U: Tensor

    def __init__(self, cfg: HookedTransformerConfig, prefix: str) -> None:
        super().__init__()
        start = f"{prefix}."
        for name, shape in parameter_shapes(cfg).items():
            if name.startswith(start):
                empty = torch.empty(shape, dtype=getattr(torch, cfg.dtype))
                self.register_parameter(name.removeprefix(start), nn.Parameter(empty))


class Norm(Parameters):
    w: Tensor
    b: Tensor

    def __init__(self, cfg: HookedTransformerConfig, prefix: str) -> None:
        super().__init__(cfg, prefix)
        self.eps = cfg.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w, self.b, self.eps)


class Attention(Parameters):
    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor
    hidden: Tensor

    def __init__(self, cfg: HookedTransformerConfig, prefix: str) -> None:
        super().__init__(cfg, prefix)
        self.scale = cfg.d_head**-0.5
        hidden = torch.ones(cfg.n_ctx, cfg.n_ctx, dtype=torch.bool).triu(1)
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        per_head = x.unsqueeze(-3)  # [batch, 1, pos, d_model]
        q = per_head @ self.W_Q + self.b_Q.unsqueeze(-2)
        k = per_head @ self.W_K + self.b_K.unsqueeze(-2)
        v = per_head @ self.W_V + self.b_V.unsqueeze(-2)
        length = x.shape[-2]
        scores = (q @ k.mT * self.scale).masked_fill(self.hidden[:length, :length], -torch.inf)
        z = scores.softmax(-1) @ v
        return (z @ self.W_O).sum(-3) + self.b_O


class MLP(Parameters):
    W_in: Tensor
    W_out: Tensor
    b_in: Tensor
    b_out: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out


class PlainBlock(nn.Module):
    def __init__(self, cfg: HookedTransformerConfig, prefix: str) -> None:
        super().__init__()
        self.ln1 = Norm(cfg, f"{prefix}.ln1")
        self.attn = Attention(cfg, f"{prefix}.attn")
        self.ln2 = Norm(cfg, f"{prefix}.ln2")
        self.mlp = MLP(cfg, f"{prefix}.mlp")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Transformer(nn.Module):
    """Logits [batch, pos, d_vocab_out]. Its state dict is the model's, weights uninitialised.

    `why_not` says which configs it does not implement.
    """

    def __init__(self, cfg: HookedTransformerConfig) -> None:
        super().__init__()
        self.embed = Parameters(cfg, "embed")
        self.pos_embed = Parameters(cfg, "pos_embed")
        self.blocks = nn.ModuleList(PlainBlock(cfg, f"blocks.{i}") for i in range(cfg.n_layers))
        self.ln_final = Norm(cfg, "ln_final")
        self.unembed = Parameters(cfg, "unembed")

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embed.W_E) + self.pos_embed.W_pos[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x) @ self.unembed.W_U + self.unembed.b_U


class Training(nn.Module):
    """The training loss of a batch of sequences; the predicted tokens must be adjacent."""

    def __init__(self, cfg: HookedTransformerConfig, predicted: tuple[int, ...]) -> None:
        super().__init__()
        self.model = Transformer(cfg)
        self.first, self.last = predicted[0], predicted[-1]

    def forward(self, sequences: Tensor) -> Tensor:
        logits = self.model(sequences[..., :-1])[..., self.first - 1 : self.last, :]
        targets = sequences[..., self.first : self.last + 1]
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def why_not(cfg: TrainConfig) -> str:
    """Why the plain torch module can't train a config; empty if it can."""
    usual = PRESETS["tutorial"]
    sizes = {name: getattr(cfg.model, name) for name in SIZES}
    if cfg.model != usual.model.replace(**sizes):
        return "the plain torch module has LN, relu, MLPs and learned positions only"
    if cfg.task.is_drawn:
        return "the plain torch module trains on listed sequences only"
    if cfg.train_positions != tuple(range(cfg.train_positions[0], cfg.train_positions[-1] + 1)):
        return "the plain torch module predicts only adjacent tokens"
    if any(getattr(cfg, name) != getattr(usual, name) for name in AS_THE_TUTORIAL):
        return "the plain torch loop has AdamW at a constant rate, without clipping or smoothing"
    return ""


def as_module(cfg: TrainConfig) -> tuple[Training, Tensor]:
    """The loss as a module on torch's device, and all sequences there."""
    data = make_dataset(cfg)
    module = Training(cfg.model, cfg.train_positions).to(torch_device())
    return module, torch.as_tensor(data.tokens.copy(), dtype=torch.long, device=torch_device())


def load(module: Training, weights: StateDict) -> None:
    """Give the module one model's weights; they have no model axis."""
    tensors = {name: torch.as_tensor(array.copy()) for name, array in weights.items()}
    module.model.load_state_dict(tensors)


def make_adamw(
    parameters: Iterable[Tensor], cfg: TrainConfig, capturable: bool = False
) -> torch.optim.AdamW:
    """The config's optimizer as one fused kernel, also for a CUDA graph if it is `capturable`."""
    return torch.optim.AdamW(
        parameters,
        lr=cfg.lr,
        betas=(cfg.b1, cfg.b2),
        eps=cfg.adam_eps,
        weight_decay=cfg.weight_decay,
        fused=True,
        capturable=capturable,
    )


class Eager:
    """One model, one operation at a time; losses are read at the end.

    Args:
        cfg: the training config.
        width: one.
        threads: of torch.
        compiled: whether ``torch.compile`` compiles the loss and its gradient.
        frozen: parameters that are not trained.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        width: int = 1,  # noqa: ARG002
        threads: int = 1,
        compiled: bool = False,
        frozen: Iterable[str] = (),
    ) -> None:
        torch.set_num_threads(threads)
        self.device = device_in_words()
        self._cfg = cfg
        self._module, self._tokens = as_module(cfg)
        for name in frozen:
            self._module.model.get_parameter(name).requires_grad_(False)
        self._loss = torch.compile(self._module, fullgraph=True) if compiled else self._module

    def start(self, weights: StateDict) -> None:
        load(self._module, {name: array[0] for name, array in weights.items()})
        trained = [p for p in self._module.parameters() if p.requires_grad]
        self._optimizer = make_adamw(trained, self._cfg)

    def advance(self, batches: np.ndarray) -> np.ndarray:
        losses = []
        for rows in torch.as_tensor(batches[0], dtype=torch.long, device=torch_device()):
            loss = self._loss(self._tokens[rows])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu().numpy()[None]

    def device_bytes(self) -> int | None:
        return peak_device_bytes()


def torch_device() -> str:
    """The GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_in_words() -> str:
    """The device, in the words of `TorchEngine`."""
    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"


def peak_device_bytes() -> int | None:
    """The peak memory of the GPU that torch used."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
