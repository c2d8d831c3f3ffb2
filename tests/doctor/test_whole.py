from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from policy_accel.doctor import whole
from policy_accel.doctor.examine import Probe
from policy_accel.doctor.findings import BROKEN, CORE, MISSING, NOTE, OK, Finding, page

Failing = dict[str, str]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """What fails, by name: no process is started."""
    said: Failing = {}

    def examine(probes: Sequence[Probe]) -> list[Finding]:
        return [
            Finding(probe.group, probe.name, BROKEN if probe.name in said else OK, said.get(probe.name, "works"))
            for probe in probes
        ]

    monkeypatch.setattr(whole, "examine", examine)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    return said


def found() -> dict[tuple[str, str], Finding]:
    return {(one.group, one.name): one for one in whole.of_machine()}


def test_every_part_is_looked_at_once(failing: Failing) -> None:
    findings = whole.of_machine()
    groups = list(dict.fromkeys(one.group for one in findings))
    assert groups == ["Machine", "Core", "Simulators", "Rendering", "Codecs", "Optional"]
    assert len({(one.group, one.name) for one in findings}) == len(findings)
    assert not [one for one in findings if one.bad]


def test_one_way_to_draw_is_enough(failing: Failing) -> None:
    failing["osmesa"] = "AttributeError"
    assert found()["Rendering", "osmesa"] == Finding("Rendering", "osmesa", NOTE, "not here, and egl draws")
    failing["egl"] = "no driver"
    findings = found()
    assert findings["Rendering", "egl"].state == BROKEN
    assert "apt-get install libegl1" in findings["Rendering", "egl"].remedy


def test_what_mujoco_gl_names_is_tried_alone(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert [name for group, name in found() if group == "Rendering"] == ["glfw"]


def test_an_extra_without_its_packages_is_missing_and_is_not_tried(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = whole.lacking
    absent = {"gym-pusht": "gym-pusht is not installed", "submitit": "submitit is not installed"}
    monkeypatch.setattr(
        whole, "lacking", lambda wanted: real(wanted) + [absent[one.name] for one in wanted if one.name in absent]
    )
    findings = found()
    assert findings["Simulators", "pusht"].state == MISSING
    assert findings["Simulators", "pusht"].said == "Push-T: gym-pusht is not installed"
    assert "pusht" in findings["Simulators", "pusht"].remedy
    assert findings["Optional", "slurm"].state == MISSING
    assert findings["Optional", "ray"].state == OK


def test_a_package_that_everyone_needs_breaks_the_core(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "lacking", lambda wanted: ["numpy is 1.26, and >=2.0 is needed"])
    core = found()[CORE, "packages"]
    assert (core.state, core.said) == (BROKEN, "numpy is 1.26, and >=2.0 is needed")


def test_the_page_has_a_line_for_each_finding_and_one_for_its_remedy() -> None:
    fine = Finding("Core", "torch", OK, "2.9")
    wrong = replace(fine, group="Simulators", name="pusht", state=MISSING, said="no package", remedy="install it")
    lines = page([fine, wrong]).splitlines()
    assert lines == [
        "Core",
        "  ok       torch  2.9",
        "Simulators",
        "  missing  pusht  no package",
        "                  install it",
    ]
