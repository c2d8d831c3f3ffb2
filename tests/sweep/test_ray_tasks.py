"""Sweeps on a real Ray cluster of this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from support.sweeps import assert_equal_to_undisturbed, examples, tiny, wait_for, worker_of

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.sweep.folder import read_sweep
from policy_accel.sweep.ray_tasks import import_ray


def test_a_run_whose_worker_is_killed_goes_on_with_the_same_bits(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the page, on two workers."""
    monkeypatch.setattr("policy_accel.sweep.work.available_cores", lambda: 2)
    words, folder = tiny(examples()[1]), Path("runs/sweeps/pusht_state-method")
    (place / "hold-baseline").touch()

    def kill() -> None:
        wait_for((place / "reached-baseline").exists)
        os.kill(worker_of("baseline"), signal.SIGKILL)
        wait_for(lambda: "it saves and ends" in read_sweep(folder).log("baseline").read_text())
        (place / "hold-baseline").unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(["sweep", *words]) == 0
    killer.join()
    assert not import_ray().is_initialized()
    assert "2 runs: 2 done" in capfd.readouterr().out
    log = read_sweep(folder).log("baseline").read_text()
    assert log.count("$ policy-accel") == 2
    assert "Stopped after 6 of 8 updates" in log
    assert_equal_to_undisturbed(folder)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"launcher=ray needs the package ray: pip install '\.\[ray\]'"):
        import_ray()
