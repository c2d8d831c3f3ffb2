"""Sweeps as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.sweeps import assert_equal_to_undisturbed, examples, prepared, tiny, wait_for

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.sweep.launcher import LocalConfig
from policy_accel.sweep.local import LocalLauncher, free_gpus, places, threads_of

WORK = """
import sys, time
from pathlib import Path
from policy_accel.sweep.folder import read_sweep
from policy_accel.sweep.local import LocalLauncher
sweep = read_sweep(Path(sys.argv[1]))
launcher = LocalLauncher(sweep, [None])
launcher.start(list(sweep.runs))
while launcher.under_way():
    time.sleep(0.05)
"""


def test_a_sweep_that_was_killed_goes_on_with_the_same_bits_beside_a_failing_run(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The example of the page. The whole process group is killed while the first of two runs is half-way."""
    words = tiny(examples()[0])
    sweep = prepared(words)
    first, second = sweep.runs
    (place / f"hold-{first}").touch()
    (place / f"fail-{second}").touch()
    process = subprocess.Popen([sys.executable, "-c", WORK, str(sweep.folder)], start_new_session=True)
    wait_for((place / f"reached-{first}").exists)
    assert sweep.job(first).state == "running"
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: "it saves and ends" in sweep.log(first).read_text())
    (place / f"hold-{first}").unlink()

    assert main(["sweep", *words]) == 1
    printed = capfd.readouterr()
    assert f"  {first}  done     8 updates" in printed.out
    assert f"  {second}  failed   the cable is out; put it back." in printed.out
    assert f"1 not done ({sweep.log(second)})" in printed.err
    assert "To try again: policy-accel sweep lr.yaml" in printed.err
    assert "Stopped after 6 of 8 updates" in sweep.log(first).read_text()  # not beginning again
    assert_equal_to_undisturbed(sweep, first)


def test_each_place_has_its_gpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "policy_accel.sweep.job.START",
        "import os, sys, time; time.sleep(0.5); open('gpus', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'])",
    )
    sweep = prepared([*tiny(examples()[0]), "sweep_dir=gpus_of"])
    launcher = LocalLauncher(sweep, ["4", "7"])
    launcher.start(list(sweep.runs))
    launcher.close()
    assert not launcher.under_way()
    assert sorted((place / "gpus").read_text()) == ["4", "7"]


def test_as_many_side_by_side_as_there_are_cores_each_with_its_share_of_the_threads() -> None:
    def arranged(runs: int, cores: int, slots: int = 0) -> tuple[int, int]:
        config = LocalConfig(slots=slots)
        threads = threads_of(config, runs=runs, cores=cores, gpus={})
        return len(places(config, cores=cores, threads=threads, gpus={})), threads

    assert arranged(runs=12, cores=2) == (2, 1)
    assert arranged(runs=3, cores=8) == (4, 2)
    assert arranged(runs=1, cores=8) == (1, 8)
    assert arranged(runs=12, cores=8, slots=2) == (2, 4)
    assert arranged(runs=12, cores=2, slots=4) == (4, 1)


def test_several_small_runs_share_a_gpu() -> None:
    gpus = {"0": 20.0, "3": 9.0}

    def arranged(cores: int, slots: int = 0, gpu_memory: float = 0.0) -> list[str | None]:
        return list(places(LocalConfig(slots=slots, gpu_memory=gpu_memory), cores=cores, threads=1, gpus=gpus))

    assert arranged(8) == ["0", "3"]
    assert arranged(8, gpu_memory=4) == ["0", "3", "0", "3", "0", "0", "0"]
    assert arranged(3, gpu_memory=4) == ["0", "3", "0"]
    assert arranged(8, slots=3) == ["0", "3", "0"]
    with pytest.raises(UserError, match=r"launcher\.gpu_memory=21 GB are free on no GPU \(the most is 20\.0\)"):
        arranged(8, gpu_memory=21)


def test_gpus_are_counted_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.sweep.local.GPUS", "print([1.5, 2.5])")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert free_gpus() == {"0": 1.5, "1": 2.5}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7a")
    assert free_gpus() == {"4": 1.5, "GPU-7a": 2.5}
    monkeypatch.setattr("policy_accel.sweep.local.GPUS", "raise RuntimeError('no driver')")
    with pytest.raises(UserError, match=r"GPUs cannot be counted \(RuntimeError: no driver\)"):
        free_gpus()
