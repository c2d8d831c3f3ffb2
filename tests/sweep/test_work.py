"""Working on a sweep, with a launcher that does nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from policy_accel.sweep import work
from policy_accel.sweep.folder import AT_ONCE, Run, Sweep
from policy_accel.sweep.launcher import Launcher
from policy_accel.sweep.screen import Screen


class Lost(Launcher):
    """Its run is on a machine that died, which nobody tells it; the user presses Ctrl-C at the first two looks."""

    looks = 0

    def start(self, names: Sequence[str]) -> None:
        """See `Launcher`."""

    def under_way(self) -> bool:
        self.looks += 1
        assert self.looks < 50, "it is waited for without end"
        if self.looks <= 2:
            os.kill(os.getpid(), signal.SIGINT)
        return True

    def withdraw(self) -> None:
        """See `Launcher`."""

    def close(self) -> None:
        """See `Launcher`."""


def test_ctrl_c_twice_does_not_wait_for_a_machine_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(work, "SECONDS_TO_END", 0.1)
    sweep = Sweep(tmp_path, {"a": Run([], 5)})
    sweep.write()
    launcher = Lost(sweep)
    assert work.work(sweep, launcher, Screen(sweep))
    assert launcher.looks > 3  # those that can end are given the time
    assert sweep.stop_asked() == AT_ONCE
