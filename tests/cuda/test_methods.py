"""Every method of both tracks as CUDA graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.captured import CPU, check_captured, check_resumed, losses_of
from support.methods import METHODS, NOT_FOR_IMAGES, images, robot
from support.simulated_cuda import CUDA, SimulatedCuda
from support.taught import student_of

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.training import muon


@pytest.mark.parametrize("method", METHODS)
def test_of_policies(method: str) -> None:
    check_captured(ROBOT, ROBOT.config(robot(method)))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in NOT_FOR_IMAGES])
def test_of_images(method: str) -> None:
    check_captured(IMAGES, IMAGES.config(images(method)))


@pytest.mark.parametrize("method", ["baseline", "momentum_decay"])
@pytest.mark.parametrize("track", [ROBOT, IMAGES])
def test_muon(track: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, as on the CPU."""
    monkeypatch.setattr(muon, "PRECISIONS", {})
    overrides = [*robot(method), "model.hidden_dims=[16,16,16]"] if track is ROBOT else images(method)
    check_captured(track, track.config([*overrides, "training/optimizer=muon"]))


@pytest.mark.parametrize("times", ["[99]", "[99,25]"])
def test_a_student_of_a_policy(times: str, tmp_path: Path) -> None:
    check_captured(ROBOT, ROBOT.config(student_of(ROBOT, robot("baseline"), times, tmp_path)))


def test_a_student_of_images_with_guidance(tmp_path: Path) -> None:
    overrides = student_of(IMAGES, [*images("flow"), "task.label_dropout=0.2"], "[1,0.3]", tmp_path)
    check_captured(IMAGES, IMAGES.config([*overrides, "distillation.guidance=2", "distillation.steps=2"]))


def test_a_student_goes_on_where_it_was(tmp_path: Path) -> None:
    check_resumed(ROBOT, ROBOT.config(student_of(ROBOT, robot("baseline"), "[99,25]", tmp_path)))


@pytest.mark.parametrize("method", ["everything", "loss_second_moment", "fdm_cap", "immiscible_denoiser"])
def test_a_policy_goes_on_where_it_was(method: str) -> None:
    check_resumed(ROBOT, ROBOT.config(robot(method)))


@pytest.mark.parametrize("method", ["momentum_decay", "fdm_cap_only"])
def test_two_hundred_losses_are_the_cpus(method: str) -> None:
    """Of every method in benchmarks/captured_losses.py."""
    config = ROBOT.config([*robot(method), "training.steps=200", "training.logging.every=200"])
    expected = losses_of(ROBOT, config, CPU, captured=False)
    with SimulatedCuda():
        found = losses_of(ROBOT, config, CUDA, captured=True)
    assert found.shape == (200,)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
