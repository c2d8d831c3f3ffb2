from __future__ import annotations

from pathlib import Path

import pytest

from policy_accel.cli import main
from policy_accel.commands.list import of_class, of_file
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT


def printed(capsys: pytest.CaptureFixture[str], kind: str) -> dict[str, dict[str, str]]:
    """{heading: {name: description}} of `policy-accel list KIND`."""
    assert main(["list", kind]) == 0
    found: dict[str, dict[str, str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            lines = found.setdefault(line, {})
        else:
            name, _, description = line.strip().partition(" ")
            lines[name] = description.strip()
    return found


@pytest.mark.parametrize("kind", ["task", "recipe", "model"])
def test_a_list_names_every_choice_of_both_tracks(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    robot, images = printed(capsys, f"{kind}s").items()
    assert robot[0] == f"for robot policies ({kind}=NAME)"
    assert images[0] == f"for images ({kind}=NAME)"
    assert list(robot[1]) == ROBOT.choices()[kind]
    assert list(images[1]) == IMAGES.choices()[kind]
    assert all(description.endswith((".", ":")) for description in [*robot[1].values(), *images[1].values()])


def test_methods_belong_to_both_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    ((heading, methods),) = printed(capsys, "methods").items()
    assert heading == "for robot policies and images (method=NAME)"
    assert list(methods) == ROBOT.choices()["method"] == IMAGES.choices()["method"]
    assert methods["min_snr"] == "Peer: Min-SNR-5 loss weight (arXiv 2303.09556)."


def test_the_choices_of_a_group_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    ((_, choices),) = printed(capsys, "acceleration/noise").items()
    assert list(choices) == ROBOT.choices()["acceleration/noise"]


def test_an_unknown_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tsks"]) == 2
    assert "there is no list of tsks; did you mean 'tasks'?" in capsys.readouterr().err


def test_train_help_points_to_the_lists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "policy-accel list tasks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# Ho et al. 2020, version 1.5: short. Not this.\nname: x\n", "Ho et al. 2020, version 1.5: short."),
        ("# @package _global_\n# One sentence\n# on two lines. `code` follows.\n", "One sentence on two lines."),
        ("name: x\n# A comment elsewhere.\n", ""),
    ],
)
def test_the_first_sentence_of_a_file(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert of_file(tmp_path / "x.yaml") == sentence


def test_the_first_sentence_of_a_class() -> None:
    class Choice:
        """Chooses
        well. And more."""

    assert of_class(Choice) == "Chooses well."
