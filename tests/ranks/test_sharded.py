"""Two processes with half of the weights each (FSDP2), against one that has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.data import write_zarr
from support.methods import DIT, IMAGES_COMMON, MLP, ROBOT_COMMON, images
from support.rank_checks import check, check_equal, config_of
from support.rank_work import bytes_kept, finite_with_a_nan, gathered_parts, run, trained
from support.taught import student_of
from support.two_ranks import TwoRanks

from policy_accel.data import Episodes
from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.training.ranks import ALONE

SHARD = "training.shard=true"
BLOCKS = [*DIT, "model.depth=2"]
WAYS: dict[str, tuple[Any, list[str]]] = {
    "DiT": (IMAGES, [*IMAGES_COMMON, *BLOCKS]),
    "DiT, classes assigned, pieces": (IMAGES, [*images("immiscible_classes"), "training.accumulate=2"]),
    "DiT, momentum decays": (IMAGES, [*images("momentum_decay"), "model.depth=2"]),
    "DiT on disk, times learn": (IMAGES, [*images("loss_second_moment"), "task.residence=disk"]),
    "policy, masked, several times, clipped, averages": (
        ROBOT,
        [
            *ROBOT_COMMON,
            *MLP,
            "method=kl",
            "task.mask_padding=true",
            "training.optimizer.clip_grad_norm=0.1",
            "training.ema.lengths=[0.05]",
        ],
    ),
    "policy, transformer": (
        ROBOT,
        [
            *ROBOT_COMMON,
            "model=transformer",
            "model.embedding_dim=16",
            "model.layers=1",
            "model.heads=2",
            "model.attention_dropout=0",
        ],
    ),
    "policy, U-Net": (
        ROBOT,
        [*ROBOT_COMMON, "model.down_dims=[8,16]", "model.step_embedding_dim=8", "model.groups=4"],
    ),
}


def test_a_student_has_the_whole_of_its_teacher(two: TwoRanks, tmp_path: Path) -> None:
    """Of one evaluation; the later ones of several would ask the average, of which each process has a share."""
    overrides = student_of(ROBOT, [*ROBOT_COMMON, *MLP], "[99]", tmp_path)
    check(two, ROBOT, [*overrides, SHARD, "distillation.steps=2"])
    config = ROBOT.config([*overrides, SHARD, "sampling.times=[99,25]"])
    for error in two(trained, "robot", config, 1):
        assert isinstance(error, UserError)
        assert "set training.shard=false" in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_two_shares_are_the_whole(two: TwoRanks, way: str) -> None:
    track, overrides = WAYS[way]
    check(two, track, [*overrides, SHARD])


def test_pictures_of_a_policy_are_encoded(two: TwoRanks, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {"keypoint": generator.normal(size=(60, 9, 2)), "state": generator.normal(size=(60, 5))}
    arrays |= {"action": generator.normal(size=(60, 2))}
    film = {"img": generator.integers(0, 256, (60, 44, 44, 3), dtype=np.uint8)}
    walks = Episodes({name: array.astype(np.float32) for name, array in arrays.items()} | film, np.array([30, 60]))
    write_zarr(tmp_path / "walks.zarr.zip", walks)
    seen = [f"task.data={tmp_path}/walks.zarr.zip", "task.images=[img]", "encoder.crop=36"]
    overrides = [*ROBOT_COMMON, *MLP, *seen, "encoder.resnet.width=16", "encoder.resnet.keypoints=4"]
    # The bias before a softmax has no gradient but rounding, which AdamW magnifies: two are compared with two.
    expected, _ = two(trained, "robot", ROBOT.config(overrides), 4)
    found, _ = two(trained, "robot", ROBOT.config([*overrides, SHARD]), 4)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-6)
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_a_process_keeps_its_share_and_gathers_a_block_at_a_time(two: TwoRanks) -> None:
    overrides = [*IMAGES_COMMON, *BLOCKS]
    whole = bytes_kept(ALONE, IMAGES.config(overrides))
    shares = two(bytes_kept, IMAGES.config([*overrides, SHARD]))
    assert whole["moments"] == 2 * whole["weights"]
    for name, size in whole.items():
        assert sum(share[name] for share in shares) == size
        assert shares[0][name] == pytest.approx(size / 2, rel=0.01)
    assert two(gathered_parts, IMAGES.config([*overrides, SHARD])) == [["", "blocks.0", "blocks.1"]] * 2
    assert two(gathered_parts, IMAGES.config(overrides)) == [[], []]


def test_a_run_goes_on_with_shares_and_without(two: TwoRanks, tmp_path: Path) -> None:
    scored = ["evaluation.episodes=3", "evaluation.workers=0", "evaluation.videos=0", "task.max_steps=16"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    expected = run(ALONE, config_of(alone, *scored))
    stopped = two(run, config_of(shared, *scored, SHARD), (1, 3))
    assert [part["step"] for part in stopped] == [4, 4]
    run(ALONE, config_of(shared, *scored, SHARD), (0, 6))
    run(ALONE, config_of(shared, *scored), (0, 7))
    first, second = two(run, config_of(shared, *scored, SHARD))
    assert first["finished"]
    assert first == second
    check_equal(shared, alone)
    found, wanted = (part["evaluation"]["episodes"] for part in (first, expected))
    for episode, other in zip(found, wanted, strict=True):
        assert episode == {**other, "score": pytest.approx(other["score"], rel=1e-3, abs=1e-6)}


def test_a_weight_that_is_not_finite_in_one_share_is_told_to_all(two: TwoRanks) -> None:
    config = IMAGES.config([*IMAGES_COMMON, *BLOCKS, SHARD])
    assert two(finite_with_a_nan, config, None) == [True, True]
    assert two(finite_with_a_nan, config, 1) == [False, False]


def test_gradients_may_be_rounded_on_the_wire(two: TwoRanks) -> None:
    half = [*IMAGES_COMMON, *BLOCKS, SHARD, "training.reduce_precision=bf16"]
    expected = trained(ALONE, "images", IMAGES.config(half), 1)["weights"]
    name = max((name for name in expected if name.endswith("exp_avg")), key=lambda name: expected[name].norm())
    for found in two(trained, "images", IMAGES.config(half), 1):
        rounding = (found["weights"][name] - expected[name]).norm() / expected[name].norm()
        assert 2**-12 < rounding < 2**-8


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("training.compile=true", "training.shard=true and training.compile=true do not go together"),
        ("training.capture=true", "training.shard=true and training.capture=true do not go together"),
        ("method=immiscible_denoiser", "acceleration.noise.center=denoiser asks the average"),
    ],
)
def test_what_does_not_go_together(setting: str, sentence: str) -> None:
    config = ROBOT.config([*ROBOT_COMMON, *MLP, setting, SHARD])
    with pytest.raises(UserError, match=sentence):
        ROBOT.check(config)


def test_fp16_is_refused() -> None:
    config = ROBOT.config([*ROBOT_COMMON, *MLP, SHARD, "training.precision=fp16"])
    with pytest.raises(UserError, match=r"training\.shard=true does not go together with fp16"):
        config.training.shards(ALONE, torch.device("cpu"))
