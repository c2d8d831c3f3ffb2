"""What people type behind `key=`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.config_values import value_of

from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.quoting import quoted, unquoted
from policy_accel.typed_values import read_value

ODD = (
    *("my demos (final)", "lr=0.1,seed=3", "Schränke", "{v1}", "a[1]", "it's", 'say "hi"', "50%_$HOME", "a#b", "c:d"),
    *(
        "back\\slash",
        "-dash",
        "two\nlines",
        "a]b",
        "~tilde",
        "${nowhere}",
        "\\${seed}",
        " blank ",
        "null.zarr",
        "*?",
        "1e4",
    ),
    *("[a, b]", "{a: 1}", "true", "a\\'b", "'half", "'a' and 'b'", "100_000"),
)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("key", ["task.data", "run_dir", "encoder.weights", "label", "distillation.teacher"])
def test_a_string_is_what_was_typed(key: str, name: str) -> None:
    assert value_of(ROBOT.config([f"{key}={name}"]), key) == name


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("task.data='PATH'", "PATH"),
        ('task.data="it\'s"', "it's"),
        ("task.data='null'", "null"),
        ("run_dir=runs/${seed}-${label}", "runs/42-small"),
        ("training.steps=1e4", 10_000),
        ("training.steps=1_000", 1000),
        ("training.steps= 4000.0", 4000),
        ("training.optimizer.lr=1e-3", 1e-3),
        ("training.optimizer.lr=1", 1.0),
        ("task.padding=no", False),
        ("task.environment=", None),
        ("task.environment=null", None),
        ("task.max_train_episodes=None", None),
        ("task.max_train_episodes=1e1", 10),
        ("sampling.clip_sample=", None),
        ("sampling.times=null", None),
        ("sampling.times=[99, 2.5]", [99, 2.5]),
        ("task.observation=[joint pos, a[1:3], 'x,y', \"]\", it's]", ["joint pos", "a[1:3]", "x,y", "]", "it's"]),
        ("task.observation=state", ["state"]),
        ("task.observation=a,b[:2]", ["a", "b[:2]"]),
        ("task.images=[]", []),
        (
            "task.environment_options={a: 1, b: [x, {c: 2.5}], d: it's (1)}",
            {"a": 1, "b": ["x", {"c": 2.5}], "d": "it's (1)"},
        ),
        ("task.environment_options.a.b=x=1, 2", {"a": {"b": "x=1, 2"}}),
        ("task.environment_keys={observation.state: agent pos}", {"observation.state": "agent pos"}),
        ("task.environment_keys.observation.state=agent[0]", {"observation.state": "agent[0]"}),
        ("encoder.augmentation={shift: 4, hue: 0.1}", {"shift": 4, "hue": 0.1}),
    ],
)
def test_a_value_is_what_its_setting_wants(override: str, expected: Any) -> None:
    key = override.partition("=")[0]
    key = next((one for one in ("task.environment_options", "task.environment_keys") if key.startswith(one)), key)
    custom = ["task=custom", "task.data=x", "task.observation=[a]", "task.action=b"]
    found = value_of(ROBOT.config([*(other for other in custom if not other.startswith(f"{key}=")), override]), key)
    if key == "encoder.augmentation":
        found = {name: getattr(found, name) for name in expected}
    assert found == expected


def test_numbers_of_a_file_are_as_people_write_them_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "training: {steps: 1e4, batch_size: 64.0, optimizer: {lr: 1.0}}\ntask: {environment_options: {gain: 2.0}}"
    )
    config = ROBOT.config([f"recipe={tmp_path / 'mine.yaml'}"])
    assert (config.training.steps, config.training.batch_size, config.training.optimizer.lr) == (10_000, 64, 1.0)
    assert isinstance(config.task.environment_options["gain"], float)


def test_a_home_is_found() -> None:
    assert ROBOT.config(["run_dir=~/runs/x"]).run_dir == str(Path.home() / "runs/x")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.steps=1.5", r"^training\.steps=1\.5 must be a whole number, for example"),
        ("training.steps=true", r"^training\.steps=true must be a whole number"),
        ("training.steps=1e30", r"^training\.steps=1e30 is too large"),
        ("training.steps=", r"^training\.steps= must be a whole number"),
        ("task.limit=many", r"^task\.limit=many must be a whole number or null"),
        ("training.optimizer.lr=fast", r"^training\.optimizer\.lr=fast must be a number, for example"),
        ("training.optimizer.lr=0,1", r"^training\.optimizer\.lr=0,1 must be a number"),
        ("training.compile=maybe", r"^training\.compile=maybe must be true or false"),
        ("run_dir=", r"^run_dir= is nothing"),
        ("label=null", r"^label=null is nothing"),
        ("training.checkpoint.at=[1,,2]", r"^training\.checkpoint\.at=\[1,,2\] has an entry that is empty"),
        ("training.checkpoint.at=[1", r"^training\.checkpoint\.at=\[1 lacks a '\]'"),
        ("training.checkpoint.at=[1,x]", r"^training\.checkpoint\.at=\[1,x\] must be a whole number"),
        ("evaluation=5", r"^evaluation=5 holds settings; write them as \{name: value\}"),
        ("run_dir=\udcff", r"has bytes that are not UTF-8"),
        ("+training.steps=5", r"keys cannot be added or removed"),
        ("~training.steps=5", r"keys cannot be added or removed"),
        ("=5", r"is not of the form key=value"),
    ],
)
def test_another_value_is_refused(override: str, sentence: str) -> None:
    track = IMAGES if "task.limit" in override else ROBOT
    with pytest.raises(UserError, match=sentence):
        track.config([override])


@pytest.mark.parametrize(
    "override",
    [
        *("training.optimizer.lr=inf", "training.ema.power=nan", "training.optimizer.lr=1e400", "task.val_ratio=-inf"),
        *("sampling.clip_sample=inf", "training.optimizer.betas=[0.9,nan]", "encoder.augmentation.hue=NaN"),
    ],
)
def test_numbers_are_finite(override: str, tmp_path: Path) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{key}=.*must be finite; give a number"):
        ROBOT.config([override])
    (tmp_path / "infinite.yaml").write_text("training: {optimizer: {lr: .inf}}")
    with pytest.raises(UserError, match=r"training\.optimizer\.lr=inf must be finite"):
        ROBOT.config([f"recipe={tmp_path / 'infinite.yaml'}"])
    values = ROBOT.record(ROBOT.config([]))
    values["training"]["optimizer"]["lr"] = float("inf")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"config\.yaml cannot be read .*lr=inf must be finite"):
        ROBOT.read(tmp_path)


def test_of_a_key_that_is_typed_twice_the_last_value_counts_and_is_said() -> None:
    said: list[str] = []
    given = ["training.steps=5", "model=mlp", "seed=1", "seed=1", "training.steps=6", "model=unet"]
    config = ROBOT.config(given, report=said.append)
    assert (config.training.steps, config.model.name) == (6, "unet")
    assert sorted(said) == [
        "model is given twice: unet counts, not mlp.",
        "training.steps is given twice: 6 counts, not 5.",
    ]


@pytest.mark.parametrize("text", ["a", "it's", "\\", "a\\'b", '"', "'", ""])
def test_quotes_keep_what_is_inside(text: str) -> None:
    assert unquoted(quoted(text)) == text
    assert read_value(list[str], f"[{quoted(text)}, x]") == [text, "x"]
