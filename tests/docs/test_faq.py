"""The commands, settings and figures of docs/faq.md are those of the program and of the records."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from support.pages import page, result, sentences

from policy_accel.cli import build_parser, main
from policy_accel.envs.rendering import PACKAGES
from policy_accel.policy.config import EvaluationConfig
from policy_accel.training.threads import WORTH_IT

SAID = sentences(page("faq"))
CODE = re.findall(r"`([^`]+)`", SAID)
COMMANDS = [code.removeprefix("policy-accel ") for code in CODE if code.startswith("policy-accel ")]
PICTURES = ["task=pusht_image", "recipe=small_image", "task.data=PATH"]
GROUPS = "training|sampling|policy|task|evaluation|encoder|diffusion"
SETTINGS = sorted({code for code in CODE if re.match(rf"({GROUPS})\.[\w.]+=", code)})
NAMED = sorted({code for code in CODE if re.fullmatch(rf"({GROUPS})\.[\w.]+\w", code)})


def test_there_is_something_to_check() -> None:
    assert len(re.findall(r"^### ", page("faq"), re.MULTILINE)) >= 20
    assert len(COMMANDS) > 15
    assert len(SETTINGS) > 10
    assert len(NAMED) > 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    build_parser().parse_args(words)
    if words[0] == "train":
        assert main([*words, "--print-config"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_exist_and_take_their_value(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = PICTURES if setting.startswith(("encoder", "task.images")) else []
    words = re.split(r" (?=[\w.]+=)", setting)
    assert main(["train", *task, *words, "--print-config"]) == 0, capsys.readouterr().err


def test_settings_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *PICTURES, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for name in NAMED:
        group: Any = printed
        for part in name.split("."):
            assert part in group, name
            group = group[part]


def test_figures_are_as_recorded() -> None:
    rungs = {row["rung"]: row for row in result("pusht_speedrun_cpu")["rungs"]}
    small = rungs["AdamW, 4,000 updates (recipe=small)"]
    assert f"a score of {small['score']:.2f} has a success rate of {small['success_rate']:.2f}" in SAID
    two = rungs["Muon, 1,500 updates (recipe=fast)"]["score"] - rungs["+ grid (99, 25)"]["score"]
    assert f"Two, the second one late, cost {two:.2f}" in SAID
    success = {name: result(f"{name}_cpu")["scores"][0]["success_rate"] for name in ("lift", "can", "adroit_door")}
    assert f"a success of {success['lift']:.2f} on Lift and {success['can']:.2f} on Can" in SAID
    assert f"25 human ones {success['adroit_door']:.2f} on the Adroit door" in SAID
    undelayed = {
        row["mode"]: row["score"]
        for row in result("robot_delay_cpu")["rows"]
        if row["delay_ms"] == 0 and row["joining"] == "receding"
    }
    assert f"{undelayed['streaming']:.2f} in place of {undelayed['sync']:.2f}" in SAID
    passes = [
        [
            settings[name]["passes_per_second"]
            for name in ("two threads that spin briefly (the package's choice)", "one thread")
        ]
        for settings in (result(f"waiting_threads{kind}_cpu")["settings"] for kind in ("_quiet", ""))
    ]
    (two_quiet, one_quiet), (two_busy, one_busy) = passes
    assert f"made {two_quiet:.1f} passes a second on a quiet machine with two threads, {one_quiet:.1f} with one" in SAID
    assert f"but {two_busy:.1f} and {one_busy:.1f} beside a busy process" in SAID


def test_defaults_are_those_of_the_code() -> None:
    assert f"in place of {EvaluationConfig().slots} needs" in SAID
    assert f"apt-get install {PACKAGES}`" in SAID
    assert f"A run of {WORTH_IT} updates or more measures" in SAID
