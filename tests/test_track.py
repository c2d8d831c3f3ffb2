from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.track import Track, replaced, track, track_of_run

TRACKS = [ROBOT, IMAGES]


@pytest.mark.parametrize("one", TRACKS, ids=lambda one: one.name)
def test_a_track_is_found_by_its_name(one: Track[Any]) -> None:
    assert track(one.name) is one
    with pytest.raises(UserError, match="track 'robots' is unknown; did you mean 'robot'"):
        track("robots")


@pytest.mark.parametrize("one", TRACKS, ids=lambda one: one.name)
def test_a_recorded_configuration_is_read_as_it_was(one: Track[Any], tmp_path: Path) -> None:
    config = one.config([f"recipe={one.demo}", "method=immiscible_knn", "acceleration.noise.candidates=7", "seed=3"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(one.record(config)))
    assert track_of_run(tmp_path) is one
    assert one.read(tmp_path) == config


@pytest.mark.parametrize(("one", "other"), [TRACKS, TRACKS[::-1]], ids=["robot", "images"])
def test_a_run_of_another_track_is_refused(one: Track[Any], other: Track[Any], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"track: {other.name}\n")
    with pytest.raises(UserError, match=f"is a run of {other.source.trains}; give one of {one.source.trains}."):
        one.read(tmp_path)


def test_what_is_given_replaces_settings() -> None:
    sampling = ROBOT.config([]).sampling
    changed = replaced(sampling, steps=3, sampler=None)
    assert (changed.steps, changed.sampler) == (3, sampling.sampler)
