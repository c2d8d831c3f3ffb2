"""The parts of EDM's and EDM2's U-Nets, by the names that both give them, in the order of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

PLACES = {"conv": 0, "down": 0, "up": 0, "in": 0, "aux_residual": 1, "block": 2, "aux_norm": 99, "aux_conv": 100}
"""Where a part stands among those of its resolution."""


def ordered(state: Iterable[str], *, finest: bool) -> list[str]:
    """The parts of an encoder (`finest` first) or a decoder, in the order in which they act.

    Raises:
        ValueError: one that ours does not have.
    """
    parts = {name.partition(".")[0] for name in state}
    return sorted(parts, key=lambda part: _place(part, -1 if finest else 1))


def _place(part: str, sign: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x\1_([a-z_]*)(\d*)", part)
    if found is None or found[2] not in PLACES:
        raise ValueError(f"its network has a part {part}, which ours does not have")
    return sign * int(found[1]), PLACES[found[2]] + int(found[3] or 0)


def our_layers(encoder: list[str], decoder: list[str]) -> dict[str, str]:
    """Parts of an encoder and a decoder, in order and without those that are beside them -> our layers."""
    layers = {f"enc.{encoder[0]}": "input"}
    layers |= {f"enc.{part}": f"down.{place}" for place, part in enumerate(encoder[1:])}
    layers |= {f"dec.{part}": f"middle.{place}" for place, part in enumerate(decoder[:2])}
    return layers | {f"dec.{part}": f"up.{place}" for place, part in enumerate(decoder[2:])}


def queries_first(tensor: Tensor) -> Tensor:
    """Rows that are a query, a key and a value of each channel as ours: all queries, all keys, all values."""
    ours: Tensor = tensor.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    return ours
