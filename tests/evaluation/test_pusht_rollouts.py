from contextlib import closing
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest

from policy_accel.evaluation import EnvironmentSpec, RolloutPool

SPEC = EnvironmentSpec("policy_accel/PushT-v0", {"observation": "keypoints"}, max_steps=30, n_obs_steps=2)
SEEDS = [100_000, 100_001, 100_002, 100_003]


def push(observations, seeds, chunk_index):
    """Go through the centre of the block, with noise: [3, 2, 20] -> [3, 8, 2]."""
    actions = np.zeros((3, 8, 2), np.float32)
    for slot, (seed, chunk) in enumerate(zip(seeds, chunk_index, strict=True)):
        if seed >= 0:
            agent = observations[slot, -1, 18:]
            block = observations[slot, -1, :18].reshape(9, 2).mean(0)
            way = np.linspace(0.3, 1.5, 8)[:, None] * (block - agent)
            actions[slot] = agent + way + np.random.default_rng([seed, chunk]).normal(scale=5, size=(8, 2))
    return actions


@pytest.fixture(scope="module")
def one_process():
    with closing(RolloutPool(SPEC, slots=3, workers=0)) as pool:
        return recorded_run(pool)


def recorded_run(pool, **options):
    seen = []

    def policy(observations, seeds, chunk_index):
        seen.append(observations)
        return push(observations, seeds, chunk_index)

    return pool.run(policy, SEEDS, **options), np.stack(seen)


def test_pushing_moves_the_block(one_process):
    results, observations = one_process
    assert [(result.seed, result.length, result.success, result.error) for result in results] == [
        (seed, 30, False, None) for seed in SEEDS
    ]
    assert all(0 <= result.score < 1 for result in results)
    assert observations.shape == (8, 3, 2, 20)
    assert observations.dtype == np.float32
    assert (np.abs(observations[3, :, -1, :18] - observations[0, :, -1, :18]).max(-1) > 1).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_cameras_change_nothing(tmp_path, one_process, workers):
    expected, expected_observations = one_process
    with closing(RolloutPool(SPEC, slots=3, workers=workers)) as pool:
        results, observations = recorded_run(pool, video_dir=tmp_path, videos=1)
    assert (observations == expected_observations).all()
    assert [replace(result, video=None) for result in results] == expected
    assert results[0].video == "100000.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["100000.mp4"]
    stream = imageio_ffmpeg.read_frames(str(tmp_path / "100000.mp4"))
    metadata = next(stream)
    assert metadata["size"] == (680, 680)
    assert metadata["fps"] == 10
    assert sum(1 for _ in stream) == 31
