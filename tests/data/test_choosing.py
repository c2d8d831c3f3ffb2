"""Episodes chosen, left out and gathered, whatever the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_accel.data import Episodes, MemoryReader, read_episodes, write_episodes
from policy_accel.data.episodes import compare_rows, empty_episodes
from policy_accel.data.formats.base import check_keys
from policy_accel.data.inspect import inspect_reader
from policy_accel.data.readers import chosen_episodes, gather, without_unreadable
from policy_accel.errors import UserError


def reader() -> MemoryReader:
    """Five episodes of two steps, whose action tells their number."""
    arrays = {"action": np.repeat(np.arange(5.0), 2)[:, None], "other": np.zeros((10, 1))}
    return MemoryReader(Episodes(arrays, np.arange(2, 11, 2), "made"))


def numbers(chosen: Any) -> list[int]:
    return [int(chosen.read(episode)["action"][0, 0]) for episode in range(len(chosen.episode_ends))]


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [(None, [0, 1, 2, 3, 4]), ([3, 0], [3, 0]), (["1:3", 4], [1, 2, 4]), ([":2"], [0, 1]), (["3:", "0"], [3, 4, 0])],
)
def test_episodes_by_number(episodes: Any, expected: list[int]) -> None:
    assert numbers(chosen_episodes(reader(), episodes)) == expected


@pytest.mark.parametrize(
    ("episodes", "words"),
    [
        ([5], "episodes names 5; there are 5, 0 to 4, and ranges as 0:5."),
        (["3:7"], "episodes names 3:7; there are 5"),
        ([-1], "episodes names -1; there are 5, 0 to 4, and ranges as 0:5."),
        ([1.5], "episodes names 1.5;"),
        ([], "episodes=[] names none, or one twice; give each"),
        ([1, "0:3"], "episodes=[1, '0:3'] names none, or one twice"),
    ],
)
def test_episodes_that_there_are_not(episodes: Any, words: str) -> None:
    with pytest.raises(UserError, match=r"^made: ") as error:
        chosen_episodes(reader(), episodes)
    assert words in str(error.value)


def test_episodes_found_bad_when_read_are_skipped() -> None:
    made = reader()
    made.episodes.arrays["action"][5] = np.nan
    made.episodes.arrays["other"][9] = np.inf
    assert numbers(without_unreadable(chosen_episodes(made, ["1:5"]), ["action"])) == [1, 3, 4]
    (remark,) = made.remarks
    assert remark.startswith("episode 2 is left out: data/action holds NaN at step 5 (episode 2, its step 1); repair")
    assert numbers(without_unreadable(made, None)) == [0, 1, 3]


def test_what_is_left_out_is_refused_when_it_is_asked_for() -> None:
    made = reader()
    made.left_out["info"] = "info holds <U3, which are not numbers; store it as numbers."
    check_keys(made, ["action"])
    with pytest.raises(UserError, match="made: 'info' cannot be used: info holds <U3"):
        gather(chosen_episodes(made, [1]), ["action", "info"])


def test_arrays_of_another_length() -> None:
    ends = np.array([4, 10])
    left_out, faults = compare_rows({"data/action": 10, "data/state": 9}, ends)
    assert list(left_out) == ["data/state"]
    assert "9 rows and the episodes have 10 steps" in left_out["data/state"]
    assert not faults
    left_out, faults = compare_rows({"data/action": 9, "data/state": 9}, ends)
    assert (left_out, list(faults)) == ({}, [1])
    for rows in ({"a": 9, "b": 8}, {"a": 11}):
        with pytest.raises(ValueError, match="stops at step 10, but the data has other rows"):
            compare_rows(rows, ends)
    assert list(empty_episodes(np.array([0, 4, 4, 7]))) == [0, 2]


def test_more_than_the_memory_is_not_allocated() -> None:
    made = reader()
    made.episode_ends = np.array([10**13])
    with pytest.raises(UserError, match=r"made: the data takes 160,000\.0 GB of memory"):
        gather(made)


@pytest.mark.parametrize("filters", [3, "train", {"train": 1}, [["train"], 3], None])
def test_filters_that_are_none(tmp_path: Path, filters: Any) -> None:
    """Facts are whatever a file says; those of an episode come back as they were."""
    facts = ({"filters": filters}, {"filters": ["train", 3]})
    made = MemoryReader(Episodes({"action": np.zeros((4, 1))}, np.array([2, 4]), "made", {}, facts))
    assert len(chosen_episodes(made, None, filter_key="train").episode_ends) == 1
    assert "  filters: train (1) episodes" in inspect_reader(made).text
    write_episodes(tmp_path / "x.hdf5", made, "robomimic")
    assert read_episodes(tmp_path / "x.hdf5").episode_metadata == facts
    assert len(read_episodes(tmp_path / "x.hdf5", filter_key="train")) == 1
