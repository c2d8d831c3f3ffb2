"""What users add from modules of their own, and how those modules are found.

A module is named by `plugins=[my_module]` of `policy-accel train`, by `--plugins my_module` of the commands that load a
run, or by a Python entry point of the group `policy_accel.plugins`; the current folder is searched too. When it is
imported it registers what it has, by the functions below; an environment it registers with gymnasium as usual.

A run directory may be a stranger's: the modules that its config.yaml names are never imported for it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy_accel.errors import UserError
from policy_accel.groups import register_group

if TYPE_CHECKING:
    from torch import Tensor

    from policy_accel.acceleration.noise_choices import NoiseConfig
    from policy_accel.acceleration.timesteps import TimestepsConfig
    from policy_accel.evaluation import EpisodeResult
    from policy_accel.models import Denoiser, ModelConfig

ENTRY_POINTS = "policy_accel.plugins"

_imported: list[str] = []


def register_denoiser(
    name: str, config: type[ModelConfig], network: Callable[..., Denoiser], track: str = "robot"
) -> None:
    """Offer a network as `model=NAME`; see `policy_accel.models.register_denoiser`."""
    from policy_accel.models import register_denoiser

    register_denoiser(name, config, network, track)


def register_noise(config: type[NoiseConfig]) -> None:
    """Offer a choice of noise as `acceleration/noise=NAME`, NAME being the default of `config.name`.

    Its `build()` makes the `NoiseChoice` that a run draws its noise from.
    """
    from policy_accel.acceleration.noise_choices import NoiseConfig

    register_group("acceleration/noise", NoiseConfig, [config])


def register_timesteps(config: type[TimestepsConfig]) -> None:
    """Offer a distribution of timesteps as `acceleration/timesteps=NAME`, NAME being the default of `config.name`.

    Its `over(process)` makes the `TimestepDistribution` over the discrete times of a process.
    """
    from policy_accel.acceleration.timesteps import TimestepsConfig

    register_group("acceleration/timesteps", TimestepsConfig, [config])


def register_sampler(name: str, solve: Callable[..., Tensor]) -> None:
    """Offer a sampler as `sampling.sampler=NAME`; see `policy_accel.diffusion.samplers.register_sampler`."""
    from policy_accel.diffusion.samplers import register_sampler

    register_sampler(name, solve)


def register_rollout_metric(name: str, metric: Callable[[Sequence[EpisodeResult]], float | None]) -> None:
    """Report a number of the episodes of every evaluation of a policy, under "metrics" of evaluation.json; None where
    it means nothing for these episodes."""
    from policy_accel.evaluation.statistics import METRICS

    METRICS[name] = metric


def register_image_metric(name: str, metric: Callable[[Tensor, Tensor], float], better: str = "lower") -> None:
    """Report a measure of generated images beside its floor, where all measures are taken.

    Args:
        name: of the measure.
        metric: of (images, as many training images), each [n, C, H, W] uint8 (latents float), on the run's device.
        better: "lower" or "higher".
    """
    from policy_accel.images.metrics.measure import METRICS

    METRICS[name] = (metric, better)


def imported_plugins() -> tuple[str, ...]:
    """The modules that were imported as plugins so far, for processes that need them too."""
    return tuple(_imported)


def import_plugins(names: Iterable[str]) -> None:
    """Import the installed plugins, and the modules `names`, which may lie in the current folder.

    Raises:
        UserError: a module that cannot be imported.
    """
    installed = [point.module for point in entry_points(group=ENTRY_POINTS)]
    named = list(names)
    if named:
        search_current_folder()
    for name in (*installed, *named):
        if name in _imported:
            continue
        if name.endswith(".py"):
            raise UserError(
                f"the plugin '{name}' is a file; name the module, {Path(name).stem}, whose folder is the current one "
                "or is in PYTHONPATH."
            )
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"the plugin '{name}' cannot be imported ({reason}).") from error
        _imported.append(name)


def search_current_folder() -> None:
    """Let modules of the current folder be imported, after those that are installed."""
    folder = os.getcwd()
    if "" not in sys.path and folder not in sys.path:
        sys.path.append(folder)


def named_plugins(overrides: Iterable[str], settings: Iterable[Any]) -> list[str]:
    """The plugins that overrides such as "plugins=[a,b]" name, and those of the user's own files.

    Args:
        overrides: of `policy-accel train`.
        settings: of the user's own files that these choose.
    """
    found: list[str] = []
    for values in settings:
        found += values.get("plugins", [])
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "plugins":
            found += [name.strip(" '\"") for name in value.strip("[] ").split(",") if name.strip()]
    return found
