"""From camera frames and proprioception to one vector per observation, as in Diffusion Policy's hybrid image policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.denoiser import hidden_matrices
from policy_accel.models.encoders.config import EncoderConfig
from policy_accel.models.encoders.resnet import ResNetEncoder
from policy_accel.models.encoders.vit import ViTEncoder

STATE = "state"
AFTER_TRUNK = ("pool", "head")
"""Parts of a network that are trained as usual, whatever its trunk does."""


class ObservationEncoder(nn.Module):
    """Features of every camera, then the state, side by side.

    Args:
        config: which network, its sizes, the crop.
        images: camera -> (H, W, C) of its whole frames; the order is that of the output.
        state_dim: O, numbers of the low-dimensional part; may be 0.

    Attributes:
        output_dim: len(images) * feature_dim + O.

    Raises:
        UserError: no camera, a camera called "state", a crop larger than a frame, shared networks for cameras whose
            frames differ, sizes that do not fit together.
    """

    def __init__(self, config: EncoderConfig, *, images: Mapping[str, tuple[int, int, int]], state_dim: int) -> None:
        super().__init__()
        config.check()
        if not images:
            raise UserError(f"encoder.name={config.name} encodes camera frames and there are none; name task.images.")
        if STATE in images:
            raise UserError("task.images holds 'state', the name of the low-dimensional part; rename that camera.")
        self.cameras = tuple(images)
        self.resize = None if config.resize is None else (config.resize[0], config.resize[1])
        self.sizes = [_seen_size(config, camera, self.resize or shape[:2]) for camera, shape in images.items()]
        self.output_dim = len(images) * config.feature_dim + state_dim
        seen = {(size, images[camera][2]) for camera, size in zip(self.cameras, self.sizes, strict=True)}
        if config.share_cameras and len(seen) > 1:
            listed = ", ".join(f"{camera} {' x '.join(map(str, shape))}" for camera, shape in images.items())
            raise UserError(
                f"encoder.share_cameras=true needs frames of one size and the cameras differ ({listed}); "
                "set a common encoder.crop or share_cameras=false."
            )
        network = {"resnet18": ResNetEncoder, "vit_small": ViTEncoder}[config.name]
        count = 1 if config.share_cameras else len(images)
        self.networks = nn.ModuleList(
            network(config, size=self.sizes[i], channels=images[self.cameras[i]][2]) for i in range(count)
        )
        self.frames = nn.ModuleList(
            _Frames(config.statistics.get(camera), images[camera][2], camera) for camera in images
        )
        self.lr_factor = config.lr_factor
        if self.lr_factor == 0:
            for parameter in self._trunks().values():
                parameter.requires_grad_(False)

    def _trunks(self) -> dict[str, nn.Parameter]:
        """The parameters by name, but for those of what stands behind the networks' trunks."""
        return {name: p for name, p in self.named_parameters() if name.split(".")[2] not in AFTER_TRUNK}

    def lr_factors(self) -> dict[str, float]:
        """See `Denoiser.lr_factors`."""
        return {} if self.lr_factor == 1 else dict.fromkeys(self._trunks(), self.lr_factor)

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Give the trunk of every camera the weights that `read_weights` gave."""
        for network in self.networks:
            assert isinstance(network, ResNetEncoder)
            network.trunk.load_state_dict(weights)

    def matrices(self) -> set[str]:
        """Names of the weights that Muon orthogonalises: all but those that see pixels (see `Denoiser.matrices`)."""
        firsts = [f"networks.{i}.{first}" for i in range(len(self.networks)) for first in ("trunk.conv1", "patches")]
        return hidden_matrices(self, *firsts)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode [B, T] observations to [B, T, output_dim] float32.

        Args:
            observation: "state" float32 [B, T, O], normalised; for each camera uint8 [B, T, H, W, C], whole frames,
                which are resized if their size is another than `encoder.resize`, and of which the centre is taken, or
                frames that have the crop's size already.
        """
        state = observation[STATE]
        batch = state.shape[:2]
        frames = [
            frames(observation[camera].flatten(0, 1), self.resize, size)
            for frames, camera, size in zip(self.frames, self.cameras, self.sizes, strict=True)
        ]
        if len(self.networks) < len(frames):
            features = list(self.networks[0](torch.cat(frames)).chunk(len(frames)))
        else:
            features = [network(images) for network, images in zip(self.networks, frames, strict=True)]
        parts = [part.float().unflatten(0, batch) for part in features]
        return torch.cat([*parts, state.float()], dim=-1)


def _seen_size(config: EncoderConfig, camera: str, frame: tuple[int, int]) -> tuple[int, int]:
    """Height and width that the network sees of frames (H, W) of one camera."""
    crop = config.crop
    if crop is None:
        return frame
    height, width = frame
    seen = (crop, crop if config.crop_width is None else config.crop_width)
    if seen[0] > height or seen[1] > width:
        raise UserError(
            f"encoder.crop={crop} is larger than the frames of {camera}, which are {height} x {width} px; "
            f"use at most {min(height, width)}, or null for whole frames."
        )
    return seen


class _Frames(nn.Module):
    """Frames uint8 [B, H, W, C] as a network takes them, float32 [B, C, *size]: in [-1, 1], or normalised by the
    [means, deviations] of their channels in [0, 1]."""

    shift: Tensor
    scale: Tensor

    def __init__(self, statistics: Sequence[Sequence[float]] | None, channels: int, camera: str) -> None:
        super().__init__()
        self.normalized = statistics is not None
        if statistics is None:
            return
        if len(statistics[0]) != channels:
            raise UserError(
                f"encoder.statistics.{camera} has {len(statistics[0])} channels and its frames have {channels}; give a "
                "mean and a deviation for each."
            )
        mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in statistics)
        self.register_buffer("scale", (1 / (255 * deviation)).float(), persistent=False)
        self.register_buffer("shift", (-mean / deviation).float(), persistent=False)

    def forward(self, frames: Tensor, resize: tuple[int, int] | None, size: tuple[int, int]) -> Tensor:
        """The centre of `size` of frames [B, H, W, C], which are brought to `resize` unless they have either size."""
        if resize is not None and tuple(frames.shape[1:3]) not in (resize, size):
            # In floating point: what is resized for training is rounded to bytes, see `resize_frames`.
            planes = F.interpolate(frames.permute(0, 3, 1, 2).float(), resize, mode="bilinear", antialias=True)
            frames = planes.permute(0, 2, 3, 1)
        top, left = (round((have - want) / 2) for have, want in zip(frames.shape[1:3], size, strict=True))
        if top < 0 or left < 0:
            raise ValueError(
                f"frames of {tuple(frames.shape[1:3])} px are smaller than the {size} that the encoder sees"
            )
        frames = frames[:, top : top + size[0], left : left + size[1]].float()
        frames = torch.addcmul(self.shift, frames, self.scale) if self.normalized else frames / 127.5 - 1
        return frames.permute(0, 3, 1, 2)  # stored frames have their channels last
