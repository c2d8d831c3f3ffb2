"""Under which protocol a number is measured: how many draws of images, of which classes, and which draw counts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PUBLISHED_IMAGES = 50_000
"""Images of each draw in the literature."""


@dataclass(frozen=True)
class Protocol:
    """How images are drawn to be measured.

    Attributes:
        name: of the setting.
        draws: how many times the images are drawn; draw d has those numbered d n to (d + 1) n - 1.
        even_classes: whether all classes are asked for equally often; else as often as in the training images.
    """

    name: str
    draws: int
    even_classes: bool

    def numbers(self, count: int) -> list[range]:
        """The numbers of the images of each draw of `count`."""
        return [range(draw * count, (draw + 1) * count) for draw in range(self.draws)]


PROTOCOLS = {
    found.name: found
    for found in (
        Protocol("plain", 1, even_classes=False),
        Protocol("edm", 3, even_classes=True),  # Karras et al. 2022, appendix F.1
    )
}


def is_frechet(measure: str) -> bool:
    """Whether it is the FID or a distance of its kind on other features."""
    return measure == "fid" or measure.startswith("fd_")


def of_draws(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The measures of several draws as one result: of Fréchet distances the lowest, as EDM reports them, else the mean.

    Every measure then also has "draws", "counts" (lowest or mean, as its value is), "mean" and "range" [lowest,
    highest]; that of a single draw stays as it is.
    """
    if len(results) == 1:
        return results[0]
    found = {}
    for name, first in results[0].items():
        values = [result[name]["value"] for result in results]
        mean, ends = statistics.fmean(values), [min(values), max(values)]
        counts, value = ("lowest", ends[0]) if is_frechet(name) else ("mean", mean)
        found[name] = {**first, "value": value, "draws": values, "counts": counts, "mean": mean, "range": ends}
    return found


def described(protocol: Protocol, count: int, *, seed: int, conditional: bool, against: str) -> str:
    """One line that says how a number came about: `count` images of each draw, `against` what they were measured."""
    numbers = ", ".join(f"{draw.start:,} to {draw.stop - 1:,}" for draw in protocol.numbers(count))
    draws = "one draw" if protocol.draws == 1 else f"{protocol.draws} draws"
    parts = [f"{draws} of {count:,} images ({numbers} of seed {seed})"]
    if conditional:
        parts.append("classes equally often" if protocol.even_classes else "classes as often as in training")
    parts.append(against)
    if protocol.draws > 1:
        parts.append("of Fréchet distances the lowest draw, of other measures the mean")
    if protocol.name == "edm" and count != PUBLISHED_IMAGES:
        parts.append(f"published numbers have {PUBLISHED_IMAGES:,} images a draw")
    return f"protocol {protocol.name}: {'; '.join(parts)}"
