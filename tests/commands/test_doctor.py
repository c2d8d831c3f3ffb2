from __future__ import annotations

import json

import pytest

from policy_accel.cli import main
from policy_accel.commands import doctor
from policy_accel.doctor.findings import BROKEN, CORE, MISSING, OK, Finding

FINE = Finding(CORE, "torch", OK, "2.9")
ABSENT = Finding("Simulators", "pusht", MISSING, "no package", "install it")


def machine(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(doctor, "of_machine", lambda: list(findings))


def test_a_missing_simulator_is_shown_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what_is_suggested_can_be_run: list[str]
) -> None:
    machine(monkeypatch, FINE, ABSENT)
    assert main(["doctor"]) == 0
    assert "install it" in capsys.readouterr().out
    assert what_is_suggested_can_be_run == ["To begin: policy-accel demo"]


def test_a_core_that_does_not_work_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, what_is_suggested_can_be_run: list[str]
) -> None:
    machine(monkeypatch, Finding(CORE, "torch", BROKEN, "its process ended by SIGSEGV"))
    assert main(["doctor"]) == 2
    assert what_is_suggested_can_be_run == []


def test_json_is_one_object_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine(monkeypatch, FINE, ABSENT)
    assert main(["doctor", "--json"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert (record["ready"], said.err) == (True, "")
    assert record["findings"][1]["remedy"] == "install it"


def test_what_settings_lack_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what_is_suggested_can_be_run: list[str]
) -> None:
    asked: list[object] = []

    def of_settings(*arguments: object) -> list[Finding]:
        asked.append(arguments)
        return [ABSENT] if len(asked) == 1 else [FINE]

    monkeypatch.setattr(doctor, "of_settings", of_settings)
    assert main(["doctor", "task=lift"]) == 2
    assert "missing  pusht" in capsys.readouterr().out
    assert main(["doctor", "task=lift"]) == 0
    assert asked == [(["task=lift"], None)] * 2
    assert what_is_suggested_can_be_run == ["To begin: policy-accel train task=lift"]


def test_settings_that_there_are_not_are_said_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "task=pusht_stat"]) == 2
    printed = capsys.readouterr().out
    assert "task=pusht_stat is unknown; did you mean 'pusht_state'?" in printed
    assert "UserError" not in printed
