"""diffusers' UNet2DModel as our U-Net of DDPM: a model's folder, or a pipeline's (google/ddpm-cifar10-32)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policy_accel.data.images.encoding import Encoding, encoding_of
from policy_accel.foreign.kinds import CONFIG, REMEDY
from policy_accel.foreign.stored import State, shape_of, whole_number
from policy_accel.foreign.tensor_file import TensorFile
from policy_accel.foreign.torch_zip import StoredTensor, TorchFile, shapes_of
from policy_accel.images.foreign.stored import ForeignImages
from policy_accel.images.foreign.unet2d_names import CLASSES, CONDITION, TIMES, layers, to_ours
from policy_accel.images.foreign.unet2d_process import read_process
from policy_accel.images.sets import STABLE_DIFFUSION_SCALE
from policy_accel.parsing import read_record

INDEX = "model_index.json"
AUTOENCODERS = ("vqvae", "vae")
"""Parts of a pipeline that make pixels of what its network draws."""
NULL_SHARE = 0.1
"""Of a network with a null class, which does not say how often it saw that."""
DEFAULTS = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [224, 448, 672, 896],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "dropout": 0.0,
    "num_class_embeds": None,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
}
"""Of UNet2DModel, where its config leaves them out."""
FIXED = {
    "act_fn": ("silu", "silu"),
    "add_attention": (True, True),
    "attn_norm_num_groups": (None, None),
    "center_input_sample": (False, False),
    "class_embed_type": (None, None),
    "downsample_type": ("conv", "conv"),
    "mid_block_scale_factor": (1, 1),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "resnet_time_scale_shift": ("default", "default"),
    "time_embedding_dim": (None, None),
    "time_embedding_type": ("positional", "positional"),
    "upsample_type": ("conv", "conv"),
}
"""Entry of a UNet2DModel's config -> its default, and what it is in the network of DDPM, which ours is."""
PADDED = {0: "below", 1: "around"}
"""Theirs, by which 0 is what the published network has: below and on the right alone."""
ATTENDS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}


def read_unet2d(path: Path) -> ForeignImages:
    """The network whose weights are in `path`, and the process of the scheduler beside it.

    Raises:
        UserError: a file that is missing or damaged.
        ValueError: a network or a process that ours does not have.
    """
    said = DEFAULTS | read_record(path.with_name(CONFIG), REMEDY)
    for name, (default, ours) in FIXED.items():
        if said.get(name, default) != ours:
            raise ValueError(f"its {name}={said.get(name, default)!r} is not {ours!r}, which the network of DDPM has")
    state, read = _opened(path)
    side = said["sample_size"]
    if side is None or (isinstance(side, list) and len(set(side)) != 1):
        raise ValueError(f"its sample_size={side} is no side of square images")
    side = whole_number("sample_size", side[0] if isinstance(side, list) else side)
    channels, outputs = shape_of(state, "conv_in.weight")[1], shape_of(state, "conv_out.weight")[0]
    settings, attended = _settings(said, side)
    names = layers(attended, settings["blocks"])
    embedded = shape_of(state, CLASSES)[0] if CLASSES in state else 0
    # What we export has a row of zeros behind its classes, the null class.
    null = embedded > 0 and not bool(read()[CLASSES][-1].any())
    process, differences = read_process(path)
    expected = 2 * channels if process["diffusion"].get("learn_sigma") else channels
    if outputs != expected:
        raise ValueError(f"it makes {outputs} channels of {channels}, and its scheduler takes {expected}")

    def weights() -> State:
        found = to_ours(read(), names)
        if said["flip_sin_to_cos"]:  # theirs embeds the time by cosines, then sines
            found[TIMES] = found[TIMES].roll(found[TIMES].shape[1] // 2, dims=1)
        if null:
            found[CONDITION] = found[CONDITION][:, :-1].contiguous()
        return {name: tensor.float() for name, tensor in found.items()}

    index = _index(path)
    classes = index.get("classes")
    names_told = tuple(map(str, classes)) if isinstance(classes, list) else ()
    encoding = _encoding(path, index)
    return ForeignImages(
        path,
        "diffusers",
        (channels, side, side),
        embedded - null,
        {"model": settings, "task": {"label_dropout": NULL_SHARE if null else 0.0}, **process},
        weights,
        latents=encoding is not None,
        encoding=encoding,
        names=names_told if len(names_told) == embedded - null else (),
        differences=differences,
    )


def _settings(said: Mapping[str, Any], side: int) -> tuple[dict[str, Any], list[bool]]:
    """Our settings of the network, and whether each resolution, finest first, has attention."""
    widths = [whole_number("block_out_channels", width) for width in said["block_out_channels"]]
    attended = [_attends(kind) for kind in said["down_block_types"]]
    if [_attends(kind) for kind in said["up_block_types"]] != attended[::-1] or len(attended) != len(widths):
        raise ValueError("its blocks on the way up do not have attention where those on the way down have it")
    if any(width % widths[0] for width in widths):
        raise ValueError(f"its block_out_channels={widths} are no multiples of the first")
    head, padding = said["attention_head_dim"], said["downsample_padding"]
    if padding not in PADDED:
        raise ValueError(f"its downsample_padding={padding} is none of ours, {', '.join(map(str, PADDED))}")
    shift = said["freq_shift"]
    if shift not in (0, 1):
        raise ValueError(f"its freq_shift={shift} is none of ours, 0 and 1")
    return {
        "name": "ddpm",
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": whole_number("layers_per_block", said["layers_per_block"]),
        "attention_resolutions": [side >> level for level, attends in enumerate(attended) if attends],
        "head_channels": None if head is None else whole_number("attention_head_dim", head),
        "groups": whole_number("norm_num_groups", said["norm_num_groups"]),
        "eps": float(said["norm_eps"]),
        "padding": PADDED[padding],
        "frequency_shift": int(shift),
        "dropout": float(said["dropout"]),
    }, attended


def _attends(kind: Any) -> bool:
    if kind not in ATTENDS:
        raise ValueError(f"its blocks of type {kind} are none of ours, {', '.join(ATTENDS)}")
    return ATTENDS[kind]


def _index(path: Path) -> dict[str, Any]:
    """What the index of its pipeline says; nothing where it is in none."""
    record = path.parent.parent / INDEX
    return read_record(record, REMEDY) if path.parent.name == "unet" and record.is_file() else {}


def _encoding(path: Path, index: Mapping[str, Any]) -> Encoding | None:
    """How the latents were made that a pipeline draws, our own or one with an autoencoder; None for pixels."""
    pipeline = path.parent.parent
    if index.get("latents") is not None:
        scale, shift = index["latents"]
        return encoding_of({"scale": scale, "shift": shift}, str(pipeline / INDEX))
    part = next((name for name in AUTOENCODERS if index.get(name) not in (None, [None, None])), None)
    if part is None:
        return None
    said = read_record(pipeline / part / CONFIG, REMEDY) if (pipeline / part / CONFIG).is_file() else {}
    return encoding_of({"scale": said.get("scaling_factor", STABLE_DIFFUSION_SCALE)}, str(pipeline / part / CONFIG))


def _opened(path: Path) -> tuple[State, Callable[[], State]]:
    """Empty tensors of the shapes in a file of weights, and what reads them."""
    if path.suffix == ".safetensors":
        tensors = TensorFile(path)
        return tensors.shapes(), tensors.read
    file = TorchFile.open(path)
    stored = {str(name): entry for name, entry in dict(file.content).items() if isinstance(entry, StoredTensor)}
    return shapes_of(stored), lambda: file.tensors(stored)
