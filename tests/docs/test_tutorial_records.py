"""The numbers of the tutorials are those of the records that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pages import page as read
from support.pages import result
from support.pages import sentences as on_one_line

from policy_accel.commands.demo import evaluations_table

Record = dict[str, Any]
SAID: list[tuple[str, str, Callable[[Record], list[str]]]] = []
"""Page, record, and what the page has to say with the record's numbers."""


def said(page: str, record: str) -> Callable[[Callable[[Record], list[str]]], None]:
    def add(sentences: Callable[[Record], list[str]]) -> None:
        SAID.append((page, record, sentences))

    return add


def interval(row: Record, digits: int = 2, of: str = "score") -> str:
    """A score or rate of success with its interval, as the pages write it."""
    value = row["success_rate" if of == "success" else of]
    low, high = row[f"{of}_interval"]
    return f"{value:.{digits}f} [{low:.{min(digits, 2)}f}, {high:.2f}]"


def the(rows: list[Record], **wanted: Any) -> Record:
    (found,) = (row for row in rows if wanted.items() <= row.items())
    return found


@said("push_t", "demo_cpu")
def _(record: Record) -> list[str]:
    low, high = record["scores"][1]["score_interval"]
    rate = f"Trained {record['updates']} updates in {record['training_seconds']:.0f} s"
    return [
        f"training took {record['training_seconds']:.0f} s",
        f"{rate} ({record['updates_per_second']} updates/s)",
        f"scored {record['scores'][1]['score']:.3f} [{low:.3f}, {high:.3f}]",
    ]


@said("push_t", "pusht_speedrun_cpu")
def _(record: Record) -> list[str]:
    row = the(record["rungs"], rung="Muon, 1,500 updates (recipe=fast)")
    return [f"{interval(row, 3)} over {record['episodes']} starts, after {row['cpu_seconds']:.0f} CPU-seconds"]


@said("cameras", "camera_times_cpu")
def _(record: Record) -> list[str]:
    update, changes = record["costs"]["64 x 1"]["cpu_milliseconds"], record["cpu_milliseconds_of_augmentation"]
    return [
        f"(64 samples) takes {update:.0f} ms",
        f"its 6,000 updates are {6000 * update / 60_000:.0f} minutes",
        f"takes {changes['brightness']:.0f} ms for 128 frames on one core, all colours {changes['all colours']:.0f}",
    ]


@said("cameras", "pusht_image_cpu")
def _(record: Record) -> list[str]:
    (score,) = record["scores"]
    assert score["success_rate"] == 0
    failed = f"with no success in {score['episodes']} episodes"
    return [f"after {record['updates']:,} updates and scored {interval(score)}, {failed}"]


@said("cameras", "pusht_speedrun_cpu")
def _(record: Record) -> list[str]:
    row = the(record["rungs"], rung="AdamW, 4,000 updates (recipe=small)")
    return [f"{row['score']:.2f} in {row['cpu_seconds']:.0f} CPU-seconds"]


@said("planning", "pointmaze_medium_planning_cpu")
def _(record: Record) -> list[str]:
    (score,) = record["scores"]
    return [
        f"({record['updates']:,} updates, {record['training_seconds']:.0f} s",
        f"{interval(score, of='success')} of {score['episodes']} drawn",
    ]


@said("planning", "pointmaze_medium_chunks_cpu")
def _(record: Record) -> list[str]:
    (score,) = record["scores"]
    return [f"{interval(score, of='success')} of {score['episodes']} goals after {record['updates']:,} updates"]


@said("on_your_robot", "robot_delay_cpu")
def _(record: Record) -> list[str]:
    late, none = (the(record["rows"], delay_ms=d, mode="async", joining="receding") for d in (200.0, 0.0))
    return [f"{interval(late, 3)}, and {interval(none, 3)} without"]


@said("images", "demo_images_cpu")
def _(record: Record) -> list[str]:
    measures = record["scores"][0]["measures"]
    got, real = ([f"{measures[name][of]:.3f}" for name in ("precision", "recall")] for of in ("value", "floor"))
    return [
        f"training took {record['training_seconds']:.0f} s",
        f"precision {got[0]} and recall {got[1]}, where real images have {real[0]} and {real[1]}",
    ]


@pytest.mark.parametrize(("page", "record", "sentences"), SAID, ids=[f"{page}-{record}" for page, record, _ in SAID])
def test_numbers_are_as_recorded(page: str, record: str, sentences: Callable[[Record], list[str]]) -> None:
    whole = on_one_line(read(f"tutorials/{page}"))
    assert f"benchmarks/results/{record}.json" in whole
    for sentence in sentences(result(record)):
        assert sentence in whole


def test_the_table_of_the_demo_is_as_recorded() -> None:
    scores = result("demo_cpu")["scores"]
    for line in evaluations_table([scores[0], *scores[2:]], Path("runs/demo"))[:-1]:
        assert f"\n{line}\n" in read("tutorials/push_t")
