"""Keys as pictures uint8 [H, W, C], however the file has them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, EpisodeView, Feature, check_keys, pieces
from policy_accel.errors import UserError, did_you_mean
from policy_accel.policy.frames import as_frames

CHANNELS = (1, 3, 4)


def picture_shape(feature: Feature, *, deep: bool = False) -> tuple[int, int, int] | None:
    """[H, W, C] of a step's value: as it is, with its channels behind, or with one channel (bytes, or where it is said
    to be `deep`); None for no picture."""
    match feature.shape:
        case _ if feature.dtype.kind not in "uif":
            return None
        case (height, width, channels) if channels in CHANNELS:
            return height, width, channels
        case (channels, height, width) if channels in CHANNELS:
            return height, width, channels
        case (height, width) if deep or feature.dtype == np.uint8:
            return height, width, 1
    return None


class PictureView(EpisodeView):
    """An open reader, which the view closes, of which some keys are seen as pictures uint8 [H, W, C].

    Pictures with their channels first, or without an axis of channels, are turned, and floats from 0 to 1 become 0 to
    255, with a warning. Whole numbers from 0 to 255 are taken as they are, whatever their type. `spans` tells of
    others, as depths, which values become 0 and 255, see `as_frames`.

    Raises:
        UserError: a key that there is not or that holds no pictures; as it is read, other values.
    """

    def __init__(
        self, reader: EpisodeReader, keys: Sequence[str], spans: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        known = [key for key, feature in reader.features.items() if picture_shape(feature) and len(feature.shape) > 2]
        for key in keys:
            if key not in reader.features and key not in reader.left_out and key not in reader.damaged:
                have = did_you_mean(key, known) if known else "there are no camera frames in it."
                raise UserError(f"{reader.source}: there is no camera '{key}'; {have}")
        check_keys(reader, keys)
        super().__init__(reader)
        self._white: dict[str, int] = {}
        self._spans = dict(spans or {})
        self._pictures = set(keys)
        for key in keys:
            feature = reader.features[key]
            shape = picture_shape(feature, deep=key in self._spans)
            if shape is None:
                remedy = f"cameras are: {', '.join(known)}" if known else "store frames so"
                if len(feature.shape) == 2 and feature.dtype.kind in "uif":
                    remedy = "for depths give their range in task.image_ranges"
                if len(feature.shape) < 2:
                    remedy = "name numbers in task.observation instead" + f"; {remedy}" * bool(known)
                raise UserError(
                    f"{reader.source}: {key} holds {feature.dtype} {list(feature.shape)} per step, which are no frames "
                    f"[H, W, 1, 3 or 4]; {remedy}."
                )
            if shape != feature.shape:
                has = "its channels first, which are moved last" if len(feature.shape) > 2 else "no axis of channels"
                warnings.warn(f"{reader.source}: {key} has {has}.", stacklevel=2)
            self.features[key] = Feature(shape, np.dtype(np.uint8))

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        found = super()._read(episode, keys, start, stop)
        for key in self._pictures.intersection(keys):
            span, unknown = self._spans.get(key), self.reader.features[key].dtype.kind == "f"
            white = self._is_white(key) if unknown and span is None else None
            try:
                found[key] = as_frames(found[key], self.features[key].shape, span, white=white)
            except ValueError as error:
                deep = found[key].dtype.kind == "u" and found[key].shape[-1] != 3
                remedy = "for depths give their range in task.image_ranges" if deep else "store them as uint8"
                raise UserError(f"{self.source}: {key} {error}; {remedy}.") from error
        return found

    def _is_white(self, key: str) -> int:
        """1 for floats that never exceed 1, which are looked through once, else 255."""
        if key not in self._white:
            largest = 0.0
            for episode in self.episodes:
                with suppress(UserError):  # reading that episode says so
                    for *_, values in pieces(self.reader, [key], [episode], finite=False):
                        largest = max(largest, float(np.fmax.reduce(values[key], axis=None, initial=0)))
            self._white[key] = 1 if 0 < largest <= 1 else 255
            if self._white[key] == 1:
                warnings.warn(f"{self.source}: {key} holds values from 0 to 1, which are read times 255.", stacklevel=2)
        return self._white[key]
