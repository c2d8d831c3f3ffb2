from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from policy_accel.commands.output import suggest
from policy_accel.commands.then import after_evaluating, after_exporting, after_training

Lines = list[str]


def asked(**given: Any) -> Namespace:
    return Namespace(**{"checkpoint": "last", "average": None, "json": False, "plugins": [], "trust": False, **given})


def test_a_suggestion_can_be_pasted_and_goes_to_the_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my data").touch()
    monkeypatch.setattr("sys.argv", ["/my tools/policy-accel"])
    suggest("look at it", ["data", "inspect", Path("my data")])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "To look at it: '/my tools/policy-accel' data inspect 'my data'\n"


def test_nothing_is_suggested_to_a_program_or_by_the_other_processes_of_a_run(
    what_is_suggested_can_be_run: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggest("look", ["demo"], quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    suggest("look", ["demo"])
    assert what_is_suggested_can_be_run == []


def test_after_training_depends_on_what_can_be_done_with_the_run(
    tmp_path: Path, what_is_suggested_can_be_run: Lines
) -> None:
    after_training("images", tmp_path, scored=True)
    after_training("robot", tmp_path, scored=True)
    after_training("robot", tmp_path, scored=False)
    (tmp_path / "open_loop.json").touch()
    after_training("robot", tmp_path, scored=False)
    assert what_is_suggested_can_be_run == [
        f"To draw images with it: policy-accel sample {tmp_path}",
        f"To see it all on one page: policy-accel report {tmp_path}",
        f"To compare it with demonstrations that it has not seen: policy-accel evaluate {tmp_path} --data PATH",
        f"To let a robot use it: policy-accel serve {tmp_path}",
    ]


def test_after_evaluating_the_same_weights_are_used(tmp_path: Path, what_is_suggested_can_be_run: Lines) -> None:
    run, other, file = tmp_path / "run", tmp_path / "other", tmp_path / "policy.onnx"
    run.mkdir(), other.mkdir(), file.touch()
    (run / "config.yaml").write_text("plugins: [mine]")
    after_evaluating("robot", [run], asked(checkpoint="best", trust=True))
    after_evaluating("robot", [run, other], asked())
    after_evaluating("robot", [file], asked(plugins=["a", "b"]))
    after_evaluating("images", [run], asked(average="ema_0.1"))
    after_evaluating("robot", [run, file], asked())  # an exported file is no run to compare
    after_evaluating("robot", [run], asked(json=True))
    assert what_is_suggested_can_be_run == [
        f"To write it to a file for a robot: policy-accel export {run} --to onnx --checkpoint best --trust",
        f"To tell which is better: policy-accel compare {run} {other}",
        f"To let a robot use it: policy-accel serve {file} --plugins a,b",
        f"To draw images with it: policy-accel sample {run} --average ema_0.1",
    ]


@pytest.mark.parametrize(("named", "words"), [("[mine]", " --plugins mine,sim"), ("[]", "")])
def test_no_module_is_named_to_what_makes_no_environment(
    tmp_path: Path, what_is_suggested_can_be_run: Lines, named: str, words: str
) -> None:
    (tmp_path / "config.yaml").write_text(f"plugins: {named}\ntask: {{environment_module: sim}}")
    after_evaluating("robot", [tmp_path], asked(plugins=["mine", "sim"]))
    assert what_is_suggested_can_be_run == [
        f"To write it to a file for a robot: policy-accel export {tmp_path} --to onnx{words}"
    ]


def test_an_exported_program_is_scored_by_those_who_trust_it(
    tmp_path: Path, what_is_suggested_can_be_run: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").touch(), Path("a.pt2").touch()
    after_exporting(Path("a.onnx"), asked())
    after_exporting(Path("a.pt2"), asked())
    after_exporting(Path("a.pt2"), asked(trust=True))
    assert what_is_suggested_can_be_run == [
        "To score it: policy-accel evaluate a.onnx",
        "To score it: policy-accel evaluate a.pt2 --trust",
        "To score it: policy-accel evaluate a.pt2 --trust",
    ]


def test_a_suggestion_of_what_is_not_there_is_noticed() -> None:
    with pytest.raises(AssertionError, match="data inspect nowhere"):
        suggest("look at it", ["data", "inspect", "nowhere"])
