from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import policy_accel.progress as module
from policy_accel.progress import Progress


def test_plain_lines_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 105.0, 120.0, 130.0, 131.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = Progress("train", 100, done=20)
    progress.to(30)
    progress.to(60, "loss 0.5")
    progress.to(100)
    progress.to(100, "loss 0.4")
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "train: 60/100 steps, 2.0/s, 0:20 left, loss 0.5",
        "train: 100/100 steps, 2.7/s, 0:00 left, loss 0.5",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("train", 10)
    progress.advance(10, "loss 0.25")
    progress.say("a line")
    progress.close()
    printed = capsys.readouterr().err
    assert "10/10" in printed
    assert "loss 0.25" in printed
    assert "a line" in printed
