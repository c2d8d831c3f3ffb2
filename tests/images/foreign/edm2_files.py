"""Snapshots as EDM2's training writes them, made of networks of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .files import Persistent, module_of, pickled

OUTSIDE = {
    "gain": "unet.out_gain",
    "output.weight": "unet.out_conv.weight",
    "input.weight": "unet.enc.8x8_conv.weight",
    "fourier.frequencies": "unet.emb_fourier.freqs",
    "fourier.phases": "unet.emb_fourier.phases",
    "time.weight": "unet.emb_noise.weight",
    "condition.weight": "unet.emb_label.weight",
    "of_uncertainty.0.frequencies": "logvar_fourier.freqs",
    "of_uncertainty.0.phases": "logvar_fourier.phases",
    "of_uncertainty.1.weight": "logvar_linear.weight",
}
PLACES = {
    "down.0": "enc.8x8_block0",
    "down.1": "enc.4x4_down",
    "down.2": "enc.4x4_block0",
    "middle.0": "dec.4x4_in0",
    "middle.1": "dec.4x4_in1",
    "up.0": "dec.4x4_block0",
    "up.1": "dec.4x4_block1",
    "up.2": "dec.8x8_up",
    "up.3": "dec.8x8_block0",
    "up.4": "dec.8x8_block1",
}
BLOCK = {
    "gain": "emb_gain",
    "conv_in.weight": "conv_res0.weight",
    "embedding.weight": "emb_linear.weight",
    "conv_out.weight": "conv_res1.weight",
    "residual.weight": "conv_skip.weight",
    "qkv.weight": "attn_qkv.weight",
    "out.weight": "attn_proj.weight",
}
KEPT = {"res_balance": 0.3, "attn_balance": 0.3, "clip_act": 256, "resample_filter": [1, 1], "dropout": 0.1}


def edm2_tensors(net: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network of 8 pixels, two resolutions and one block each, as EDM2 has them: in half precision."""
    found = {}
    for name, tensor in net.state_dict().items():
        block = ".".join(name.split(".")[:2])
        theirs = OUTSIDE.get(name) or f"unet.{PLACES[block]}.{BLOCK[name.removeprefix(f'{block}.')]}"
        if theirs.endswith("attn_qkv.weight"):  # theirs has q, k and v of each channel side by side
            tensor = torch.stack(tensor.chunk(3), dim=1).flatten(0, 1)
        found[theirs] = tensor.half()
    return found


def write_edm2(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    encoder: str = "StandardRGBEncoder",
    told: dict[str, Any] | None = None,
    sigma_data: float = 0.5,
    **changed: Any,
) -> Path:
    """A snapshot of these tensors.

    Args:
        path: of the file.
        tensors: by EDM2's names.
        encoder: class of what makes images of what the network draws.
        told: its arguments.
        sigma_data: of the preconditioning.
        changed: what every block keeps in place of `KEPT`.
    """
    network = module_of("Precond", tensors, sigma_data=sigma_data, use_fp16=True)
    unet = _kept(network)["_modules"]["unet"]
    _kept(unet).update(label_balance=0.5, concat_balance=0.5)
    for way in ("enc", "dec"):
        for part in _kept(_kept(unet)["_modules"][way])["_modules"].values():
            inside = _kept(part)["_modules"]
            if "conv_res1" in inside:
                outputs = len(_kept(inside["conv_res1"])["_parameters"]["weight"])
                heads = outputs // 8 if "attn_qkv" in inside else 0
                _kept(part).update({**KEPT, **changed}, out_channels=outputs, num_heads=heads)
    made = Persistent(encoder, _init_args=(), _init_kwargs=told or {})
    return pickled(path, {"encoder": made, "dataset_kwargs": {"path": "images.zip"}, "loss_fn": None, "ema": network})


def _kept(module: Persistent) -> dict[str, Any]:
    state: dict[str, Any] = module.meta["state"]
    return state
