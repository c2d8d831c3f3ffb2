"""Files as other libraries write them, made of networks of ours: the names and layouts are theirs."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from policy_accel.foreign.stored import below
from policy_accel.models import build_denoiser

SECRET = "raise SystemExit('the source inside was run')"
BLOCK = {
    "norm_in": "norm0",
    "conv_in": "conv0",
    "embedding": "affine",
    "norm_out": "norm1",
    "conv_out": "conv1",
    "residual": "skip",
    "attention.norm": "norm2",
    "attention.qkv": "qkv",
    "attention.out": "proj",
}


def network(config: Any, *, resolution: int = 8, seed: int = 0, **sizes: Any) -> nn.Module:
    """A network of ours whose every layer does something."""
    torch.manual_seed(seed)
    made = build_denoiser(config, channels=3, resolution=resolution, **sizes).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def edm_tensors(net: nn.Module, side: int) -> dict[str, Tensor]:
    """The tensors of a DDPM++ or ADM network of two resolutions with one block each, as EDM has them."""
    adm = hasattr(net.time, "mix")
    half = side // 2
    places = {
        "input": f"enc.{side}x{side}_conv",
        "down.0": f"enc.{side}x{side}_block0",
        "down.1": f"enc.{half}x{half}_down",
        "down.2": f"enc.{half}x{half}_block0",
        "middle.0": f"dec.{half}x{half}_in0",
        "middle.1": f"dec.{half}x{half}_in1",
        "up.0": f"dec.{half}x{half}_block0",
        "up.1": f"dec.{half}x{half}_block1",
        "up.2": f"dec.{side}x{side}_up",
        "up.3": f"dec.{side}x{side}_block0",
        "up.4": f"dec.{side}x{side}_block1",
        "norm": "out_norm" if adm else f"dec.{side}x{side}_aux_norm",
        "output": "out_conv" if adm else f"dec.{side}x{side}_aux_conv",
        "time.mix.0": "map_layer0",
        "time.mix.2": "map_layer1",
        "embed.0": "map_layer0",
        "embed.2": "map_layer1",
        "condition": "map_label",
        "condition.classes": "map_label",
        "condition.others": "map_augment",
    }
    found = {}
    for name, tensor in net.state_dict().items():
        layer, _, part = name.rpartition(".")
        block = ".".join(layer.split(".")[:2])
        inside = layer.removeprefix(block).strip(".")
        if layer in places:
            found[f"{places[layer]}.{part}"] = tensor
        else:
            if inside == "attention.qkv":  # theirs has q, k and v of each channel side by side
                tensor = torch.stack(tensor.chunk(3), dim=1).flatten(0, 1)
            if inside in ("attention.qkv", "attention.out") and part == "weight":
                tensor = tensor[:, :, None, None]
            found[f"{places[block]}.{BLOCK[inside]}.{part}"] = tensor
    found[f"enc.{half}x{half}_down.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.25)
    return found


class Persistent:
    """Pickled as NVIDIA's persistent classes are: with the source of its module, which unpickling would run."""

    def __init__(self, name: str, **state: Any) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": SECRET, "class_name": name, "state": state}

    def __reduce__(self) -> Any:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def write_edm(path: Path, tensors: dict[str, Tensor], *, kind: str = "EDMPrecond", **kept: Any) -> Path:
    """A network-snapshot of EDM's training."""
    model = module_of("SongUNet", tensors, label_dropout=0.1)
    net = Persistent(kind, _parameters={}, _buffers={}, _modules={"model": model}, **kept)
    return pickled(path, {"ema": net, "loss_fn": Persistent("EDMLoss", P_mean=-1.2), "augment_pipe": None})


def pickled(path: Path, content: Any) -> Path:
    """A file of `content` with persistent objects in it."""
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    theirs = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": module}
    with mock.patch.dict(sys.modules, theirs):
        path.write_bytes(pickle.dumps(content))
    return path


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("unpickled")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def module_of(name: str, tensors: dict[str, Tensor], **kept: Any) -> Persistent:
    """A tree of modules of which the tensors have these names."""
    own = {key: nn.Parameter(tensor) for key, tensor in tensors.items() if "." not in key}
    parts = dict.fromkeys(key.partition(".")[0] for key in tensors if "." in key)
    modules = {part: module_of("Part", below(tensors, f"{part}.")) for part in parts}
    return Persistent(name, _parameters=own, _buffers={}, _modules=modules, **kept)
