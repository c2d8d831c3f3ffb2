"""The fields of a configuration, and whether a change of one is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import torch

from policy_accel.models import denoiser_configs


def fields_of(config: Any, without: Container[str] = (), prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a dataclass and of those in it, but `without` some and what they hold."""
    for field in dataclasses.fields(config):
        name, part = f"{prefix}{field.name}", getattr(config, field.name)
        if name in without:
            continue
        if dataclasses.is_dataclass(part):
            yield from fields_of(part, without, f"{name}.")
        else:
            yield name


def model_fields(track: str) -> set[str]:
    """Fields of all networks of a track, as "unet.groups"."""
    return {
        f"{name}.{field.name}"
        for name, config_class in denoiser_configs(track).items()
        for field in dataclasses.fields(config_class)
        if field.name != "name"
    }


def freeze(value: Any) -> Any:
    """A comparable form of what was seen of a configuration: tensors and arrays by their bytes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    if isinstance(value, np.ndarray):
        return value.astype(float).tobytes(), value.shape
    if isinstance(value, list | tuple):
        return tuple(freeze(part) for part in value)
    if isinstance(value, dict):
        return tuple((key, freeze(part)) for key, part in sorted(value.items()))
    return value


def count(net: torch.nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
