"""Conditional 1-D U-Net over the time axis of an action chunk (Chi et al. 2023, appendix; FiLM: Perez et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.config import ModelConfig, check_positive
from policy_accel.models.denoiser import Denoiser, hidden_matrices
from policy_accel.models.embedding import step_encoder


@dataclass
class UnetConfig(ModelConfig):
    """U-Net over the time axis of a chunk; the defaults are Diffusion Policy's for low-dimensional observations."""

    name: str = "unet"
    down_dims: list[int] = field(default_factory=lambda: [256, 512, 1024])
    """Channels of each resolution, finest first; the horizon halves between them."""
    kernel_size: int = 5
    """Steps of a chunk that a convolution sees; odd."""
    groups: int = 8
    """Groups of each group normalisation; must divide every entry of down_dims."""
    head_groups: int | None = None
    """Groups of the last one, where they are others, as in policies of other libraries."""
    step_embedding_dim: int = 256
    """Numbers of the embedding of the diffusion time."""
    film_scale: bool = True
    """Condition by scale and bias (true) or by bias alone."""


LARGEST_ON_CPU = 2**18
"""Weights of one tap beyond which a convolution goes in parts on a CPU.

oneDNN's weight gradient takes up to 6 times as long as its arithmetic beyond 2**19 (seen on an EPYC with 1 MiB of L2).
"""


