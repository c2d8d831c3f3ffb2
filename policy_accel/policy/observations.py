"""From an environment's observation to what a policy takes: numbers in one row, pictures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policy_accel.diffusion.host_work import to_device
from policy_accel.errors import UserError, did_you_mean, one_of
from policy_accel.evaluation.episode import named_parts
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.fields import flat, parse_field
from policy_accel.policy.frames import as_frames, forms_of
from policy_accel.policy.image_store import resize_frames
from policy_accel.policy.normalization import MODES, Normalizer, fit_normalizer

Observations = Tensor | dict[str, Tensor]
"""Numbers [B, T, O], or a dictionary with these as "state" and pictures uint8 [B, T, H, W, C] by name."""


OBSERVATION_MODES = (*MODES, "limits_except_quat")


def fit_observation_normalizer(
    observations: Tensor, mode: str, quaternions: Sequence[int], precision: np.ndarray | None = None
) -> Normalizer:
    """Fit the normaliser of observations [N, O], recorded as exactly as `precision` [O] says; without columns it has
    nothing to do.

    `limits_except_quat` is `limits` but for the columns `quaternions`, which stay as they are: what the reference does
    for the hand beside robomimic's pictures. The other modes are those of `fit_normalizer`.

    Raises:
        UserError: an unknown mode; what `fit_normalizer` raises.
    """
    one_of("task.observation_normalization", mode, OBSERVATION_MODES)
    if not observations.shape[1]:
        return Normalizer(0)
    if mode == "limits_except_quat":
        return fit_normalizer(observations, "limits", untouched=quaternions, precision=precision)
    return fit_normalizer(observations, mode, precision=precision)


def as_tensors(
    windows: Sequence[Sequence[Mapping[str, np.ndarray]]],
    device: torch.device,
    sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Observations:
    """Windows of observations as `ObservationLayout.taken` gives them, [B][T], as the policy takes them, on `device`;
    pictures in `sizes` are resized here, as those that were trained on."""
    names = windows[0][0]
    tensors = {name: torch.from_numpy(np.stack([[row[name] for row in rows] for rows in windows])) for name in names}
    tensors |= {name: resize_frames(tensors[name], size) for name, size in sizes.items()}
    tensors = {name: to_device(tensor, device) for name, tensor in tensors.items()}
    return tensors if len(tensors) > 1 else tensors[STATE]


@dataclass(frozen=True)
class ObservationLayout:
    """Which entries of an observation a policy takes, in which order.

    fields: columns of numbers, goals last. images: names of pictures. environment_keys: field or image -> entry of the
    environment's Dict where that has another name; of a Dict in a Dict, "outer.inner". A field without an entry of its
    own there takes its columns from the entry of its key. An entry of any shape is flattened first. image_ranges: image
    -> the values that become 0 and 255.
    """

    fields: tuple[str, ...]
    images: tuple[str, ...] = ()
    environment_keys: Mapping[str, str] = field(default_factory=dict)
    image_ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def entry(self, name: str) -> tuple[str, slice]:
        """The entry of a dictionary that a field or picture is read from, and which columns of it."""
        if name in self.environment_keys:
            return self.environment_keys[name], slice(None)
        return parse_field(name)

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries of a dictionary that anything is read from."""
        return tuple(dict.fromkeys(self.entry(name)[0] for name in (*self.fields, *self.images)))

    def numbers(self, observation: Any, steps: int) -> np.ndarray:
        """The numbers of observations (an array, or a dictionary of arrays by entry) with `steps` leading axes N:
        [*N, O] float64."""
        if not isinstance(observation, dict):
            return flat(observation, steps).astype(np.float64)
        picture = [np.asarray(observation[self.entry(self.images[0])[0]])] if self.images else []
        parts = [np.zeros((*values.shape[:steps], 0)) for values in picture]
        for name in self.fields:
            entry, rows = self.entry(name)
            parts.append(flat(observation[entry], steps)[..., rows].astype(np.float64))
        return np.concatenate(parts, axis=-1)

    def taken(self, observation: Any, dim: int, images: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """A copy of what a policy takes of one observation of an environment or robot: its numbers [O] float64 as
        "state", and its pictures uint8 [H, W, C] by name.

        Args:
            observation: numbers, or a dictionary of arrays, each in its own shape or flat.
            dim: numbers that the policy takes.
            images: name -> (H, W, C) of the pictures that it takes.

        Raises:
            UserError: another size or type; an entry that is missing; a value that is not finite.
        """
        if isinstance(observation, Mapping):
            observation = named_parts(observation)
            for name in (*self.fields, *self.images):
                entry = self.entry(name)[0]
                if entry not in observation:
                    raise UserError(
                        f"the observation has no entry '{entry}', which task field '{name}' takes; it has "
                        f"{', '.join(observation)}."
                    )
        elif images:
            raise UserError(f"the policy sees pictures ({', '.join(images)}); give it a dictionary of arrays.")
        try:
            numbers = self.numbers(observation, 0)
        except (TypeError, ValueError) as error:
            raise UserError(f"the observation is not made of numbers ({error}); give arrays.") from error
        if numbers.shape != (dim,):
            raise UserError(f"the observation has shape {numbers.shape}; this policy takes {dim} numbers.")
        if not np.isfinite(numbers).all():
            raise UserError(f"number {int(np.flatnonzero(~np.isfinite(numbers))[0])} of the observation is not finite.")
        taken = {STATE: numbers}
        for name, shape in images.items():
            taken[name] = self.frames(observation, name, shape, 0).copy()
        return taken

    def frames(self, observation: Mapping[str, Any], name: str, shape: Sequence[int], steps: int) -> np.ndarray:
        """The frames of a picture, whose shape is (H, W, C), with `steps` leading axes N: uint8 [*N, H, W, C].

        Raises:
            UserError: another shape, or values that are no frames.
        """
        values = np.asarray(observation[self.entry(name)[0]])
        before = values.shape[:steps]
        try:
            made = as_frames(values.reshape(-1, *values.shape[steps:]), shape, self.image_ranges.get(name))
        except ValueError as error:
            raise UserError(f"picture '{name}' {error}; give it as the demonstrations have it.") from error
        return made.reshape(*before, *shape)

    def tensors(
        self,
        observation: Any,
        device: torch.device,
        *,
        images: Mapping[str, Sequence[int]],
        sizes: Mapping[str, Sequence[int]],
    ) -> Observations:
        """Observations [B, T, ...] as the policy takes them, on `device`: numbers, and frames of `images` (H, W, C), of
        which those in `sizes` are resized here, as those that were trained on."""
        numbers = to_device(torch.from_numpy(self.numbers(observation, 2)), device)
        if not images:
            return numbers
        pictures = {name: torch.from_numpy(self.frames(observation, name, shape, 2)) for name, shape in images.items()}
        pictures |= {name: resize_frames(pictures[name], size) for name, size in sizes.items()}
        pictures = {name: to_device(picture, device) for name, picture in pictures.items()}
        return {STATE: numbers, **pictures}

    def check(
        self, space: spaces.Space[Any], dim: int, images: Mapping[str, tuple[int, ...]], environment: str
    ) -> None:
        """Compare with an environment's observation space.

        Args:
            space: of one observation.
            dim: numbers that the policy takes.
            images: name -> (H, W, C) of the pictures that it takes.
            environment: its id, for messages.

        Raises:
            UserError: an entry that the environment lacks (with those that it has), or of another size.
        """
        agree = "make task.observation, task.environment and task.environment_options agree."
        parts = named_parts(space) if isinstance(space, spaces.Dict) else {}
        if parts:
            for name in (*self.fields, *self.images):
                entry = self.entry(name)[0]
                if entry not in parts:
                    raise UserError(
                        f"environment '{environment}' gives no observation '{entry}' for task field '{name}'; "
                        f"{did_you_mean(entry, parts)} (task.environment_keys names an entry that is called "
                        "otherwise there)"
                    )
            for name, shape in images.items():
                found = parts[self.entry(name)[0]].shape
                if found not in forms_of(shape):
                    raise UserError(
                        f"environment '{environment}' gives pictures '{name}' of shape {found}, the demonstrations "
                        f"have {tuple(shape)}; {agree}"
                    )
        elif self.images:
            raise UserError(f"environment '{environment}' gives {space} and no picture '{self.images[0]}'; {agree}")
        sample = {entry: parts[entry].sample() for entry in self.entries} if parts else space.sample()
        if isinstance(sample, tuple):
            raise UserError(f"environment '{environment}' gives {space}, which is not a row of numbers; {agree}")
        if self.numbers(sample, 0).shape[-1] != dim:
            raise UserError(
                f"the observation of environment '{environment}' is {space}, of which the task takes "
                f"{self.numbers(sample, 0).shape[-1]} numbers; the demonstrations have {dim} numbers a step; {agree}"
            )
