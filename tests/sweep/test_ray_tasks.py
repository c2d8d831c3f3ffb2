"""Sweeps on a real Ray cluster of this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.sweeps import assert_equal_to_undisturbed, examples, tiny, wait_for, worker_of

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.sweep.folder import Job, Run, Sweep, read_sweep
from policy_accel.sweep.launcher import RayConfig
from policy_accel.sweep.ray_tasks import RayLauncher, import_ray


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
    assert_equal_to_undisturbed(read_sweep(folder))


class FakeRay:
    """Takes down what it is asked for, on a cluster of a node with two cores and a GPU, and one with four cores."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.cancelled: list[str] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 6.0, "GPU": 1.0}

    def nodes(self) -> list[dict[str, Any]]:
        has = ({"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}, {"CPU": 64.0, "GPU": 8.0})
        return [{"Alive": each["CPU"] < 64, "Resources": each} for each in has]

    def cancel(self, task: Any) -> None:
        self.cancelled.append(task[1])

    def remote(self, *_: Any, **options: Any) -> Any:
        self.options |= options
        return lambda function: SimpleNamespace(options=lambda **more: self.remote_of(more))

    def remote_of(self, options: dict[str, Any]) -> Any:
        self.options |= options
        return SimpleNamespace(remote=lambda *arguments: arguments)

    def init(self, **options: Any) -> None:
        self.options |= options

    def shutdown(self) -> None:
        self.options["shut"] = True


@pytest.mark.parametrize(
    ("config", "on_gpu", "asked"),
    [
        (RayConfig(), True, {"num_cpus": 1, "num_gpus": 1.0, "max_retries": 3, "max_calls": 1, "address": "local"}),
        (RayConfig(), False, {"num_gpus": 0.0}),
        (RayConfig(gpus=0.25, cpus=2, retries=7), True, {"num_cpus": 2, "num_gpus": 0.25, "max_retries": 7}),
        (RayConfig(address="head:6379"), False, {"address": "head:6379"}),
    ],
)
def test_what_a_run_asks_ray_for(
    config: RayConfig, on_gpu: bool, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    monkeypatch.setattr("policy_accel.sweep.ray_tasks.import_ray", lambda: ray)
    RayLauncher(Sweep(tmp_path, {"a": Run([], 5)}), config, cores=2, on_gpu=on_gpu).start(["a"])
    assert asked.items() <= ray.options.items()
    assert "shut" not in ray.options


def test_runs_that_wait_for_a_node_in_place_of_a_lost_one_are_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    monkeypatch.setattr("policy_accel.sweep.ray_tasks.import_ray", lambda: ray)
    sweep = Sweep(tmp_path, {name: Run([], 5) for name in ("trained", "lost", "waiting")})
    sweep.write()
    launcher = RayLauncher(sweep, RayConfig(), cores=2, on_gpu=False)
    launcher.start(list(sweep.runs))
    for name in ("trained", "lost"):
        sweep.note(name, Job("running", started=1.0))
    with sweep.hold("trained"):
        launcher.withdraw()
    assert ray.cancelled == ["lost", "waiting"]


def test_what_no_cluster_could_ever_give_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setattr("policy_accel.sweep.ray_tasks.import_ray", lambda: ray)
    for config in (RayConfig(gpus=2), RayConfig(cpus=5, gpus=0), RayConfig(cpus=3)):  # six cores, but of two nodes
        with pytest.raises(UserError, match=r"than any node of the Ray cluster has \(2 and 1, 4 and 0\); lower them"):
            RayLauncher(Sweep(tmp_path), config, cores=2, on_gpu=True)
        assert ray.options.pop("shut")
    RayLauncher(Sweep(tmp_path), RayConfig(cpus=4), cores=2, on_gpu=False)
    assert "shut" not in ray.options
    monkeypatch.setattr(ray, "init", lambda **_: [][0])
    with pytest.raises(UserError, match=r"launcher\.address=null: no Ray cluster .*\(list index out of range\)"):
        RayLauncher(Sweep(tmp_path), RayConfig(), cores=2, on_gpu=True)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(f"launcher=ray needs the package ray; {to_install('ray')}")):
        import_ray()
