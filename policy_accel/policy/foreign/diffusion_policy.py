"""Checkpoints of real-stanford/diffusion_policy, as the published ones of Push-T: the weights, read as data.

They hold a pickled configuration, whose plain values are taken where they can be read. Where they cannot, settings
follow from the shapes, and what shapes do not show is as in the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.foreign.betas import betas_of
from policy_accel.foreign.stored import State, below, by_our_names, clip_bound, process_values, whole_number
from policy_accel.foreign.torch_zip import StoredTensor, TorchFile, plain
from policy_accel.policy.foreign.names import (
    HEAD_GROUPS,
    TRANSFORMER,
    UNET,
    reordered,
    resnet_settings,
    resnet_trunk,
    transformer_settings,
    unet_settings,
    unet_sizes,
)
from policy_accel.policy.foreign.stored import ForeignPolicy, PictureStatistics, finite, normalizer_state

PUBLISHED = {"horizon": 16, "n_obs_steps": 2, "n_action_steps": 8, "n_head": 4, "n_groups": HEAD_GROUPS}
BUFFERS = ("_dummy_variable", "mask", "memory_mask")
NORMALIZER = "normalizer.params_dict."


def read_checkpoint(path: Path) -> ForeignPolicy:
    """The policy in a .ckpt: its averaged weights, or else those that were trained.

    Raises:
        UserError: it cannot be read.
        ValueError: a policy of another kind, or with parts that ours do not have.
    """
    file = TorchFile.open(path)
    stored = _state_dict(file.content)
    config = _section(plain(file.content.get("cfg")))
    said = _section(config.get("policy"))
    _check_kind(said)
    network = {name: entry for name, entry in below(stored, "model.").items() if name.split(".")[-1] not in BUFFERS}
    is_unet = "diffusion_step_encoder.1.weight" in network
    rules = UNET if is_unet else TRANSFORMER
    sizes = {name: _shaped(entry) for name, entry in network.items()}
    ours = by_our_names(sizes, rules)
    norms = below(stored, NORMALIZER)
    if "action.scale" not in norms:
        raise ValueError("it has no normaliser of actions, so that it is no diffusion policy of this library")
    action_dim = norms["action.scale"].size[0]
    shapes, numbers, images = _observation(config, stored, norms)
    feature = 0
    encoder: dict[str, Any] = {}
    if images:
        encoder, feature = _encoder(said, stored, images)
    observation_dim = sum(shapes[name] for name in numbers)
    features = len(images) * feature + observation_dim
    model = _section(said.get("model"))
    observed = whole_number("n_obs_steps", _told(said, config, "n_obs_steps"))
    if is_unet:
        groups = said.get("n_groups", model.get("n_groups", PUBLISHED["n_groups"]))
        settings = unet_settings(ours, whole_number("n_groups", groups))
        channels, condition = unet_sizes(ours)
        steps = condition // features if condition else observed
        fits = condition in (0, steps * features)
        horizon = whole_number("horizon", _told(said, config, "horizon"))
    else:
        heads = whole_number("n_head", model.get("n_head", said.get("n_head", PUBLISHED["n_head"])))
        settings = transformer_settings(ours, heads, causal="model.mask" in stored)
        channels, horizon = ours["input.weight"].shape[1], ours["position"].shape[1]
        condition = ours["observation.weight"].shape[1] if "observation.weight" in ours else 0
        steps = ours["condition_position"].shape[1] - 1 if condition else observed
        fits = condition in (0, features)
    inpainting = condition == 0
    if not fits or channels != action_dim + (observation_dim if inpainting else 0) or (inpainting and images):
        raise ValueError(
            f"its network takes {channels} numbers of a step and {condition} of observations, which {action_dim} "
            f"numbers of an action and {features} of an observation do not explain"
        )
    order = _order(list(shapes), shapes, images, feature)

    def weights() -> State:
        loaded = file.tensors({name: entry for name, entry in stored.items() if name.split(".")[-1] not in BUFFERS})
        state = by_our_names(below(loaded, "model."), rules)
        state = state if inpainting else reordered(state, order, steps)
        result = {f"denoiser.{name}": tensor.float() for name, tensor in state.items()}
        fitted = {name: _affine(name, loaded) for name in (*numbers, "action")}
        result |= normalizer_state("observation_normalizer", [fitted[name] for name in numbers])
        result |= normalizer_state("action_normalizer", [fitted["action"]])
        for place, name in enumerate(images):
            result |= _encoder_state(place, below(loaded, f"obs_encoder.obs_nets.{name}."))
        return result

    statistics = {} if not images else _statistics(images, file, stored)
    fields = tuple(name if name != "obs" else "observation" for name in numbers)
    return ForeignPolicy(
        path,
        "Diffusion Policy",
        _data(config),
        fields,
        images,
        observation_dim,
        action_dim,
        {
            "policy": {
                "horizon": horizon,
                "n_obs_steps": steps,
                "n_action_steps": whole_number("n_action_steps", _told(said, config, "n_action_steps")),
                "conditioning": "inpainting" if inpainting else "global",
            },
            "model": settings,
            **({"encoder": encoder} if images else {}),
            **_process(said),
        },
        weights,
        statistics,
    )


def _state_dict(content: Any) -> dict[str, StoredTensor]:
    """Its averaged weights, or else those that were trained."""
    states = content.get("state_dicts") if isinstance(content, dict) else None
    if not isinstance(states, dict):
        raise ValueError("it holds no state_dicts, as checkpoints of this library do")
    for name in ("ema_model", "model"):
        if isinstance(states.get(name), dict):
            return {str(key): entry for key, entry in states[name].items() if isinstance(entry, StoredTensor)}
    raise ValueError(f"its state_dicts are {', '.join(map(str, states))}, without ema_model and model")


def _check_kind(said: Mapping[str, Any]) -> None:
    """Raise ValueError for a policy that acts in another way than ours."""
    if said.get("oa_step_convention") is False and "obs_dim" in said and "n_head" not in said.get("model", {}):
        raise ValueError("it was trained with oa_step_convention=false, whose actions are one step later than ours")
    for name in ("obs_as_local_cond", "pred_action_steps_only"):
        if said.get(name):
            raise ValueError(f"it was trained with {name}=true, which ours does not have")


def _told(said: Mapping[str, Any], config: Mapping[str, Any], name: str) -> Any:
    for place in (said, config):
        if place.get(name) is not None:
            return place[name]
    return PUBLISHED[name]


def _observation(
    config: Mapping[str, Any], stored: Mapping[str, StoredTensor], norms: Mapping[str, StoredTensor]
) -> tuple[dict[str, int], list[str], dict[str, tuple[int, int, int]]]:
    """Numbers of each entry in their order (a picture's are 0), names of those of numbers, shapes of pictures."""
    cameras = list(dict.fromkeys(name.split(".")[2] for name in stored if name.startswith("obs_encoder.obs_nets.")))
    if not cameras:
        if "obs.scale" not in norms:
            raise ValueError("it has no normaliser of observations 'obs'")
        return {"obs": norms["obs.scale"].size[0]}, ["obs"], {}
    meta = _section(config.get("shape_meta") or _section(config.get("task")).get("shape_meta"))
    try:
        listed = {str(name): tuple(map(int, entry["shape"])) for name, entry in meta["obs"].items()}
        images = {name: (listed[name][1], listed[name][2], listed[name][0]) for name in listed if name in cameras}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError("it does not say the shapes of its pictures (shape_meta)") from error
    if len(images) != len(cameras):
        raise ValueError(f"its shape_meta does not name the pictures {', '.join(cameras)}")
    shapes = {name: 0 if name in images else shape[0] for name, shape in listed.items()}
    return shapes, [name for name in shapes if name not in images], images


def _order(names: list[str], sizes: Mapping[str, int], images: Mapping[str, Any], feature: int) -> list[int]:
    """For each number of a condition in our order (pictures first), its place in theirs."""
    places, at = {}, 0
    for name in names:
        count = feature if name in images else sizes[name]
        places[name] = range(at, at + count)
        at += count
    ours = [*(name for name in names if name in images), *(name for name in names if name not in images)]
    return [place for name in ours for place in places[name]]


def _encoder(
    said: Mapping[str, Any], stored: Mapping[str, StoredTensor], images: Mapping[str, tuple[int, int, int]]
) -> tuple[dict[str, Any], int]:
    """Our settings of its encoder, and the numbers that it makes of a picture."""
    net = below(stored, f"obs_encoder.obs_nets.{next(iter(images))}.")
    needed = ("backbone.nets.0.weight", "pool.nets.weight", "nets.3.weight")
    missing = [name for name in needed if name not in net]
    if missing:
        raise ValueError(f"its encoder of pictures is none of robomimic's ResNet-18 (it has no {missing[0]})")
    crop = said.get("crop_shape", [76, 76])
    size = None if crop is None else (int(crop[0]), int(crop[1]))
    folds = "backbone.nets.1.running_mean" in net
    trunk = {"conv1.weight": _shaped(net["backbone.nets.0.weight"])}
    feature = net["nets.3.weight"].size[0]
    settings = {
        "crop": None if size is None else size[0],
        "crop_width": None if size is None or size[0] == size[1] else size[1],
        "feature_dim": feature,
        "resnet": resnet_settings(trunk, _shaped(net["pool.nets.weight"]), plain=folds),
    }
    return settings, feature


def _encoder_state(place: int, network: State) -> State:
    if float(network["pool.temperature"]) != 1.0:
        raise ValueError("its spatial softmax has another temperature than 1, which ours does not have")
    trunk, _ = resnet_trunk(below(network, "backbone.nets."))
    own = {f"trunk.{name}": tensor for name, tensor in trunk.items()}
    for part in ("weight", "bias"):
        own[f"pool.maps.{part}"] = network[f"pool.nets.{part}"]
        own[f"head.{part}"] = network[f"nets.3.{part}"]
    return {f"encoder.networks.{place}.{name}": tensor.float() for name, tensor in own.items()}


def _affine(name: str, loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = below(loaded, f"{NORMALIZER}{name}.")
    if "scale" not in found or "offset" not in found:
        raise ValueError(f"it has no normaliser of '{name}'")
    scale, offset = (finite(name, found[part]) for part in ("scale", "offset"))
    if (scale == 0).any():
        raise ValueError(f"its normaliser of '{name}' has a scale of 0")
    return {"scale": scale, "offset": offset}


def _statistics(
    images: Mapping[str, tuple[int, int, int]], file: TorchFile, stored: Mapping[str, StoredTensor]
) -> dict[str, PictureStatistics]:
    """Means and deviations of the pictures that are not simply brought to [-1, 1]."""
    wanted = {name: entry for name, entry in stored.items() if name.startswith(NORMALIZER) and "stats" not in name}
    loaded, found = file.tensors(wanted), {}
    for name, shape in images.items():
        affine = _affine(name, loaded)
        scale, offset = (affine[part].expand(shape[2]) for part in ("scale", "offset"))
        if not bool((scale == 2).all() and (offset == -1).all()):
            found[name] = ((-offset / scale).tolist(), (1 / scale).tolist())
    return found


def _process(said: Mapping[str, Any]) -> dict[str, Any]:
    scheduler = _section(said.get("noise_scheduler"))
    if scheduler.get("variance_type", "fixed_small") != "fixed_small":
        raise ValueError(f"its variance_type '{scheduler['variance_type']}' is not fixed_small, which ours is")
    target = str(scheduler.get("_target_", "DDPMScheduler"))
    steps = said.get("num_inference_steps")
    timesteps = whole_number("num_train_timesteps", scheduler.get("num_train_timesteps", 100))
    return process_values(
        timesteps=timesteps,
        **betas_of(scheduler, timesteps, "squaredcos_cap_v2"),
        prediction=str(scheduler.get("prediction_type", "epsilon")),
        sampler="ddim" if target.endswith("DDIMScheduler") else "ddpm",
        steps=None if steps is None else whole_number("num_inference_steps", steps),
        clip=clip_bound(scheduler.get("clip_sample", True), scheduler.get("clip_sample_range", 1.0)),
    )


def _data(config: Mapping[str, Any]) -> str:
    """The data set that its configuration names."""
    dataset = _section(_section(config.get("task")).get("dataset"))
    return str(dataset.get("zarr_path") or dataset.get("dataset_path") or dataset.get("dataset_dir") or "unknown")


def _section(value: Any) -> dict[str, Any]:
    """A section of the configuration; empty where there is none."""
    return value if isinstance(value, dict) else {}


def _shaped(entry: StoredTensor) -> Tensor:
    """An empty tensor of its shape."""
    return torch.empty(entry.size, device="meta")
