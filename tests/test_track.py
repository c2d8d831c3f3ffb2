from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.configuration import plain
from policy_accel.errors import UserError
from policy_accel.groups import defaults_of
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.track import Track, replaced, track, track_of_run
from policy_accel.training.run_directory import differences

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


WITHOUT_DATA = ["run_dir=run", "task.data=nowhere"]


@pytest.mark.parametrize(
    ("one", "overrides", "sentence"),
    [
        (ROBOT, ["task=pusht_state", "task.environment=Nope-v0"], "environment 'Nope-v0' cannot be made"),
        (ROBOT, ["task=custom", "task.observation=[a]", "task.action=b", "training.logging.wandb=offline"], "wandb"),
        (ROBOT, ["task=pusht_state", "policy.n_action_steps=90"], "policy.n_action_steps=90 is more than"),
        (ROBOT, ["task=pusht_state", "training.checkpoint.at=[0]"], "training.checkpoint.at"),
        (ROBOT, ["task=pusht_state", "run_dir=."], "is not empty and is not a run of ours"),
        (IMAGES, ["task=custom_images", "evaluation.metrics.inception=gone"], "inception=gone: is not a file"),
        (IMAGES, ["task=custom_images", "training.logging.tensorboard=true"], "tensorboard"),
        (ROBOT, ["task=pusht_state"], "nowhere: does not exist"),
    ],
)
def test_what_needs_no_data_is_refused_before_they_are_read(
    one: Track[Any],
    overrides: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None of them is there: where it is the settings that are wrong, that is what is said. Nothing is written."""
    (tmp_path / "mine").touch()
    monkeypatch.chdir(tmp_path)
    for package in ("wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=sentence):
        one.train(one.config([*WITHOUT_DATA, *overrides]))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_run_of_other_settings_is_found_before_the_data_are_read(tmp_path: Path) -> None:
    config = ROBOT.config(["task=pusht_state", f"run_dir={tmp_path}", "task.data=nowhere"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(ROBOT.record(config)))
    (tmp_path / "checkpoints/00000001").mkdir(parents=True)
    config.seed, config.init_from = config.seed + 1, "other"
    with pytest.raises(UserError, match=r"another configuration \(init_from: null -> other; seed: 42 -> 43\)"):
        ROBOT.train(config)


@pytest.mark.parametrize("key", ["policy.horizon", "task.padding", "evaluation.slots", "model.film_scale", "seed"])
def test_a_key_that_an_earlier_version_lacked_counts_as_its_default(key: str) -> None:
    new = ROBOT.record(ROBOT.config([]))
    old = ROBOT.record(ROBOT.config([]))
    *path, name = key.split(".")
    section = reduce(lambda values, part: values[part], path, old)
    del section[name]
    defaults = plain(defaults_of(ROBOT.schema, new, ROBOT.name), resolve=False)
    assert differences(old, new, defaults) == []
    reduce(lambda values, part: values[part], path, new)[name] = 7
    assert [line.partition(":")[0] for line in differences(old, new, defaults)] == [key]
