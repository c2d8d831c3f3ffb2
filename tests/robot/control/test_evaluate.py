from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_accel.cli import main
from policy_accel.envs.pusht import PushT


@pytest.fixture
def scored(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Score the run as the command does; its result."""
    own = tmp_path / "run"
    shutil.copytree(run_dir, own)

    def score(*options: str, episodes: int = 3) -> dict[str, Any]:
        words = ["evaluate", str(own), "--episodes", str(episodes), "--workers", "0", "--device", "cpu", "--json"]
        status = main([*words, *options])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        result: dict[str, Any] = json.loads(printed.out)
        assert json.loads((own / "evaluation.json").read_text())["score"] == result["score"]
        return {**result, "said": printed.err}

    return score


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The actions of Push-T in this process."""
    actions, step = [], PushT.step

    def note(self: PushT, action: np.ndarray) -> Any:
        actions.append(np.array(action))
        return step(self, action)

    monkeypatch.setattr(PushT, "step", note)
    return actions


def test_a_prediction_that_takes_no_time_scores_as_ever(scored: Any, executed: list[np.ndarray]) -> None:
    """In two slots, of which one plays two episodes; the order of the steps is another."""
    plain = scored()
    expected = np.sort(executed, axis=0)
    assert "control" not in plain
    for mode in ("sync", "async"):
        executed.clear()
        result = scored("--delay-ms", "0", "--rate", "10", "--mode", mode)
        np.testing.assert_allclose(np.sort(executed, axis=0), expected, rtol=1e-4, atol=1e-4)
        assert result["score"] == pytest.approx(plain["score"], abs=1e-6)
        how = {"mode": mode, "joining": "receding", "when_late": "hold"}
        assert result["control"] == {"delay_ms": 0, "rate": 10, **how}
        assert (result["late_calls"], result["calls"]) == (0, 3 * 30)


def test_a_simulator_that_does_not_wait(scored: Any, executed: list[np.ndarray]) -> None:
    """Of 30 steps a robot that waits 2 for each later chunk of 8 waits 2 x 3, or one that thinks meanwhile none."""
    waits = scored("--delay-ms", "150", "--rate", "10", "--mode", "sync")
    assert (waits["late_calls"], waits["calls"]) == (18, 90)
    assert "each 150 ms late at 10 Hz (sync, receding): 18 of 90 actions not there in time" in waits["said"]
    played = [np.array(executed)]
    for joining in ("receding", "inpainting", "inpainting"):
        executed.clear()
        result = scored("--delay-ms", "150", "--rate", "10", "--joining", joining)
        assert result["late_calls"] == 0
        assert (result["control"]["mode"], result["control"]["joining"]) == ("async", joining)
        played.append(np.array(executed))
    apart = [np.abs(one - two).max() for one, two in itertools.pairwise(played)]
    assert min(apart[:2]) > 1.0
    assert apart[2] == 0.0  # again


def test_what_is_done_while_the_next_chunk_is_not_there(scored: Any, executed: list[np.ndarray]) -> None:
    """It takes 20 steps and a chunk predicts 15: the last 5 hold the last action, or go on along the chunk."""
    late = []
    for how in ("hold", "extrapolate"):
        executed.clear()
        result = scored("--delay-ms", "2000", "--rate", "10", "--when-late", how, episodes=1)
        assert result["control"]["when_late"] == how
        late.append(np.array(executed)[15:20])
    assert np.abs(np.diff(late[0], axis=0)).max() == 0.0
    assert np.abs(np.diff(late[1], axis=0)).max() > 1.0  # until the bounds of the data


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--when-late", "hold"], "--when-late hold has no effect without --delay-ms"),
        (["--mode", "sync"], "--mode sync has no effect without --delay-ms"),
        (["--delay-ms", "100"], "--delay-ms 100 says nothing without --rate"),
        (["--delay-ms", "-1", "--rate", "10"], "--delay-ms -1 must be at least 0"),
        (["--delay-ms", "100", "--rate", "0"], "--rate 0 must be above 0"),
    ],
)
def test_wrong_settings_are_refused(
    options: list[str], said: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), "--device", "cpu", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (run_dir / "evaluation.json").exists()
