"""Diffusion policies of LeRobot: a folder with config.json and model.safetensors, and processors in newer ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.foreign.betas import betas_of
from policy_accel.foreign.kinds import CONFIG, REMEDY
from policy_accel.foreign.stored import State, below, by_our_names, clip_bound, process_values, whole_number
from policy_accel.foreign.tensor_file import TensorFile
from policy_accel.parsing import read_record
from policy_accel.policy.foreign.lerobot_statistics import ACTION, ENVIRONMENT, IMAGE, STATE, Statistics, features_of
from policy_accel.policy.foreign.names import (
    UNET,
    reordered,
    resnet_settings,
    resnet_trunk,
    unet_settings,
    unet_sizes,
)
from policy_accel.policy.foreign.stored import ForeignPolicy, normalizer_state


def read_lerobot(path: Path) -> ForeignPolicy:
    """The policy whose weights are in `path`, a model.safetensors.

    Raises:
        UserError: a file that is missing or damaged.
        ValueError: a policy of another kind, or with parts that ours do not have.
    """
    folder = path.parent
    config = read_record(folder / CONFIG, REMEDY)
    if config.get("type", "diffusion") != "diffusion":
        raise ValueError(f"it is a policy of type '{config['type']}', and only diffusion is read")
    features = features_of(config)
    tensors = TensorFile(path)
    statistics = Statistics.read(folder, tensors, config)
    images = {name: shape for name, (kind, shape) in features.items() if kind == IMAGE}
    numbers = [name for kind in (STATE, ENVIRONMENT) for name in _of_kind(features, kind)]
    sizes = {name: features[name][1][0] for name in numbers}
    action_dim = features[ACTION][1][0]
    steps = whole_number("n_obs_steps", config.get("n_obs_steps"))
    unet = by_our_names(tensors.shapes("diffusion.unet."), UNET)
    channels, condition = unet_sizes(unet)
    encoder: dict[str, Any] = {}
    features_of_picture = 0
    if images:
        encoder, features_of_picture = _encoder(config, tensors, images)
    own = len(images) * features_of_picture
    expected = steps * (own + sum(sizes.values()))
    if channels != action_dim or condition != expected:
        raise ValueError(
            f"its network takes {channels} numbers of an action and {condition} of observations, and {CONFIG} says "
            f"{action_dim} and {expected}"
        )
    states = sum(size for name, size in sizes.items() if features[name][0] == STATE)
    place = [*range(states, states + own), *range(states), *range(states + own, expected // steps)]
    clip = clip_bound(config.get("clip_sample", True), config.get("clip_sample_range", 1.0))

    def weights() -> State:
        loaded = tensors.read("diffusion.")
        state = reordered(by_our_names(below(loaded, "unet."), UNET), place, steps)
        result = {f"denoiser.{name}": tensor.float() for name, tensor in state.items()}
        observed = [statistics.observed(name, sizes[name]) for name in numbers]
        result |= normalizer_state("observation_normalizer", observed)
        result |= normalizer_state("action_normalizer", [statistics.acted(action_dim)])
        return result | (_encoder_state(below(loaded, "rgb_encoder.")) if images else {})

    sampler = str(config.get("noise_scheduler_type", "DDPM"))
    if sampler not in ("DDPM", "DDIM"):
        raise ValueError(f"its noise_scheduler_type '{sampler}' is neither DDPM nor DDIM")
    timesteps = whole_number("num_train_timesteps", config.get("num_train_timesteps", 100))
    return ForeignPolicy(
        path,
        "LeRobot",
        _data(folder),
        tuple(numbers),
        {name: (shape[1], shape[2], shape[0]) for name, shape in images.items()},
        sum(sizes.values()),
        action_dim,
        {
            "policy": {
                "horizon": whole_number("horizon", config.get("horizon")),
                "n_obs_steps": steps,
                "n_action_steps": whole_number("n_action_steps", config.get("n_action_steps")),
            },
            "model": unet_settings(unet, whole_number("n_groups", config.get("n_groups", 8))),
            **({"encoder": encoder} if images else {}),
            **process_values(
                timesteps=timesteps,
                **betas_of(config, timesteps, "squaredcos_cap_v2"),
                prediction=str(config.get("prediction_type", "epsilon")),
                sampler=sampler.lower(),
                steps=config.get("num_inference_steps"),
                clip=clip,
            ),
        },
        weights,
        {name: found for name in images if (found := statistics.of_picture(name, images[name][0]))},
        statistics.entries,
        _step(folder),
    )


def _of_kind(features: Mapping[str, tuple[str, tuple[int, ...]]], kind: str) -> list[str]:
    """The feature of numbers of that kind that the network sees, if there is one: other numbers do not go in."""
    names = [name for name, (found, _) in features.items() if found == kind]
    return [name for name in names if name == "observation.state"] or names[:1]


def _encoder(
    config: Mapping[str, Any], tensors: TensorFile, images: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Any], int]:
    """Our settings of its encoder, and the numbers that it makes of a picture."""
    shapes = tensors.shapes("diffusion.rgb_encoder.")
    shared = not config.get("use_separate_rgb_encoder_per_camera", False)
    first = shapes if shared else below(shapes, "0.")
    if "pool.nets.weight" not in first or "backbone.0.weight" not in first:
        raise ValueError("it has no tensors of an encoder of pictures as config.json says")
    plain = "backbone.1.running_mean" in first
    crop, resize = config.get("crop_shape"), config.get("resize_shape")
    settings: dict[str, Any] = {
        "resize": None if resize is None else list(resize),
        "crop": None if crop is None else int(crop[0]),
        "crop_width": None if crop is None or crop[0] == crop[1] else int(crop[1]),
        "share_cameras": shared and len(images) > 1,
        "feature_dim": first["out.weight"].shape[0],
        "resnet": resnet_settings({"conv1.weight": first["backbone.0.weight"]}, first["pool.nets.weight"], plain=plain),
    }
    return settings, settings["feature_dim"]


def _encoder_state(tensors: State) -> State:
    numbers = sorted({int(name.split(".")[0]) for name in tensors if name[0].isdigit()})
    state: State = {}
    for place, network in enumerate([below(tensors, f"{number}.") for number in numbers] or [tensors]):
        trunk, _ = resnet_trunk(below(network, "backbone."))
        own = {f"trunk.{name}": tensor for name, tensor in trunk.items()}
        own |= {f"pool.maps.{part}": network[f"pool.nets.{part}"] for part in ("weight", "bias")}
        own |= {f"head.{part}": network[f"out.{part}"] for part in ("weight", "bias")}
        state |= {f"encoder.networks.{place}.{name}": tensor.float() for name, tensor in own.items()}
    return state


def _data(folder: Path) -> str:
    """The data set that train_config.json names."""
    try:
        name = read_record(folder / "train_config.json", REMEDY)["dataset"]["repo_id"]
    except (UserError, KeyError, TypeError):
        return "unknown"
    return str(name)


def _step(folder: Path) -> int:
    """Updates of a checkpoint where a training left it: checkpoints/020000/pretrained_model."""
    name = folder.resolve().parent.name
    return int(name) if folder.name == "pretrained_model" and name.isdecimal() else 0
