"""Networks of DiT (Peebles & Xie 2023): the published DiT-XL-2-256x256.pt, and checkpoints of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_accel.foreign.stored import State, by_our_names, process_values, shape_of
from policy_accel.foreign.torch_zip import StoredTensor, TorchFile, shapes_of
from policy_accel.images.foreign.stored import ForeignImages

NAMES = (
    (r"^x_embedder\.proj\.", "input."),
    (r"^t_embedder\.mlp\.", "time.mix."),
    (r"^final_layer\.adaLN_modulation\.1\.", "modulation."),
    (r"^final_layer\.linear\.", "output."),
    (r"\.adaLN_modulation\.1\.", ".modulation."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attn\.proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Width of a published network -> its heads, which no tensor shows."""
TABLE, POSITION = "y_embedder.embedding_table.weight", "pos_embed"
STEPS = 250
LABEL_DROPOUT = 0.1


def read_dit(path: Path) -> ForeignImages:
    """The network in a .pt: averaged weights where there are some.

    Raises:
        UserError: it cannot be read.
        ValueError: a network of another kind, or with parts that ours does not have.
    """
    file = TorchFile.open(path)
    stored = _state_dict(file.content)
    shapes = shapes_of(stored)
    width, channels, patch, _ = shape_of(shapes, "x_embedder.proj.weight")
    tokens, rows = shape_of(shapes, POSITION)[1], shape_of(shapes, TABLE)[0]
    side = math.isqrt(tokens)
    outputs = shape_of(shapes, "final_layer.linear.weight")[0] // patch**2
    if side * side != tokens or outputs not in (channels, 2 * channels):
        raise ValueError(f"its network makes {outputs} channels of {channels}, in {tokens} patches")
    if width not in HEADS:
        raise ValueError(
            f"its width {width} is of no published DiT ({', '.join(map(str, HEADS))}), so that its heads are unknown"
        )
    process = process_values(
        timesteps=1000,
        schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction="epsilon",
        sampler="ddpm",
        steps=STEPS,
        clip=None,
    )
    process["sampling"]["spacing"] = "linspace"
    process["diffusion"]["learn_sigma"] = outputs == 2 * channels
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    settings = {
        "name": "dit",
        "patch": patch,
        "depth": depth,
        "width": width,
        "heads": HEADS[width],
        "mlp_ratio": shape_of(shapes, "blocks.0.mlp.fc1.weight")[0] // width,
    }
    return ForeignImages(
        path,
        "DiT",
        (channels, side * patch, side * patch),
        rows - 1,
        {"model": settings, "task": {"label_dropout": LABEL_DROPOUT}, **process},
        lambda: _by_our_names(file.tensors(stored)),
        latents=True,
    )


def _state_dict(content: Any) -> dict[str, StoredTensor]:
    for name in ("ema", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not the weights of a DiT; give its state_dict")
    found = {str(name): entry for name, entry in dict(content).items() if isinstance(entry, StoredTensor)}
    if TABLE not in found or POSITION not in found:
        raise ValueError(f"it is no DiT (it has no {TABLE}); EDM's networks are in .pkl files")
    return found


def _by_our_names(state: State) -> State:
    """The last row of the table is the null class, which has the zero condition here: the next bias takes it."""
    table = state.pop(TABLE).float()
    state.pop(POSITION)  # which ours computes
    found = {name: tensor.float() for name, tensor in by_our_names(state, NAMES).items()}
    null = table[-1]
    found["time.mix.2.bias"] = found["time.mix.2.bias"] + null
    found["condition.weight"] = (table[:-1] - null).T.contiguous()
    return found
