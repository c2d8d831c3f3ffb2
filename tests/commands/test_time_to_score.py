"""`policy-accel benchmark time-to-score`: the example of the page with little work, and mistakes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.cli import main
from policy_accel.time_to_score.plan import Plan, ScoringPlan, SurrogatePlan, TaskPlan, TuningPlan, read_plan

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how_to" / "time_to_score.md").read_text()
LITTLE = {
    "methods": ["baseline", "kl"],
    "seeds": [1],
    "checkpoints": {"first": 5, "last": 20, "number": 2},
    "budgets": [],
    "few_steps": [1],
    "scoring": {"batch": 20, "most": 20, "episodes": 20, "workers": 0},
    "settings": {"model.hidden_dims": [16], "training.device": "cpu", "training.threads": 1},
    "tuning": {},
}


def example() -> tuple[str, dict[str, Any]]:
    """The file of the page: its name and what it holds."""
    ((name, text),) = re.findall(r"^`([\w.]+)`\n\n```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return name, yaml.safe_load(text)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^    policy-accel (data generate .*)$", PAGE, flags=re.MULTILINE)
    assert main([*shlex.split(command.replace("4000", "60")), "--output", "two_modes_4000_0.zarr.zip"]) == 0
    return tmp_path


def test_the_example_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs are trained by the sweep, each as a process; the second time there is nothing to do."""
    name, values = example()
    Path(name).write_text(yaml.safe_dump(values | LITTLE))
    (line,) = re.findall(r"^policy-accel (.*)$", re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)[0], re.MULTILINE)
    assert main(shlex.split(line)) == 0
    folder = Path("runs/time_to_score/toy")
    result = json.loads((folder / "result.json").read_text())
    printed = capsys.readouterr().out
    assert (folder / "result.txt").read_text() in printed
    assert [run["run"] for run in result["runs"]] == ["two_modes-baseline-seed1", "two_modes-kl-seed1"]
    assert result["command"] == f"policy-accel {line}"
    assert result["versions"]["policy-accel"]
    recorded = (folder / "scores.jsonl").read_text()
    assert main(shlex.split(line)) == 0
    assert (folder / "scores.jsonl").read_text() == recorded


def test_the_example_is_read_as_it_stands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, values = example()
    Path(name).write_text(yaml.safe_dump(values))
    assert main(["benchmark", "time-to-score", name, "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 * 3 + 3 * 3
    assert not Path("runs").exists()


def test_the_page_has_every_key_with_its_default() -> None:
    keys = {key for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for key in re.findall(r"`([\w.]+)`", row)}
    for schema in (Plan, TaskPlan, ScoringPlan, TuningPlan, SurrogatePlan):
        for field in schema.__dataclass_fields__:
            assert any(field in key.split(".") for key in keys), field
    plan = Plan()
    defaults = {
        "50, 1000": (plan.scoring.batch, plan.scoring.most),
        "100, 2000, 8": tuple(vars(plan.checkpoints).values()),
        "256, 8": tuple(vars(plan.surrogates).values()),
    }
    for text, found in defaults.items():
        assert f"| {text} |" in PAGE
        assert tuple(map(int, text.split(", "))) == found


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"target": [0.5]}, "no use for the key 'target'"),
        ({"tasks": {}}, "tasks is empty"),
        ({"tasks": {"two_modes": {"targets": [7]}}}, "targets has 7, which does not lie between the scores 0 and 1"),
        ({"tasks": {"two_modes": {"targets": [0.5], "settings": {"task.data": "no.zarr", "recipe": "two_modes"}}}},
         "task.data=no.zarr"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_2(
    changed: dict[str, Any], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(example()[1] | LITTLE | changed))
    capsys.readouterr()
    assert main(["benchmark", "time-to-score", "mine.yaml"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("policy-accel: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert not Path("runs").exists()


def test_stopping_says_how_to_go_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("policy_accel.time_to_score.instrument.carry_out", stopped)
    Path("mine.yaml").write_text(yaml.safe_dump(example()[1] | LITTLE))
    assert read_plan(Path("mine.yaml")).folder == "runs/time_to_score/mine"
    assert main(["benchmark", "time-to-score", "mine.yaml"]) == 130
    assert "Stopped. To go on: policy-accel benchmark time-to-score mine.yaml" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom policy_accel.cli import main\n"
        "try:\n    main(['benchmark', 'time-to-score', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "FILE.yaml" in done.stdout
