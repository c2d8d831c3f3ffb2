"""Networks of EDM (Karras et al. 2022), and of what is trained with its code: network-snapshot-*.pkl, the published
.pkl files, or their tensors under the same names as safetensors, which are taken as preconditioned by EDM. A .pkl of
EDM2 is read by `edm2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from policy_accel.foreign.stored import State, below, shape_of
from policy_accel.foreign.tensor_file import TensorFile
from policy_accel.images.augment import PARAMETERS
from policy_accel.images.foreign.edm2 import EDM2, read_edm2
from policy_accel.images.foreign.edm_parts import ordered, our_layers, queries_first
from policy_accel.images.foreign.pickles import attributes, read_pickle, state_dict
from policy_accel.images.foreign.stored import ForeignImages

PRECONDITIONING = {
    "EDMPrecond": {"family": "edm", "target": "edm"},
    "VPPrecond": {"family": "vp", "target": "epsilon"},
    "VEPrecond": {"family": "ve", "target": "negative_epsilon"},
}
STEPS, STEPS_LARGE = 18, 40
"""Of the published sampling of 32 pixels, and of 64."""
BLOCK = {
    "norm0": "norm_in",
    "conv0": "conv_in",
    "affine": "embedding",
    "norm1": "norm_out",
    "conv1": "conv_out",
    "skip": "residual",
    "norm2": "attention.norm",
    "qkv": "attention.qkv",
    "proj": "attention.out",
}
AUXILIARY = {"aux_norm": "norm", "aux_conv": "output"}


def read_edm(path: Path) -> ForeignImages:
    """The averaged network in a file.

    Raises:
        UserError: it cannot be read.
        ValueError: a network or a preconditioning that ours does not have.
    """
    if path.suffix == ".safetensors":
        tensors, kept, kind = TensorFile(path).read(), {}, "EDMPrecond"
    else:
        content = read_pickle(path)
        network = content.get("ema") if isinstance(content, dict) else content
        if network is None:
            raise ValueError("it holds no averaged network ('ema'); give a network-snapshot")
        name = getattr(network, "name", "")
        if network is content or not name:
            kind = name or type(network).__name__
            raise ValueError(f"it holds a {kind}, not a snapshot of EDM or EDM2; give a network-snapshot")
        if name == EDM2:
            return read_edm2(path, content)
        tensors, kept, kind = state_dict(network), attributes(network), name
    if kind not in PRECONDITIONING:
        raise ValueError(f"its preconditioning '{kind}' is none of ours, {', '.join((*PRECONDITIONING, EDM2))}")
    process: dict[str, Any] = dict(PRECONDITIONING[kind])
    if kind == "EDMPrecond" and "sigma_data" in kept:
        process["sigma_data"] = float(kept["sigma_data"])
    state = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    encoder, decoder = (ordered(below(state, f"{part}."), finest=part == "enc") for part in ("enc", "dec"))
    if not encoder or not encoder[0].endswith("_conv"):
        raise ValueError("it is no U-Net of EDM (its encoder begins with no convolution)")
    side = int(encoder[0].partition("x")[0])
    channels = shape_of(state, f"enc.{encoder[0]}.weight")[1]
    classes, augmented = (_width(state, name) for name in ("map_label.weight", "map_augment.weight"))
    if augmented not in (0, PARAMETERS):
        raise ValueError(f"its augmentation has {augmented} parameters, and ours {PARAMETERS}")
    if augmented and "out_conv.weight" in state:
        raise ValueError("it is an ADM network that is told of an augmentation, which ours is not")
    dropped = attributes(kept["_modules"]["model"]).get("label_dropout") if kept else None
    return ForeignImages(
        path,
        "EDM",
        (channels, side, side),
        classes,
        {
            "model": _settings(state, encoder),
            "diffusion": process,
            "sampling": {"sampler": "heun", "steps": STEPS if side <= 32 else STEPS_LARGE, "clip_sample": None},
            "task": {"label_dropout": float(dropped or 0.0), "augmentation": "edm" if augmented else "none"},
        },
        lambda: _by_our_names(state, encoder, decoder),
    )


def _settings(state: Mapping[str, Tensor], encoder: list[str]) -> dict[str, Any]:
    """Our settings from names and shapes."""
    sides = sorted({int(part.partition("x")[0]) for part in encoder}, reverse=True)
    firsts = [shape_of(state, f"enc.{side}x{side}_block0.conv0.weight")[0] for side in sides]
    width, noise = shape_of(state, "map_layer0.weight")
    scaled = shape_of(state, f"enc.{sides[0]}x{sides[0]}_block0.affine.weight")[0] == 2 * firsts[0]
    channels = noise if scaled else shape_of(state, f"enc.{encoder[0]}.weight")[0]
    if width != 4 * channels or any(first % channels for first in firsts):
        raise ValueError("its widths are no multiples of its channels as ours are")
    sizes = {
        "channels": channels,
        "multipliers": [first // channels for first in firsts],
        "blocks": sum("_block" in part and part.startswith(f"{sides[0]}x") for part in encoder),
        "attention_resolutions": [side for side in sides if f"enc.{side}x{side}_block0.qkv.weight" in state],
    }
    if scaled:
        return {"name": "adm", **sizes}
    taps = [1, 1]
    if len(sides) > 1:
        row = state[f"enc.{sides[1]}x{sides[1]}_down.conv0.resample_filter"][0, 0].sum(0)
        taps = [round(float(tap)) for tap in row / row.min()]
    return {
        "name": "edm",
        **sizes,
        "heads": 1,
        "embedding": "fourier" if "map_noise.freqs" in state else "positional",
        "time_multiplier": noise // channels,
        "encoder": "residual" if any("aux_residual" in part for part in encoder) else "standard",
        "resample_filter": taps,
    }


def _width(state: Mapping[str, Tensor], name: str) -> int:
    return shape_of(state, name)[1] if name in state else 0


def _by_our_names(state: State, encoder: list[str], decoder: list[str]) -> State:
    inner = [part for part in decoder if "_aux_" not in part]
    layers = our_layers(encoder, inner) | {"out_norm": "norm", "out_conv": "output"}
    layers |= {f"dec.{part}": AUXILIARY[part.partition("_")[2]] for part in decoder if "_aux_" in part}
    adm = "out_conv.weight" in state
    mixed = "time.mix" if adm else "embed"
    layers |= {"map_layer0": f"{mixed}.0", "map_layer1": f"{mixed}.2"}
    layers |= {"map_label": "condition" if adm else "condition.classes", "map_augment": "condition.others"}
    found = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        block, _, inside = layer.rpartition(".")
        if layer in layers:
            found[f"{layers[layer]}{'.conv' if 'aux_residual' in layer else ''}.{part}"] = tensor.float()
        elif block in layers:
            found[f"{layers[block]}.{BLOCK[inside]}.{part}"] = _projection(tensor.float(), inside)
        elif name == "map_noise.freqs":
            found["time.frequencies"] = tensor.float()
        else:
            raise ValueError(f"its network has {name}, which ours does not have")
    return {name: tensor for name, tensor in found.items() if not name.endswith("resample_filter")}


def _projection(tensor: Tensor, name: str) -> Tensor:
    """The layers of attention as ours: linear, and queries before keys before values."""
    if name not in ("qkv", "proj"):
        return tensor
    if name == "qkv":
        tensor = queries_first(tensor)
    return tensor.flatten(1) if tensor.ndim > 1 else tensor
