"""The denoisers by name, ours and those that others register."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

from policy_accel.errors import UserError, one_of
from policy_accel.models.config import ModelConfig
from policy_accel.models.denoiser import Denoiser

TRACKS = ("robot", "images")


_REGISTRY: dict[str, tuple[type[ModelConfig], Callable[..., Denoiser], str]] = {}
"""By name: the class of the settings, what builds the network, and the track."""


def register_denoiser(
    name: str, config: type[ModelConfig], network: Callable[..., Denoiser], track: str = "robot"
) -> None:
    """Make a denoiser available as `model=NAME`.

    Args:
        name: of the denoiser, and the default of `config.name`.
        config: dataclass of its settings.
        network: called with these settings and the sizes of its track, by keyword. For robots: channels (entries per
            step of the trajectory), horizon (steps of the trajectory) and condition_shape, (n_obs_steps,
            observation_dim) or None for in-painting; x is [B, horizon, channels], condition [B, *condition_shape]. For
            images: channels, resolution (height and width in pixels) and condition_dim (classes, one-hot, and
            augmentation parameters; 0 for none); x is [B, channels, resolution, resolution], condition
            [B, condition_dim]; classes, how many of these are the class, where it has an argument of this name. With
            diffusion.learn_sigma also out_channels, of what it returns.
        track: "robot" or "images".

    Raises:
        UserError: another denoiser has this name, `config.name` differs from it, or an unknown track.
    """
    entry = (config, network, one_of("track", track, TRACKS))
    if config().name != name:
        raise UserError(f"{config.__name__}.name is '{config().name}', and it is registered as '{name}'; use one name.")
    if _REGISTRY.setdefault(name, entry) != entry:
        raise UserError(f"model '{name}' is registered already, with {_REGISTRY[name][0].__name__}; rename one.")


def denoiser_configs(track: str) -> dict[str, type[ModelConfig]]:
    """The settings of every denoiser of a track ("robot" or "images"), by name."""
    return {name: config for name, (config, _, owner) in _REGISTRY.items() if owner == track}


def build_denoiser(config: ModelConfig, **sizes: int | tuple[int, int] | None) -> Denoiser:
    """Build the denoiser that `config` describes, for the sizes of its track (see `register_denoiser`).

    Raises:
        UserError: settings of another network, or some that do not fit the sizes.
    """
    schema, network, _ = _REGISTRY.get(config.name, (None, None, None))
    if schema is None or network is None or not isinstance(config, schema):
        raise UserError(f"model.name '{config.name}' does not go with these settings; choose model=NAME instead.")
    taken = signature(network).parameters
    if "out_channels" in sizes and "out_channels" not in taken:
        raise UserError(f"model={config.name} takes no out_channels; set diffusion.learn_sigma=false.")
    if "classes" not in taken:
        sizes.pop("classes", None)
    return network(config, **sizes)
