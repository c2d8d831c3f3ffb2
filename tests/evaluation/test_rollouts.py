from contextlib import closing

import gymnasium
import numpy as np
import pytest
import toy_environments

from policy_accel.errors import UserError
from policy_accel.evaluation import EnvironmentSpec, EpisodeResult, RolloutPool

SEEDS = [5, 3, 11, 0, 7, 42, 8, 1, 13, 2, 21]
CHUNK = 4


def spec(max_steps=14, n_obs_steps=3, id="toy/Walk-v0", **kwargs):
    return EnvironmentSpec(id, kwargs, max_steps, n_obs_steps, module="toy_environments")


def row_actions(history, seed, chunk):
    """A policy that notices any change of the history: [n_obs_steps, 4] -> [CHUNK, 2]."""
    noise = np.random.default_rng([seed, chunk]).normal(size=(CHUNK, 2))
    weights = np.linspace(1, 2, len(history))
    return noise - (weights[:, None] * history[:, 2:]).sum(0) / weights.sum()


def act(observations, seeds, chunk_index):
    actions = np.zeros((len(seeds), CHUNK, 2))
    for slot, seed in enumerate(seeds):
        if seed >= 0:
            actions[slot] = row_actions(observations[slot], seed, chunk_index[slot])
    return actions


def plain_episode(seed, max_steps=14, n_obs_steps=3, **kwargs):
    """One environment, one step at a time."""
    environment = toy_environments.Walk(**kwargs)
    observations = [environment.reset(seed=seed)[0].copy()]
    rewards, successes, planned = [], [], []
    while len(rewards) < max_steps:
        if not planned:
            past = [observations[max(len(observations) - n_obs_steps + i, 0)] for i in range(n_obs_steps)]
            planned = list(row_actions(np.array(past), seed, len(rewards) // CHUNK))
        observation, reward, terminated, _, info = environment.step(planned.pop(0))
        observations.append(observation.copy())
        rewards.append(reward)
        successes.append(info.get("is_success"))
        if terminated:
            break
    success = any(successes) if environment.is_success else max(rewards) >= 1
    source = "info.is_success" if environment.is_success else "reward >= 1"
    return EpisodeResult(seed, max(rewards), success, len(rewards), success_from=source)


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def pool(request):
    with closing(RolloutPool(spec(), slots=4, workers=request.param)) as pool:
        yield pool


def test_results_equal_a_plain_loop(pool):
    """Of different lengths, past the registered time limit, cut in the middle of a chunk; the same for all workers."""
    expected = [plain_episode(seed) for seed in SEEDS]
    assert pool.run(act, SEEDS) == expected
    assert pool.run(act, SEEDS[::-1]) == expected[::-1]
    lengths = [result.length for result in expected]
    assert max(lengths) == 14
    assert any(length % CHUNK for length in lengths)
    assert {result.success for result in expected} == {True, False}


def test_calls_of_the_policy(pool):
    """The batch has one shape, idle slots are marked, free slots take the next seeds in order."""
    rounds = []

    def recorded(observations, seeds, chunk_index):
        rounds.append((observations, seeds.copy(), chunk_index.copy()))
        return act(observations, seeds, chunk_index)

    results = pool.run(recorded, SEEDS)
    slots = [[seed, result.length] for seed, result in zip(SEEDS[:4], results[:4], strict=True)]
    waiting = list(zip(SEEDS[4:], results[4:], strict=True))
    chunks = [0] * 4
    for observations, seeds, chunk_index in rounds:
        assert observations.shape == (4, 3, 4)
        assert seeds.tolist() == [seed for seed, _ in slots]
        assert chunk_index.tolist() == chunks
        for slot, (seed, left) in enumerate(slots):
            if seed == -1:
                assert not observations[slot].any()
                continue
            assert (observations[slot, :, 0] == seed).all()
            newest = chunks[slot] * CHUNK
            assert observations[slot, :, 1].tolist() == [max(newest - 2, 0), max(newest - 1, 0), newest]
            chunks[slot] += 1
            slots[slot][1] = left - CHUNK
            if left <= CHUNK:
                chunks[slot] = 0
                seed, result = waiting.pop(0) if waiting else (-1, None)
                slots[slot] = [seed, result.length if result else 0]
    assert all(seed == -1 for seed, _ in slots)


def test_progress_counts_episodes(pool):
    counts = []
    pool.run(act, SEEDS[:3], progress=lambda done, total: counts.append((done, total)))
    assert counts == [(1, 3), (2, 3), (3, 3)]


def test_no_seeds(pool):
    assert pool.run(act, []) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_dictionary_observations(workers):
    seen = []

    def policy(observations, seeds, chunk_index):
        seen.append(observations)
        return np.zeros((2, CHUNK, 2))

    with closing(RolloutPool(spec(n_obs_steps=2, as_dict=True, lasts=6), slots=2, workers=workers)) as pool:
        results = pool.run(policy, [4])
    assert [result.length for result in results] == [6]
    assert [batch["state"].shape for batch in seen] == [(2, 2, 4)] * 2
    assert [batch["image"].dtype for batch in seen] == [np.uint8] * 2
    assert [batch["image"][0, :, 0, 0].tolist() for batch in seen] == [[0, 0], [3, 4]]
    assert not seen[0]["image"][1].any()


def test_success_without_is_success():
    """Then a reward of 1 is a success; standing still at the origin is rewarded with exactly 1."""

    def home(observations, seeds, chunk_index):
        return -observations[:, -1:, 2:] / 0.3

    environment = spec(is_success=False)
    with closing(RolloutPool(environment, slots=2, workers=0)) as pool:
        results = pool.run(act, [3, 5])
        assert results == [plain_episode(seed, is_success=False) for seed in (3, 5)]
        assert not any(result.success for result in results)
    still = EnvironmentSpec("toy/Still-v0", {}, 3, 1, module="toy_environments")
    gymnasium.register("toy/Still-v0", entry_point=Still)
    with closing(RolloutPool(still, slots=1, workers=0)) as pool:
        assert pool.run(home, [0]) == [EpisodeResult(0, 1.0, True, 3, success_from="reward >= 1")]


class Told(gymnasium.Env):
    """Rewards 3, -1, 2; what it says of success, under a key, at each of its three steps."""

    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, said, key="success"):
        self.said, self.key = said, key

    def reset(self, *, seed=None, options=None):
        self.step_number = 0
        return {"robot": {"joints": np.zeros(2), "name": "left"}, "unused": np.array([np.inf])}, {}

    def step(self, action):
        observation = {"robot": {"joints": np.ones(2), "name": "right"}, "unused": np.array([np.nan])}
        self.step_number += 1
        info = {self.key: self.said[self.step_number - 1]} if self.said else {}
        return observation, (3.0, -1.0, 2.0)[self.step_number - 1], False, False, info


gymnasium.register("toy/Told-v0", entry_point=Told)


@pytest.mark.parametrize(
    ("kwargs", "success", "source"),
    [
        ({"said": [0.0, np.float32(1.0), 0.0]}, True, "info.success"),
        ({"said": [0, 0, 0]}, False, "info.success"),
        ({"said": [np.array([False]), np.nan, None]}, False, "info.success"),
        ({"said": [False, True, False], "key": "is_success"}, True, "info.is_success"),
        ({"said": []}, True, "reward >= 1"),
    ],
)
@pytest.mark.parametrize(
    ("score", "value"), [("max_reward", 3.0), ("return", 4.0), ("final_reward", 2.0), ("success", None)]
)
def test_success_is_what_the_environment_says_and_the_score_is_chosen(kwargs, success, source, score, value):
    told = EnvironmentSpec("toy/Told-v0", kwargs, 3, 1, __name__, score=score, entries=("robot.joints",))
    seen = []

    def still(observations, seeds, chunk_index):
        seen.append(observations)
        return np.zeros((1, 3, 2))

    with closing(RolloutPool(told, slots=1, workers=0)) as pool:
        (result,) = pool.run(still, [0])
    wanted = float(success) if value is None else value
    assert (result.score, result.success, result.success_from) == (wanted, success, source)
    assert list(seen[0]) == ["robot.joints"]  # what nobody takes may be no number


class Still(toy_environments.Walk):
    def step(self, action):
        observation, _, _, truncated, _ = super().step(action)
        return observation, 1.0, False, truncated, {}


def test_truncation_ends_an_episode():
    gymnasium.register("toy/Truncated-v0", entry_point=Truncated)
    environment = EnvironmentSpec("toy/Truncated-v0", {}, 50, 1, module="toy_environments")
    with closing(RolloutPool(environment, slots=1, workers=0)) as pool:
        assert pool.run(act, [0])[0].length == 6


class Truncated(toy_environments.Walk):
    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, self.time == 6, info


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_actions_name_seed_and_chunk(workers, bad):
    def policy(observations, seeds, chunk_index):
        actions = act(observations, seeds, chunk_index)
        actions[(seeds == 3) & (chunk_index == 1), 2, 1] = bad
        actions[seeds == -1] = np.nan
        return actions

    with closing(RolloutPool(spec(), slots=3, workers=workers)) as pool:
        with pytest.raises(UserError, match="seed 3, chunk 1"):
            pool.run(policy, [5, 3])
        assert pool.run(act, [5, 3]) == [plain_episode(5), plain_episode(3)], "the pool is good for another run"


@pytest.mark.parametrize("shape", [(3, CHUNK, 2), (2,), (2, 0, 2)])
def test_actions_of_a_wrong_shape(shape):
    with (
        closing(RolloutPool(spec(), slots=2, workers=0)) as pool,
        pytest.raises(UserError, match=r"\[2, n_action_steps, \*action\]"),
    ):
        pool.run(lambda *_: np.zeros(shape), [1])


def test_workers_import_little_and_use_one_thread():
    seen = []

    def policy(observations, seeds, chunk_index):
        seen.append(observations[:, -1])
        return np.zeros((4, 1, 2))

    with closing(RolloutPool(spec(id="toy/Inspect-v0", max_steps=1), slots=4, workers=2)) as pool:
        pool.run(policy, [0, 1, 2, 3])
        pool.run(policy, [0, 1, 2, 3])
    first, second = seen
    assert (first == second).all(), "the workers live on"
    assert not first[:, 0].any(), "torch"
    assert (first[:, 1] == 1).all(), "threads"
    assert first[0, 2] == first[2, 2] != first[1, 2] == first[3, 2], "slots are spread in turn"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (EnvironmentSpec("toy/None-v0", {}, 5, 1, "toy_environments"), "'toy/None-v0'.*cannot be made"),
        (EnvironmentSpec("toy/Walk-v0", {"color": 1}, 5, 1, "toy_environments"), "color"),
        (EnvironmentSpec("toy/Walk-v0", {}, 5, 1, "no_such.module"), "'no_such.module'.*does not import"),
        (EnvironmentSpec("toy/Homeless-v0", {}, 5, 1, "toy_environments"), "'toy/Homeless-v0' needs .* 'a_simulator'"),
    ],
)
def test_environments_that_cannot_be_made(workers, environment, words):
    with closing(RolloutPool(environment, slots=2, workers=workers)) as pool, pytest.raises(UserError, match=words):
        pool.run(act, [1])


