"""The layers of diffusers' UNet2DModel and of our U-Net of DDPM by each other's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from policy_accel.foreign.stored import State

TIMES = "embed.0.weight"
CLASSES, CONDITION = "class_embedding.weight", "condition.weight"
THIRDS = ("to_q", "to_k", "to_v")
BLOCK = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "embedding": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "residual": "conv_shortcut",
}
OUTSIDE = {
    "input": "conv_in",
    "embed.0": "time_embedding.linear_1",
    "embed.2": "time_embedding.linear_2",
    "norm": "conv_norm_out",
    "output": "conv_out",
}
OLDER = ((r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v."), (r"\.proj_attn\.", ".to_out.0."))
"""Names of attention before diffusers 0.15."""


def layers(attended: Sequence[bool], blocks: int) -> dict[str, str]:
    """Our layers -> theirs; queries, keys and values, one layer here, are named by the layer that holds theirs.

    Args:
        attended: of each resolution, finest first, whether it has attention.
        blocks: at each resolution on the way down.
    """
    found, levels = dict(OUTSIDE), len(attended)
    for way, count, order in (("down", blocks, attended), ("up", blocks + 1, attended[::-1])):
        place = 0
        for level, attends in enumerate(order):
            for block in range(count):
                found |= _block(f"{way}.{place}", f"{way}_blocks.{level}", block, attends)
                place += 1
            if level < levels - 1:
                found[f"{way}.{place}"] = f"{way}_blocks.{level}.{way}samplers.0.conv"
                place += 1
    return found | _block("middle.0", "mid_block", 0, True) | _block("middle.1", "mid_block", 1, False)


def _block(ours: str, theirs: str, number: int, attends: bool) -> dict[str, str]:
    found = {f"{ours}.{layer}": f"{theirs}.resnets.{number}.{name}" for layer, name in BLOCK.items()}
    if attends:
        attention = f"{theirs}.attentions.{number}"
        parts = {"norm": f"{attention}.group_norm", "qkv": attention, "out": f"{attention}.to_out.0"}
        found |= {f"{ours}.attention.{layer}": name for layer, name in parts.items()}
    return found


def to_theirs(state: State, names: Mapping[str, str]) -> State:
    """The tensors of our network, by our names, by theirs. The null class, which has no row here, is their last."""
    found = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        if name == CONDITION:
            found[CLASSES] = torch.cat([tensor, torch.zeros(len(tensor), 1)], dim=1).T.contiguous()
        elif layer.endswith(".qkv"):
            thirds = zip(THIRDS, tensor.chunk(3), strict=True)
            found |= {f"{names[layer]}.{third}.{part}": rows.contiguous() for third, rows in thirds}
        else:
            found[f"{names[layer]}.{part}"] = tensor
    return found


def to_ours(state: State, names: Mapping[str, str]) -> State:
    """The tensors of their network, by their names, by ours.

    Raises:
        ValueError: one that ours does not have, or that is missing.
    """
    left, found = {}, {}
    for name, tensor in state.items():
        for pattern, newer in OLDER:
            name = re.sub(pattern, newer, name)
        left[name] = tensor
    for layer, theirs in names.items():
        for part in ("weight", "bias"):
            if layer.endswith(".qkv"):
                found[f"{layer}.{part}"] = torch.cat([_taken(left, f"{theirs}.{third}.{part}") for third in THIRDS])
            elif not layer.endswith(".residual") or f"{theirs}.{part}" in left:
                found[f"{layer}.{part}"] = _taken(left, f"{theirs}.{part}")
    if CLASSES in left:
        found[CONDITION] = left.pop(CLASSES).T.contiguous()
    if left:
        raise ValueError(f"its network has {next(iter(left))}, which ours does not have")
    return found


def _taken(tensors: State, name: str) -> torch.Tensor:
    if name not in tensors:
        raise ValueError(f"it has no tensor {name}")
    return tensors.pop(name)
