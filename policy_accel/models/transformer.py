"""Diffusion transformer: a causal decoder over the action chunk that attends to the time and the observations
(Chi et al. 2023, section III and appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive, check_probability
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.embedding import SinusoidalEmbedding


@dataclass
class TransformerConfig(ModelConfig):
    """Transformer over the steps of a chunk; the defaults are Diffusion Policy's for low-dimensional Push-T."""

    name: str = "transformer"
    embedding_dim: int = 256
    """Width: numbers of the vector of a step."""
    layers: int = 8
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; must divide embedding_dim."""
    embedding_dropout: float = 0.0
    """Share of the embedded input that training drops."""
    attention_dropout: float = 0.01
    """Share that training drops inside of the blocks."""
    causal: bool = True
    """Whether an action may attend to earlier actions only."""


class DiffusionTransformer(Denoiser):
    """Denoiser for trajectories x [B, horizon, channels]; arguments and errors as for `ConditionalUnet1d`."""

    def __init__(
        self, config: TransformerConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        check_positive(embedding_dim=dim, layers=config.layers, heads=config.heads)
        check_probability(embedding_dropout=config.embedding_dropout, attention_dropout=config.attention_dropout)
        if dim % config.heads:
            raise UserError(f"model.heads={config.heads} does not divide model.embedding_dim={dim}; change one.")
        tokens = 1 + (condition_shape[0] if condition_shape else 0)
        self.input = nn.Linear(channels, dim)
        self.position = nn.Parameter(torch.zeros(1, horizon, dim))
        self.time = SinusoidalEmbedding(dim)
        self.observation = nn.Linear(condition_shape[1], dim) if condition_shape else None
        self.condition_position = nn.Parameter(torch.zeros(1, tokens, dim))
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.encoder = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))
        layer = nn.TransformerDecoderLayer(
            dim,
            config.heads,
            4 * dim,
            config.attention_dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerDecoder(layer, config.layers)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, channels)
        self.causal_mask: Tensor | None
        self.memory_mask: Tensor | None
        steps = torch.arange(horizon)
        # An action at step i sees the time token and the observations up to step i.
        masked = steps[:, None] < torch.arange(tokens)[None, :] - 1
        self.register_buffer(
            "causal_mask", steps[:, None] < steps[None, :] if config.causal else None, persistent=False
        )
        self.register_buffer("memory_mask", masked if config.causal and condition_shape else None, persistent=False)
        self.apply(_initialise)
        for position in (self.position, self.condition_position):
            nn.init.normal_(position, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone: biases, layer norms and position embeddings."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim < 2 or name in ("position", "condition_position")
        }

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: those of encoder and decoder."""
        return hidden_matrices(self, "input", "observation", "head")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, horizon, channels] from x of that shape, t [B] int64 and condition [B, n_obs_steps, D]."""
        memory = self.time(t)[:, None]
        if self.observation is not None and condition is not None:
            memory = torch.cat([memory, self.observation(condition)], dim=1)
        memory = self.encoder(self.dropout(memory + self.condition_position))
        hidden = self.dropout(self.input(x) + self.position)
        hidden = self.decoder(
            hidden,
            memory,
            tgt_mask=self.causal_mask,
            memory_mask=self.memory_mask,
            # Left open, torch compares the masks' values to find out, and so waits for the device in every call.
            tgt_is_causal=self.causal_mask is not None,
            memory_is_causal=False,
        )
        prediction: Tensor = self.head(self.norm(hidden))
        return prediction


def _initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and zero biases (GPT-2's initialisation, which the reference uses)."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
