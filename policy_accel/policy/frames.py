"""Frames uint8 [H, W, C] made of pictures in the forms that people have, alike for data, environments and robots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WHOLE = "frames are whole numbers from 0 to 255, or floats from 0 to 1"


def forms_of(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes in which a frame [H, W, C] may come: so, channels first, or without an axis for one channel."""
    height, width, channels = shape
    return [(height, width, channels), (channels, height, width), *([(height, width)] if channels == 1 else [])]


def as_frames(
    values: np.ndarray, shape: Sequence[int], span: Sequence[float] | None = None, *, white: int | None = None
) -> np.ndarray:
    """Pictures [N, *S] as frames uint8 [N, H, W, C].

    Args:
        values: numbers, S being one of `forms_of(shape)`.
        shape: (H, W, C).
        span: values that become 0 and 255, as those of depths; what lies outside counts as the nearer end, and what is
            not finite as the first. None for `WHOLE`, which are checked.
        white: 1 or 255, what white is in floats without a span; None to tell by each picture whether it exceeds 1.

    Raises:
        ValueError: another shape; values that are no frames.
    """
    if values.shape[1:] not in forms_of(shape):
        raise ValueError(
            f"is {values.dtype} of shape {values.shape[1:]}; this policy takes uint8 of shape {tuple(shape)}"
        )
    if values.shape[1:] == forms_of(shape)[1] != tuple(shape):
        values = np.moveaxis(values, 1, -1)
    values = values.reshape(-1, *shape)
    if span is not None:
        low, high = span
        share = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=low, neginf=low) - low) / (high - low)
        return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    with np.errstate(invalid="ignore"):  # of NaN, found by the comparison
        converted = values.astype(np.uint8)
        wrong = converted != values
        if values.dtype.kind == "f" and values.size:
            tops = values.max(axis=(1, 2, 3), keepdims=True)
            unit = tops <= 1 if white is None else np.full(tops.shape, white == 1)
            converted = np.where(unit, np.round(values * np.float32(255)).astype(np.uint8), converted)
            wrong = np.where(unit, ~((values >= 0) & (values <= 1)), wrong)
    if wrong.any():
        raise ValueError(f"holds {values[wrong][0]}, and {WHOLE}")
    return converted
