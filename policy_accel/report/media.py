"""Films and pictures of runs, inside of the page, up to a number of bytes; what is left out is said."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policy_accel.files import explained
from policy_accel.parsing import is_number
from policy_accel.report.charts import shown
from policy_accel.report.runs import ReportedRun, arms_of, of_arm

FILM_BYTES, PICTURE_BYTES = 8_000_000, 6_000_000
FILMS, PICTURES = 24, 48
STEPS_SHOWN = 6
PNG = b"\x89PNG\r\n\x1a\n"
H264 = b"avc1"


@dataclass(frozen=True)
class Medium:
    """A film or a picture.

    Attributes:
        arm, seed: of its run.
        label: what stands below it.
        description: for those who do not see it.
        source: its content as a data: address.
        width, height: of a picture, px; 0 for a film.
    """

    arm: str
    seed: str
    label: str
    description: str
    source: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Group:
    """Media that are looked at side by side; `of_one`: all are of one run, which the title names."""

    title: str
    media: list[Medium]
    of_one: bool = False


@dataclass(frozen=True)
class Gallery:
    """Groups of media, and a sentence on what is not among them ("" when nothing is missing)."""

    groups: list[Group]
    left_out: str = ""


class Budget:
    """So many files and bytes.

    Args:
        files, size: at most; bytes before they grow by a third as base64.
    """

    def __init__(self, files: int, size: int) -> None:
        self.files, self.size, self.refused, self.unusable = files, size, 0, 0

    def take(self, path: Path, kind: str, marks: bytes) -> str | None:
        """The file as a data: address; None when it is too much, is a link, or is not of that kind."""
        with explained(path, "read"):
            if path.is_symlink() or not path.is_file():
                self.unusable += 1
                return None
            size = path.stat().st_size
            if self.files < 1 or size > self.size:
                self.refused += 1
                return None
            content = path.read_bytes()
        if marks not in content:
            self.unusable += 1
            return None
        self.files, self.size = self.files - 1, self.size - size
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    def said(self, what: str, needed: str) -> str:
        """What was left out."""
        parts = []
        if self.refused:
            parts.append(f"{self.refused} {what} are left out, so that the file stays small")
        if self.unusable:
            parts.append(f"{self.unusable} are left out because they are links or {needed}")
        return f"{'; '.join(parts)}." if parts else ""


def rollouts(runs: Sequence[ReportedRun]) -> Gallery:
    """The filmed episodes, those of one evaluation seed side by side; the first training seed of each arm first."""
    films: dict[int, list[tuple[ReportedRun, Path]]] = {}
    for run in runs:
        for path in (run.run_dir / "videos").glob("*.mp4"):
            if path.stem.isdecimal():
                films.setdefault(int(path.stem), []).append((run, path))
    episodes = sorted(films, key=lambda episode: (-len(films[episode]), episode))
    turn = {id(run): number for arm in arms_of(runs) for number, run in enumerate(of_arm(runs, arm))}
    budget, taken = Budget(FILMS, FILM_BYTES), dict[int, list[Medium]]()
    order = [
        (turn[id(run)], episodes.index(episode), run, path) for episode in episodes for run, path in films[episode]
    ]
    for _, place, run, path in sorted(order, key=lambda film: film[:2]):
        source = budget.take(path, "video/mp4", H264)
        if source is not None:
            label = _episode_label(run, episodes[place])
            said = f"Film of episode {episodes[place]}, {run.arm}, training seed {run.seed}{label and f': {label}'}"
            taken.setdefault(episodes[place], []).append(Medium(run.arm, run.seed, label, said, source))
    arms = arms_of(runs)
    groups = [
        Group(f"Episode {episode}", sorted(taken[episode], key=lambda medium: arms.index(medium.arm)))
        for episode in episodes
        if episode in taken
    ]
    return Gallery(groups, budget.said("films", "not H.264"))


def _episode_label(run: ReportedRun, episode: int) -> str:
    """How the filmed episode ended, by the latest score."""
    for row in run.evaluation.get("episodes") or []:
        if isinstance(row, dict) and row.get("seed") == episode and is_number(row.get("score")):
            return f"score {shown(row['score'])}{', success' if row.get('success') is True else ''}"
    return ""


def sample_grids(runs: Sequence[ReportedRun]) -> Gallery:
    """Grids of generated images over training, a row for each run; the first training seed of each arm first."""
    turn = {id(run): number for arm in arms_of(runs) for number, run in enumerate(of_arm(runs, arm))}
    budget, groups, skipped = Budget(PICTURES, PICTURE_BYTES), list[Group](), 0
    for run in sorted(runs, key=lambda run: turn[id(run)]):
        steps = sorted(
            int(path.stem) for path in (run.run_dir / "samples").glob("*.png") if re.fullmatch(r"\d{8,}", path.stem)
        )
        chosen = spread(steps, STEPS_SHOWN)
        skipped += len(steps) - len(chosen)
        media = []
        for step in chosen:
            path = run.run_dir / "samples" / f"{step:08d}.png"
            source = budget.take(path, "image/png", PNG)
            if source is not None:
                said = f"Images that {run.arm}, training seed {run.seed}, generates after {step:,} updates"
                width, height = png_size(path)
                media.append(Medium(run.arm, run.seed, f"{step:,} updates", said, source, width, height))
        if media:
            groups.append(Group(f"{run.arm}, training seed {run.seed}", media, of_one=True))
    said = budget.said("grids", "no PNG")
    if skipped:
        said = f"{skipped} grids of updates between these are left out. {said}".strip()
    return Gallery(groups, said)


def forming_films(runs: Sequence[ReportedRun]) -> Gallery:
    """How a grid of images forms from noise, a film for each run that made one."""
    budget, media = Budget(8, FILM_BYTES), []
    for run in runs:
        path = run.run_dir / "samples" / "forming.mp4"
        if path.exists() and (source := budget.take(path, "video/mp4", H264)):
            said = f"Film of images forming from noise, {run.arm}, training seed {run.seed}"
            media.append(Medium(run.arm, run.seed, "", said, source))
    return Gallery([Group("From noise to images", media)] if media else [], budget.said("films", "not H.264"))


def png_size(path: Path) -> tuple[int, int]:
    """Width and height that a PNG says it has, px."""
    with open(path, "rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most `most` of the values, evenly over their places, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
