"""Networks of EDM2 (Karras et al. 2024): the published edm2-img512-*.pkl and edm2-img64-*.pkl, and the snapshots of its
training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_accel.data.images.encoding import EDM2 as LATENTS
from policy_accel.foreign.stored import State, shape_of
from policy_accel.images.foreign.edm_parts import ordered, our_layers, queries_first
from policy_accel.images.foreign.pickles import attributes, state_dict
from policy_accel.images.foreign.stored import ForeignImages
from policy_accel.models.images.edm2 import BOUND, HALF, RESIDUAL

EDM2 = "Precond"
"""Its network, with what brings inputs and outputs to unit deviation."""
STEPS = 32
"""Of the published sampling."""
PIXELS, AUTOENCODER = "StandardRGBEncoder", "StabilityVAEEncoder"
OF_AUTOENCODER = {"vae_name", "batch_size"}
"""What leaves the latents' deviation at that of `LATENTS`."""
OF_NETWORK: dict[str, Any] = {"label_balance": HALF, "concat_balance": HALF}
OF_BLOCK: dict[str, Any] = {
    "res_balance": RESIDUAL,
    "attn_balance": RESIDUAL,
    "clip_act": BOUND,
    "resample_filter": [1, 1],
}
"""What a network or a block keeps, and what it is in ours."""
BLOCK = {
    "emb_gain": "gain",
    "conv_res0.weight": "conv_in.weight",
    "emb_linear.weight": "embedding.weight",
    "conv_res1.weight": "conv_out.weight",
    "conv_skip.weight": "residual.weight",
    "attn_qkv.weight": "qkv.weight",
    "attn_proj.weight": "out.weight",
}
OUTSIDE = {
    "unet.out_gain": "gain",
    "unet.out_conv.weight": "output.weight",
    "unet.emb_fourier.freqs": "fourier.frequencies",
    "unet.emb_fourier.phases": "fourier.phases",
    "unet.emb_noise.weight": "time.weight",
    "unet.emb_label.weight": "condition.weight",
    "logvar_fourier.freqs": "of_uncertainty.0.frequencies",
    "logvar_fourier.phases": "of_uncertainty.0.phases",
    "logvar_linear.weight": "of_uncertainty.1.weight",
}


def read_edm2(path: Path, content: Mapping[str, Any]) -> ForeignImages:
    """The averaged network in what a file pickled.

    Raises:
        ValueError: a network or latents that ours does not have.
    """
    network = content["ema"]
    state, kept = state_dict(network), attributes(network)
    unet = attributes(kept["_modules"]["unet"])
    of_encoder, of_decoder = (attributes(unet["_modules"][way])["_modules"] for way in ("enc", "dec"))
    encoder, decoder = ordered(of_encoder, finest=True), ordered(of_decoder, finest=False)
    blocks = [attributes(part) for part in (*map(of_encoder.get, encoder[1:]), *of_decoder.values())]
    for place, expected in [(unet, OF_NETWORK), *((block, OF_BLOCK) for block in blocks)]:
        for name, ours in expected.items():
            if place[name] != ours:
                raise ValueError(f"its {name}={place[name]} is not {ours}, which our network has")
    side = int(encoder[0].partition("x")[0])
    latents = _latents(content.get("encoder"))
    return ForeignImages(
        path,
        "EDM2",
        (shape_of(state, f"unet.enc.{encoder[0]}.weight")[1] - 1, side, side),
        shape_of(state, "unet.emb_label.weight")[1] if "unet.emb_label.weight" in state else 0,
        {
            "model": _settings(state, encoder, blocks),
            "diffusion": {"family": "edm", "target": "edm", "sigma_data": float(kept["sigma_data"])},
            "sampling": {"sampler": "heun", "steps": STEPS, "clip_sample": None},
        },
        lambda: _by_our_names(state, our_layers(encoder, decoder)),
        latents=latents,
        encoding=LATENTS if latents else None,
    )


def _latents(encoder: Any) -> bool:
    """Whether it draws latents, of Stable Diffusion's autoencoder."""
    if encoder is None or encoder.name == PIXELS:
        return False
    said = encoder.state.get("_init_kwargs") or {}
    if encoder.name != AUTOENCODER or encoder.state.get("_init_args") or not said.keys() <= OF_AUTOENCODER:
        raise ValueError(f"its images are made by {encoder.name}({said}), which is none of {PIXELS}, {AUTOENCODER}()")
    return True


def _settings(state: State, encoder: list[str], blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Our settings from names, shapes and what the blocks keep."""
    sides = sorted({int(part.partition("x")[0]) for part in encoder}, reverse=True)
    widths = [shape_of(state, f"unet.enc.{side}x{side}_block0.conv_res0.weight")[0] for side in sides]
    first = widths[0]
    if shape_of(state, "unet.emb_noise.weight") != (max(widths), first) or any(width % first for width in widths):
        raise ValueError("its widths are no multiples of its first as ours are")
    attending = next(block for block in blocks if block["num_heads"])
    return {
        "name": "edm2",
        "channels": first,
        "multipliers": [width // first for width in widths],
        "blocks": sum("_block" in part and part.startswith(f"{sides[0]}x") for part in encoder),
        "attention_resolutions": [side for side in sides if f"unet.enc.{side}x{side}_block0.attn_qkv.weight" in state],
        "dropout": float(attending["dropout"]),
        "head_channels": attending["out_channels"] // attending["num_heads"],
        "uncertainty": shape_of(state, "logvar_fourier.freqs")[0],
    }


def _by_our_names(state: State, layers: Mapping[str, str]) -> State:
    found = {}
    for name, tensor in state.items():
        way, _, rest = name.removeprefix("unet.").partition(".")
        part, _, inside = rest.partition(".")
        block = layers.get(f"{way}.{part}")
        if name in OUTSIDE:
            found[OUTSIDE[name]] = tensor.float()
        elif block == "input":
            found["input.weight"] = tensor.float()
        elif block is not None and inside in BLOCK:
            found[f"{block}.{BLOCK[inside]}"] = queries_first(tensor.float()) if "qkv" in inside else tensor.float()
        else:
            raise ValueError(f"its network has {name}, which ours does not have")
    return found
