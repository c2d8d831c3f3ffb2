"""What a score of images is made of: a measure beside its floor, of so many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MadeOf:
    """What a score of images is made of.

    Attributes:
        measure: its name.
        better: "higher" or "lower", of the measure.
        images: how many were scored; None where the record, of an earlier version, does not say.
        real: how many the floor is of; None as well.
        dimension: of the features of a Fréchet distance, else 0.
    """

    measure: str
    better: str
    images: int | None
    real: int | None
    dimension: int


def made_of(evaluation: dict[str, Any]) -> MadeOf | None:
    """Of the record of an evaluation; None where it has no floor, or does not say.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is damaged.
    """
    name = evaluation.get("score_from")
    found = evaluation.get("measures", {}).get(name) or {}
    if found.get("floor") is None:
        return None
    counts = evaluation.get("score_images"), found.get("floor_samples")
    images, real = (None if count is None else int(count) for count in counts)
    return MadeOf(str(name), str(found["better"]), images, real, int(found.get("dimension", 0)))
