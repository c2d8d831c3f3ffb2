"""The tensors of other libraries' networks by our names, and our settings from their shapes.

Whatever does not fit is a ValueError, whose message says what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from policy_accel.foreign.stored import State, shape_of
from policy_accel.models.encoders.pretrained import folded, layers

UNET = (
    (r"^diffusion_step_encoder\.", "step_encoder."),
    (r"^down_modules\.", "down."),
    (r"^mid_modules\.", "middle."),
    (r"^up_modules\.", "up."),
    (r"^final_conv\.0\.block\.", "head.0."),
    (r"^final_conv\.1\.", "head.1."),
    (r"\.(conv1|blocks\.0)\.block\.", ".first."),
    (r"\.(conv2|blocks\.1)\.block\.", ".second."),
    (r"\.cond_encoder\.1\.", ".film.1."),
    (r"\.residual_conv\.", ".residual."),
    (r"\.2\.conv\.", ".2."),
)
TRANSFORMER = (
    (r"^input_emb\.", "input."),
    (r"^pos_emb$", "position"),
    (r"^cond_obs_emb\.", "observation."),
    (r"^cond_pos_emb$", "condition_position"),
    (r"^ln_f\.", "norm."),
)
HEAD_GROUPS = 8
"""Groups of the last normalisation in both libraries, whatever those of the others."""
RESNET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Places in the sequence that both libraries make of torchvision's resnet18 -> its own names."""


def unet_settings(state: State, groups: int) -> dict[str, Any]:
    """Settings of the U-Net that `state`, by our names, is of."""
    first = [shape_of(state, f"down.{i}.0.first.0.weight") for i in range(_count(state, r"down\.(\d+)\.0\."))]
    film = shape_of(state, "down.0.0.film.1.weight")
    return {
        "name": "unet",
        "down_dims": [shape[0] for shape in first],
        "kernel_size": first[0][2],
        "groups": groups,
        "head_groups": None if groups == HEAD_GROUPS else HEAD_GROUPS,
        "step_embedding_dim": shape_of(state, "step_encoder.1.weight")[1],
        "film_scale": film[0] == 2 * first[0][0],
    }


def unet_sizes(state: State) -> tuple[int, int]:
    """Numbers of a step of the trajectory, and of the condition."""
    channels, step = shape_of(state, "down.0.0.first.0.weight")[1], shape_of(state, "step_encoder.1.weight")[1]
    return channels, shape_of(state, "down.0.0.film.1.weight")[1] - step


def transformer_settings(state: State, heads: int, *, causal: bool) -> dict[str, Any]:
    """Settings of the transformer that `state`, by our names, is of."""
    if "encoder.2.weight" not in state:
        raise ValueError("its transformer encodes the condition by attention, which ours does not have")
    dim = shape_of(state, "input.weight")[0]
    count = _count(state, r"decoder\.layers\.(\d+)\.")
    return {"name": "transformer", "embedding_dim": dim, "layers": count, "heads": heads, "causal": causal}


def reordered(state: State, order: Sequence[int], steps: int) -> State:
    """The same network for a condition whose numbers come in another order.

    Args:
        state: of a U-Net or a transformer, by our names.
        order: for each number of an observation in our order, its place in theirs.
        steps: observations of the condition.
    """
    if list(order) == list(range(len(order))):
        return state
    changed = {name: tensor for name, tensor in state.items() if name.endswith("film.1.weight")}
    for name, weight in changed.items():
        own = weight.shape[1] - steps * len(order)
        columns = [*range(own), *(own + step * len(order) + place for step in range(steps) for place in order)]
        changed[name] = weight[:, columns]
    if "observation.weight" in state:
        changed["observation.weight"] = state["observation.weight"][:, list(order)]
    return {**state, **changed}


def resnet_trunk(tensors: Mapping[str, Tensor]) -> tuple[State, bool]:
    """The trunk of our ResNet-18, and whether batch normalisation was folded into it.

    Args:
        tensors: of the sequence of torchvision's parts, "0.weight" and so on.
    """
    theirs = {}
    for name, tensor in tensors.items():
        place, _, rest = name.partition(".")
        theirs[f"{RESNET.get(place, place)}.{rest}"] = tensor
    if any(re.match(r"layer\d\.([2-9]|\d\d)\.|layer\d\.\d\.conv3", name) for name in theirs):
        raise ValueError("its pictures go through a larger network than ResNet-18, which ours is")
    if "bn1.running_mean" in theirs:
        return folded(theirs), True
    state = {}
    for ours, (convolution, norm, _) in layers().items():
        own = f"{ours.removesuffix('.0')}.1" if ours.endswith(".0") else ours.replace("conv", "norm")
        for name, source in ((ours, convolution), (own, norm)):
            for part in ("weight", "bias"):
                if f"{source}.{part}" in theirs:
                    state[f"{name}.{part}"] = theirs.pop(f"{source}.{part}")
    if theirs:
        raise ValueError(f"its network of pictures has {next(iter(theirs))}, which ResNet-18 does not have")
    return state, False


def resnet_settings(tensors: Mapping[str, Tensor], maps: Tensor, *, plain: bool) -> dict[str, Any]:
    """Settings of our ResNet-18 from its trunk, by our names, and the convolution of its spatial softmax."""
    return {
        "width": shape_of(tensors, "conv1.weight")[0],
        "group_channels": None if plain else 16,
        "keypoints": maps.shape[0],
        "rectify": True,
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})
