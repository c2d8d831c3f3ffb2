"""Dictionaries of arrays from real simulators: what a policy sees through the pipe is what the environment gave."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest

from policy_accel.evaluation import EnvironmentSpec, RolloutPool

PUSHT = EnvironmentSpec("policy_accel/PushT-v0", {"observation": "image"}, max_steps=8, n_obs_steps=2)
FETCH = EnvironmentSpec("FetchPush-v4", {}, max_steps=12, n_obs_steps=2, module="gymnasium_robotics")
CHUNK = 3
SEEDS = [7, 100_000, 3]


def chosen_actions(space, seed, chunk):
    generator = np.random.default_rng([seed, chunk])
    return generator.uniform(space.low, space.high, (CHUNK, *space.shape)).astype(space.dtype)


def plain_episode(environment, spec, seed):
    """What a policy is to see, chunk by chunk, the largest reward and whether the goal was reached."""
    observations, rewards, successes = [environment.reset(seed=seed)[0]], [], []
    seen = []
    while len(rewards) < spec.max_steps:
        if len(rewards) % CHUNK == 0:
            newest = [observations[max(0, len(observations) - 2)], observations[-1]]
            seen.append({key: np.stack([np.array(step[key]) for step in newest]) for key in newest[0]})
            actions = list(chosen_actions(environment.action_space, seed, len(rewards) // CHUNK))
        observation, reward, terminated, _, info = environment.step(actions.pop(0))
        observations.append({key: np.array(value) for key, value in observation.items()})
        rewards.append(reward)
        successes.append(bool(info["is_success"]))
        if terminated:
            break
    return seen, max(rewards), any(successes), len(rewards)


@pytest.mark.parametrize("spec", [PUSHT, FETCH], ids=["pusht-image", "fetch"])
def test_dictionaries_arrive_as_they_were_made(spec):
    __import__(spec.module)
    environment = gymnasium.make(spec.id, disable_env_checker=True, max_episode_steps=-1, **spec.kwargs)
    expected = [plain_episode(environment, spec, seed) for seed in SEEDS]
    for workers in (0, 2):
        seen = {seed: [] for seed in SEEDS}

        def policy(observations, seeds, chunk_index, seen=seen):
            actions = np.zeros((2, CHUNK, *environment.action_space.shape), environment.action_space.dtype)
            for slot, seed in enumerate(seeds.tolist()):
                if seed >= 0:
                    seen[seed].append({key: array[slot] for key, array in observations.items()})
                    actions[slot] = chosen_actions(environment.action_space, seed, chunk_index[slot])
            return actions

        with closing(RolloutPool(spec, slots=2, workers=workers)) as pool:
            results = pool.run(policy, SEEDS)
        for result, (chunks, score, success, length) in zip(results, expected, strict=True):
            assert (result.score, result.success, result.length, result.error) == (score, success, length, None)
            assert len(seen[result.seed]) == len(chunks)
            for mine, theirs in zip(seen[result.seed], chunks, strict=True):
                assert mine.keys() == theirs.keys() == set(environment.observation_space.keys())
                for key, array in theirs.items():
                    assert mine[key].dtype == array.dtype
                    np.testing.assert_array_equal(mine[key], array)
    environment.close()
    if spec is PUSHT:
        first = expected[0][0][0]["image"]
        assert (first.dtype, first.shape) == (np.uint8, (2, 96, 96, 3))
        assert first.std() > 5
