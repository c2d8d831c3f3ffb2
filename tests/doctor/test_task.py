from __future__ import annotations

import json
from pathlib import Path

import pytest

from policy_accel.doctor.findings import MISSING, OK
from policy_accel.doctor.task import of_task


def found(*overrides: str) -> dict[str, tuple[str, str]]:
    return {one.name: (one.state, one.said) for one in of_task(json.dumps(overrides), "")}


def test_a_task_that_can_be_trained_lacks_nothing() -> None:
    findings = found("task=pusht_state")
    assert list(findings) == ["settings", "packages", "simulator", "pictures", "data"]
    assert {state for state, _ in findings.values()} == {OK}
    assert findings["data"][1] == "shipped:pusht_scripted.zarr.zip"


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    findings = found("task=pusht_state", f"task.data={tmp_path / 'none.zarr'}", "evaluation.episodes=0")
    assert list(findings) == ["settings", "packages", "data"]
    assert findings["data"][0] == MISSING
    assert str(tmp_path / "none.zarr") in findings["data"][1]


def test_a_simulator_that_does_not_import_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from policy_accel.errors import UserError
    from policy_accel.evaluation import environments

    def absent(spec: object) -> None:
        raise UserError("Push-T needs gym-pusht; install it.")

    monkeypatch.setattr(environments, "import_environment", absent)
    findings = found("task=pusht_state", "evaluation.videos=0")
    assert findings["simulator"] == (MISSING, "Push-T needs gym-pusht; install it.")
    assert "pictures" not in findings


def test_an_image_task_needs_no_simulator() -> None:
    assert list(found("task=shapes")) == ["settings", "packages", "data"]