@pytest.mark.parametrize(("workers", "slots"), [(0, 1), (0, 4), (2, 4)])
def test_where_no_episode_can_begin_it_is_said_once(tmp_path, workers, slots):
    environment = spec(id="toy/Lost-v0", folder=str(tmp_path))
    with (
        closing(RolloutPool(environment, slots=slots, workers=workers)) as pool,
        pytest.raises(
            UserError, match="no episode of environment 'toy/Lost-v0' can begin: RuntimeError: no display found"
        ),
    ):
        pool.run(act, SEEDS)
    assert (tmp_path / "resets").stat().st_size <= max(4, 2 * slots)


def test_environments_are_made_in_all_workers_at_once(tmp_path):
    environment = spec(id="toy/Together-v0", max_steps=1, folder=str(tmp_path), count=3)
    with closing(RolloutPool(environment, slots=3, workers=3)) as pool:
        results = pool.run(lambda *_: np.zeros((3, 1, 2)), [0, 1, 2])
    assert [result.error for result in results] == [None] * 3


def test_workers_can_be_started_before_the_first_run(tmp_path):
    with closing(RolloutPool(spec(), slots=2, workers=2)) as pool:
        pool.start()
        host = pool._host
        assert pool.run(act, [5, 3]) == [plain_episode(5), plain_episode(3)]
        assert pool._host is host
    with closing(RolloutPool(spec(id="toy/Homeless-v0"), slots=2, workers=2)) as pool:
        pool.start()
        with pytest.raises(UserError, match="'a_simulator'"):
            pool.run(act, [5, 3])


@pytest.mark.parametrize("workers", [0, 1])
def test_metrics_of_the_last_step(workers, tmp_path):
    environment = spec(id="toy/Counting-v0", trouble={42: ("nan-metric", 0, 0)}, folder=str(tmp_path))
    with closing(RolloutPool(environment, slots=2, workers=workers)) as pool:
        results = pool.run(act, [*SEEDS[:4], 42])
    expected = [plain_episode(seed) for seed in SEEDS[:4]]
    for result, plain in zip(results[:4], expected, strict=True):
        assert (result.length, result.score, result.success) == (plain.length, plain.score, plain.success)
        cut = plain.length == 14
        assert result.metrics == {"steps": plain.length} | ({} if cut else {"long": float(plain.length > 10)})
    assert results[4].error == "ValueError: the metric long at the end of the episode is nan"


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: spec(max_steps=0), "task.max_steps=0"),
        (lambda: EnvironmentSpec("a", {}, 1, 1, "toys/a.py"), "'toys/a.py'"),
    ],
)
def test_bad_arguments(call, word):
    with pytest.raises(UserError, match=word):
        call()
