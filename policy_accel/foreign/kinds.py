"""Which files are models of other libraries. Telling takes no torch."""

from __future__ import annotations

import re
from pathlib import Path

from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.parsing import from_json, read_record

CONFIG = "config.json"
REMEDY = "get the folder again"
LARGEST_HEADER = 2**27
READERS = {
    "Diffusion Policy": "policy_accel.policy.foreign.diffusion_policy:read_checkpoint",
    "LeRobot": "policy_accel.policy.foreign.lerobot:read_lerobot",
    "EDM": "policy_accel.images.foreign.edm:read_edm",
    "DiT": "policy_accel.images.foreign.dit:read_dit",
    "diffusers": "policy_accel.images.foreign.unet2d:read_unet2d",
}
"""Library -> what reads a file of it."""
BY_SUFFIX = {".ckpt": "Diffusion Policy", ".pkl": "EDM", ".pt": "DiT"}
UNET2D, UNET2D_CLASS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"), "UNet2DModel"
EDM_NAME = re.compile(r"(model\.)?enc\.\d+x\d+_conv\.weight")


def library_of(path: Path) -> str | None:
    """The library that wrote a file: a checkpoint of Diffusion Policy (.ckpt), of EDM (.pkl, or its tensors as
    safetensors) or of DiT (.pt), or the weights in a folder of LeRobot's or of diffusers'; None for any other file."""
    if path.suffix in BY_SUFFIX:
        return BY_SUFFIX[path.suffix]
    config = _said(path.with_name(CONFIG)) if path.suffix in (".safetensors", ".bin") else {}
    if path.name in UNET2D and config.get("_class_name") == UNET2D_CLASS:
        return "diffusers"
    if path.suffix != ".safetensors":
        return None
    if "input_features" in config or "input_shapes" in config:
        return "LeRobot"
    return "EDM" if any(map(EDM_NAME.fullmatch, _names(path))) else None


def is_foreign(path: Path) -> bool:
    """Whether a library that is not ours wrote a file."""
    return library_of(path) is not None


def unet2d_file(folder: Path) -> Path | None:
    """The weights of the UNet2DModel in a folder of diffusers', which is its own or that of a pipeline; None where
    there is none."""
    for place in (folder / "unet", folder):
        if _said(place / CONFIG).get("_class_name") == UNET2D_CLASS:
            return next((place / name for name in UNET2D if (place / name).is_file()), None)
    return None


def _said(record: Path) -> dict[str, object]:
    """What a JSON file says; nothing where it is not there, or damaged."""
    if not record.is_file():
        return {}
    try:
        return read_record(record, REMEDY)
    except UserError:
        return {}


def _names(path: Path) -> list[str]:
    """Names of the tensors in a file of safetensors; none where it is damaged."""
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = from_json(file.read(size).decode()) if size <= LARGEST_HEADER else {}
    except (UserError, ValueError):
        return []
    return list(header) if isinstance(header, dict) else []
