from __future__ import annotations

import signal

import pytest

from policy_accel.doctor import examine as module
from policy_accel.doctor.examine import Probe, examine, run
from policy_accel.doctor.findings import BROKEN, OK, Finding

PROBES = """
import os, signal, sys, time
from policy_accel.doctor import probes
from policy_accel.doctor.findings import OK, Finding

def of(name):
    print("noise of a library")
    if name == "says":
        yield Finding("G", "one", OK, os.environ.get("MUJOCO_GL", "unset"))
    elif name == "raises":
        raise RuntimeError("no\\nluck.")
    elif name == "crashes":
        yield Finding("G", "first", OK, "fine")
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "hangs":
        time.sleep(60)

probes.PROBES["made"] = of
probes.main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def made_up_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        return real(
            [command[0], "-P", "-c", PROBES, *command[command.index("policy_accel.doctor.probes") + 1 :]], **options
        )  # type: ignore[call-overload]

    monkeypatch.setattr(module.subprocess, "Popen", popen)


def probe(name: str, **environment: str) -> Probe:
    return Probe("G", "named", ("made", name), environment, "put it right")


def test_a_probe_says_what_it_found_in_its_own_environment() -> None:
    assert run(probe("says", MUJOCO_GL="egl")) == [Finding("G", "one", OK, "egl")]


def test_an_error_of_a_probe_is_a_finding_with_a_remedy() -> None:
    assert run(probe("raises")) == [Finding("G", "named", BROKEN, "RuntimeError: no luck", "put it right")]


def test_a_crash_is_a_finding_behind_those_before_it() -> None:
    said = f"its process ended by {signal.SIGSEGV.name}"
    expected = [Finding("G", "first", OK, "fine"), Finding("G", "named", BROKEN, said, "put it right")]
    assert run(probe("crashes")) == expected


def test_a_probe_that_hangs_is_given_up() -> None:
    (found,) = run(probe("hangs"), seconds=1.0)
    assert (found.state, found.said) == (BROKEN, "it took longer than 1 s and was given up")


def test_findings_come_in_the_order_of_the_probes() -> None:
    names = [found.said for found in examine([probe("says", MUJOCO_GL=name) for name in "abc"])]
    assert names == ["a", "b", "c"]
