"""What is said to a key that the configuration does not have."""

from __future__ import annotations

import re

import pytest

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.key_hints import unknown_choice
from policy_accel.policy.track import ROBOT


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("training.lr", "training.optimizer.lr"),
        ("lr", "training.optimizer.lr"),
        ("learning_rate", "training.optimizer.lr"),
        ("training.learning-rate", "training.optimizer.lr"),
        ("optimizer.lr", "training.optimizer.lr"),
        ("training.seed", "seed"),
        ("task.obs", "task.observation"),
        ("obs", "task.observation"),
        ("batch_size", "training.batch_size"),
        ("optimizer.batch_size", "training.batch_size"),
        ("horizon", "policy.horizon"),
        ("task.horizon", "policy.horizon"),
        ("training.stepz", "training.steps"),
        ("training.sampler", "sampling.sampler"),
        ("task.enviroment", "task.environment"),
        ("model.down_dim", "model.down_dims"),
        ("ema", "training.ema"),
        ("dataset", "task.data"),
    ],
)
def test_the_last_part_of_a_key_and_common_names_come_first(key: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"has no key '{key}'; did you mean '{meant}'\?"):
        ROBOT.config([f"{key}=1"])


def test_epochs_are_not_updates() -> None:
    with pytest.raises(UserError, match=r"did you mean 'training\.steps' \(it counts updates, not epochs\)\?"):
        ROBOT.config(["training.num_epochs=10"])


def test_a_name_of_the_other_track_is_not_offered() -> None:
    with pytest.raises(UserError, match=r"no key 'task\.obs'; the keys of task are: .*, data, "):
        IMAGES.config(["task=mnist", "task.data=x", "task.obs=[a]"])


def test_what_is_like_nothing_gets_the_keys_of_its_section() -> None:
    with pytest.raises(UserError, match=r"the keys of sampling are: churn, .*clip_sample, sampler, spacing, steps, "):
        ROBOT.config(["sampling.zzqx=1"])
    with pytest.raises(UserError, match=r"no key 'zzqx'; settings begin with acceleration, diffusion, .*print-config"):
        ROBOT.config(["zzqx=1"])


PLUGIN = "those of a plugin need plugins=[MODULE]."


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("model=uent", r"model=uent is unknown; did you mean 'unet'\?"),
        (
            "model=qqq",
            rf"model=qqq is unknown; known are: mlp, transformer, unet, .*; one of .*=FILE.yaml; {re.escape(PLUGIN)}",
        ),
        ("acceleration/timesteps=qqq", rf"; known are: .*; {re.escape(PLUGIN)}"),
        (
            "task=qqq",
            r"task=qqq is unknown; `policy-accel list tasks` names all \d+; one of your own is task=FILE.yaml",
        ),
        (
            "task=walker",
            r"task=walker is unknown; the nearest are (\w+, )+`policy-accel list tasks` names all \d+; one of ",
        ),
        (
            "recipe=./use.py",
            r"recipe=./use.py is a Python file, and recipe takes a name or a YAML file; plugins=\[use\]",
        ),
        ("model=my/net.py", r"and model takes a name or a YAML file; plugins=\[net\] imports the module"),
        ("plugins=[./use.py]", "the plugin './use.py' is a file; name the module, use, whose folder"),
    ],
)
def test_a_choice_that_there_is_not(choice: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ROBOT.config([choice])


@pytest.mark.parametrize("group", ["task", "recipe", "method", "model", "training", "acceleration/noise"])
def test_the_list_that_is_named_exists(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    many = [f"name{i}" for i in range(20)]
    command = re.search("`policy-accel (.*)` names all 20", str(unknown_choice(group, "qqq", many)))
    assert command is not None
    assert main(command[1].split()) == 0
    assert f"({group}=NAME)" in capsys.readouterr().out