def layout(device: torch.device) -> torch.memory_format:
    """Order of activations [B, C, 1, T] in memory: channels last on a CPU, where that is faster.

    On CUDA torch's group normalisation would copy each of them back.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


class TimeConv(nn.Conv1d):
    """Convolution over the time axis of [B, C_in, 1, T], with the weights of a 1-D one: [B, C_out, 1, T'].

    torch has channels-last kernels for two axes alone, and on a CPU they are faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, C_in, 1, T]."""
        stride, padding = (1, *self.stride), (0, int(self.padding[0]))
        weight, bias = self.weight[:, :, None], self.bias
        parts = -(-self.in_channels * self.out_channels // LARGEST_ON_CPU) if x.device.type == "cpu" else 1
        if bias is None or parts == 1:
            return F.conv2d(x, weight, bias, stride, padding)
        pairs = zip(weight.chunk(parts), bias.chunk(parts), strict=True)
        return torch.cat([F.conv2d(x, *pair, stride, padding) for pair in pairs], dim=1)


class TimeConvTranspose(nn.ConvTranspose1d):
    """`TimeConv` transposed: [B, C_in, 1, T] -> [B, C_out, 1, T']."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Transposed convolution of x [B, C_in, 1, T]."""
        stride, padding = (1, *self.stride), (0, int(self.padding[0]))
        return F.conv_transpose2d(x, self.weight[:, :, None], self.bias, stride, padding)


class ConvBlock(nn.Sequential):
    """Convolution, group normalisation, Mish: [B, C_in, 1, T] -> [B, C_out, 1, T]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int) -> None:
        super().__init__(
            TimeConv(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(groups, out_channels),
            nn.Mish(),
        )


class ConditionalResidualBlock(nn.Module):
    """Two convolution blocks with FiLM between them and a residual path.

    [B, C_in, 1, T], [B, D] -> [B, C_out, 1, T].
    """

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, config: UnetConfig) -> None:
        super().__init__()
        self.film_scale = config.film_scale
        self.first = ConvBlock(in_channels, out_channels, config.kernel_size, config.groups)
        self.second = ConvBlock(out_channels, out_channels, config.kernel_size, config.groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition_dim, out_channels * (2 if config.film_scale else 1)))
        self.residual = TimeConv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Transform x [B, C_in, 1, T] under condition [B, D]."""
        hidden = self.first(x)
        film = self.film(condition)[:, :, None, None]
        if self.film_scale:
            scale, bias = film.chunk(2, dim=1)
            hidden = scale * hidden + bias
        else:
            hidden = hidden + film
        output: Tensor = self.second(hidden) + self.residual(x)
        return output


class ConditionalUnet1d(Denoiser):
    """Denoiser for trajectories x [B, horizon, channels], conditioned on t [B] and, through FiLM, on observations.

    Args:
        config: sizes.
        channels: entries per step of the trajectory.
        horizon: steps of the trajectory; must be divisible by 2 ** (len(down_dims) - 1).
        condition_shape: (n_obs_steps, observation_dim) of the global condition, or None for in-painting.

    Raises:
        UserError: a horizon, a kernel size or groups that do not fit.
    """

    def __init__(
        self, config: UnetConfig, *, channels: int, horizon: int, condition_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        dims = list(config.down_dims)
        if not dims:
            raise UserError("model.down_dims is empty; give at least one channel count, for example [256,512,1024].")
        check_positive(down_dims=dims, kernel_size=config.kernel_size, groups=config.groups)
        reduction = 2 ** (len(dims) - 1)
        if horizon % reduction:
            fitting = (horizon // reduction + 1) * reduction
            raise UserError(
                f"policy.horizon={horizon} is not divisible by {reduction}, the down-sampling of a U-Net of "
                f"{len(dims)} resolutions; use policy.horizon={fitting} or fewer model.down_dims."
            )
        if config.kernel_size % 2 == 0:
            raise UserError(f"model.kernel_size={config.kernel_size} is even; use an odd size such as 3 or 5.")
        bad = [dim for dim in dims if dim % config.groups]
        if bad:
            raise UserError(f"model.groups={config.groups} does not divide model.down_dims entry {bad[0]}; change one.")
        if config.head_groups is not None and (config.head_groups < 1 or dims[0] % config.head_groups):
            raise UserError(
                f"model.head_groups={config.head_groups} does not divide model.down_dims entry {dims[0]}; change one."
            )
        step_dim = config.step_embedding_dim
        self.step_encoder = step_encoder(step_dim, 4)
        condition_dim = step_dim + (condition_shape[0] * condition_shape[1] if condition_shape else 0)

        def block(in_channels: int, out_channels: int) -> ConditionalResidualBlock:
            return ConditionalResidualBlock(in_channels, out_channels, condition_dim, config)

        pairs = list(zip([channels, *dims[:-1]], dims, strict=True))
        self.down = nn.ModuleList()
        for i, (in_channels, out_channels) in enumerate(pairs):
            last = i == len(pairs) - 1
            halve = nn.Identity() if last else TimeConv(out_channels, out_channels, 3, stride=2, padding=1)
            self.down.append(
                nn.ModuleList([block(in_channels, out_channels), block(out_channels, out_channels), halve])
            )
        self.middle = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        self.up = nn.ModuleList()
        for in_channels, out_channels in reversed(pairs[1:]):
            double = TimeConvTranspose(in_channels, in_channels, 4, stride=2, padding=1)
            self.up.append(
                nn.ModuleList([block(2 * out_channels, in_channels), block(in_channels, in_channels), double])
            )
        head_groups = config.groups if config.head_groups is None else config.head_groups
        self.head = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, head_groups), TimeConv(dims[0], channels, 1)
        )

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: all but the step encoder's, those that see the trajectory, and the last."""
        return hidden_matrices(self, "step_encoder", "down.0.0.first", "down.0.0.residual", "head.1")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, horizon, channels] from x of that shape, t [B] int64 and condition [B, n_obs_steps, D]."""
        embedding = self.step_encoder(t)
        if condition is not None:
            embedding = torch.cat([embedding, condition.flatten(1)], dim=-1)
        x = x.transpose(1, 2)[:, :, None].contiguous(memory_format=layout(x.device))
        skips = []
        for level in self.down:
            first, second, halve = level.children()
            x = second(first(x, embedding), embedding)
            skips.append(x)
            x = halve(x)
        for block in self.middle:
            x = block(x, embedding)
        for level in self.up:
            first, second, double = level.children()
            x = torch.cat([x, skips.pop()], dim=1)
            x = double(second(first(x, embedding), embedding))
        prediction: Tensor = self.head(x)
        return prediction[:, :, 0].transpose(1, 2)
