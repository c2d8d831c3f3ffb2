"""Two processes that share every batch, against one that has it all: every kind of method, both tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.methods import DIT, IMAGES_COMMON, MLP, ROBOT_COMMON, images, robot
from support.rank_checks import UPDATES, check
from support.rank_work import rows_read, trained
from support.taught import student_of
from support.two_ranks import TwoRanks

from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.training.ranks import ALONE

KINDS = [
    "baseline",
    "immiscible",
    "immiscible_knn",
    "immiscible_c2ot",
    "immiscible_denoiser",
    "immiscible_groups",
    "kl",
    "kl_partial",
    "fdm_cap",
    "fdm_edm",
    "momentum_decay",
    "everything",
    "speed",
    "loss_second_moment",
    "shortcut",
]
ROBOT_WAYS = {
    "masked": [*MLP, "task.mask_padding=true"],
    "masked, assigned": [*MLP, "task.mask_padding=true", "method=immiscible"],
    "masked, several times, clipped": [
        *MLP,
        "task.mask_padding=true",
        "method=kl",
        "training.optimizer.clip_grad_norm=0.1",
    ],
    "in-painting": [*MLP, "policy.conditioning=inpainting"],
    "averages": [*MLP, "training.ema.half_life=100", "training.ema.lengths=[0.05]"],
    "muon": [*MLP, "model.hidden_dims=[16,16,16]", "training/optimizer=muon", "training.optimizer.clip_grad_norm=0.1"],
    "unet": ["model.down_dims=[8,16]", "model.step_embedding_dim=8", "model.groups=4"],
}
IMAGE_KINDS = ["immiscible_classes", "immiscible_knn", "fdm_vp", "edm", "flow"]
IMAGE_WAYS = {
    "augmented, labels dropped": [*DIT, "task.augmentation=edm", "task.label_dropout=0.2"],
    "on disk": [*DIT, "task.residence=disk", "task.label_dropout=0.2"],
    "on disk, augmented": [*DIT, "task.residence=disk", "task.augmentation=edm"],
    "on disk, several times": [*DIT, "task.residence=disk", "method=kl"],
    "on disk, assigned": [*DIT, "task.residence=disk", "method=immiscible"],
    "on disk, assigned in blocks": [
        *DIT,
        "task.residence=disk",
        "method=immiscible",
        "acceleration.noise.block_size=2",
    ],
    "on disk, learning times": [*DIT, "task.residence=disk", "method=loss_second_moment"],
}


@pytest.mark.parametrize("method", KINDS)
def test_every_kind_of_method_of_the_robot_track(two: TwoRanks, method: str) -> None:
    check(two, ROBOT, robot(method))


@pytest.mark.parametrize("way", ROBOT_WAYS)
def test_other_ways_of_the_robot_track(two: TwoRanks, way: str) -> None:
    check(two, ROBOT, [*ROBOT_COMMON, *ROBOT_WAYS[way]])


@pytest.mark.parametrize("method", IMAGE_KINDS)
def test_every_kind_of_method_of_the_image_track(two: TwoRanks, method: str) -> None:
    check(two, IMAGES, images(method))


@pytest.mark.parametrize("way", IMAGE_WAYS)
def test_other_ways_of_the_image_track(two: TwoRanks, way: str) -> None:
    check(two, IMAGES, [*IMAGES_COMMON, *IMAGE_WAYS[way]])


@pytest.mark.parametrize(
    ("track", "overrides"),
    [
        (ROBOT, [*robot("kl"), "task.mask_padding=true"]),
        (ROBOT, [*robot("loss_second_moment"), "training.optimizer.clip_grad_norm=0.1"]),
        (IMAGES, images("immiscible_classes")),
    ],
)
def test_pieces_of_a_batch_are_the_batch(two: TwoRanks, track: Any, overrides: list[str]) -> None:
    expected = trained(ALONE, track.name, track.config(overrides), UPDATES)
    config = track.config([*overrides, "training.accumulate=2"])
    found = trained(ALONE, track.name, config, UPDATES)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-5, msg=name)
    for shared in two(trained, track.name, config, UPDATES):
        assert shared["losses"] == pytest.approx(expected["losses"], rel=1e-5)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_student(two: TwoRanks, pieces: int, tmp_path: Path) -> None:
    overrides = student_of(ROBOT, [*robot("baseline"), "task.mask_padding=true"], "[99,25]", tmp_path)
    check(two, ROBOT, [*overrides, f"training.accumulate={pieces}", "distillation.steps=2"])


@pytest.mark.parametrize(
    ("noise", "own_alone"),
    [
        ([], True),
        (["method=immiscible", "acceleration.noise.block_size=2"], True),
        (["method=immiscible", "acceleration.noise.block_size=8"], False),
        (["method=immiscible_knn"], False),
    ],
)
def test_images_on_the_disk_are_read_by_whoever_trains_on_them(
    two: TwoRanks, noise: list[str], own_alone: bool
) -> None:
    config = IMAGES.config([*IMAGES_COMMON, *DIT, "task.residence=disk", *noise])
    whole = rows_read(ALONE, "images", config)
    assert [len(rows) for rows in whole] == [8, 8]
    first, second = two(rows_read, "images", config)
    if own_alone:
        assert [a + b for a, b in zip(first, second, strict=True)] == whole
        assert [len(rows) for rows in first] == [4, 4]
    else:
        assert first == second == whole
