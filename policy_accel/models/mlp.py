"""Multi-layer perceptron on the flattened action chunk: the cheapest denoiser for low-dimensional tasks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.embedding import step_encoder


@dataclass
class MLPConfig(ModelConfig):
    """Multi-layer perceptron over the whole chunk: the cheapest network."""

    name: str = "mlp"
    hidden_dims: list[int] = field(default_factory=lambda: [512, 512, 512])
    """Width of each hidden layer."""
    step_embedding_dim: int = 64
    """Numbers of the embedding of the diffusion time."""


class ResidualLayer(nn.Module):
    """Linear, layer normalisation, Mish, with a residual path where the sizes agree: [B, in] -> [B, out]."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim), nn.Mish())
        self.residual = in_dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        """Transform x [B, in]."""
        hidden: Tensor = self.transform(x)
        return x + hidden if self.residual else hidden


class MLP(Denoiser):
    """Denoiser for trajectories x [B, horizon, channels]; arguments as for `ConditionalUnet1d`, any horizon."""

    def __init__(
        self, config: MLPConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        if not config.hidden_dims:
            raise UserError("model.hidden_dims is empty; give at least one layer size, for example [512,512,512].")
        check_positive(hidden_dims=list(config.hidden_dims))
        step_dim = config.step_embedding_dim
        self.step_encoder = step_encoder(step_dim, 2)
        condition_dim = condition_shape[0] * condition_shape[1] if condition_shape else 0
        dims = [horizon * channels + condition_dim + step_dim, *config.hidden_dims]
        self.layers = nn.Sequential(*(ResidualLayer(a, b) for a, b in itertools.pairwise(dims)))
        self.head = nn.Linear(dims[-1], horizon * channels)

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but the step encoder's, the first and the last."""
        return hidden_matrices(self, "step_encoder", "layers.0", "head")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, horizon, channels] from x of that shape, t [B] int64 and condition [B, n_obs_steps, D]."""
        parts = [x.flatten(1), self.step_encoder(t)] + ([] if condition is None else [condition.flatten(1)])
        prediction: Tensor = self.head(self.layers(torch.cat(parts, dim=-1)))
        return prediction.view_as(x)
