from __future__ import annotations

import gc
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv, pymunk_to_shapely
from gymnasium.utils.env_checker import check_env

import policy_accel.envs  # noqa: F401  registers the environment
from policy_accel.envs.pusht import PushT, draw_start
from policy_accel.envs.pusht_keypoints import keypoint_observation
from policy_accel.errors import UserError
from policy_accel.extras import to_install

GOAL = [256.0, 256.0, np.pi / 4]


@pytest.fixture(scope="module")
def env():
    return PushT()


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("observation", ["state", "keypoints", "image"])
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space.*")
def test_gymnasium_accepts_the_environment(observation, recwarn):
    env = gymnasium.make("policy_accel/PushT-v0", observation=observation)
    check_env(env.unwrapped)
    assert env.spec.max_episode_steps is None
    assert not [w for w in recwarn if "symmetric" not in str(w.message)]
    env.reset(seed=0)
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((680, 680, 3), np.uint8)


def test_importing_the_package_imports_no_simulator_and_making_the_environment_is_silent():
    done = run_python(
        "import sys, policy_accel.envs, gymnasium\n"
        "assert not {'gym_pusht', 'pygame', 'pymunk', 'torch'} & set(sys.modules)\n"
        "gymnasium.make('policy_accel/PushT-v0').reset(seed=0)\n"
        "assert 'gym_pusht' in sys.modules and 'torch' not in sys.modules\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        ("import sys; sys.modules['gym_pusht'] = None", to_install("pusht")),
        ("import pymunk; pymunk.version = '7.1.0'", "pip install 'pymunk>=6.6,<7'"),
    ],
)
def test_a_missing_or_unfit_simulator_is_one_sentence(spoil, remedy):
    done = run_python(f"{spoil}\nimport policy_accel.envs, gymnasium\ngymnasium.make('policy_accel/PushT-v0')")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("policy_accel.errors.UserError: Push-T needs")
    assert remedy in last


def test_starts_are_those_of_the_recorded_demonstrations(env, replay):
    first = np.concatenate(([0], replay["episode_ends"][:-1]))
    starts = np.array([env.reset(seed=seed)[0] for seed in range(206)])
    np.testing.assert_allclose(starts, replay["state"][first], atol=4e-5)


def test_a_start_is_what_gym_pusht_makes_of_the_same_draw(env):
    reference = PushTEnv()
    for seed in (100000, 100001, 100049):
        expected, _ = reference.reset(options={"reset_to_state": draw_start(seed)})
        np.testing.assert_allclose(env.reset(seed=seed)[0], expected, atol=4e-5)


def test_a_given_state_is_set_exactly(env, replay):
    for state in replay["state"][::500]:
        observed, _ = env.reset(seed=3, options={"state": state})
        np.testing.assert_array_equal(observed, state)


def test_recorded_actions_replay_to_the_recorded_states(env, replay):
    states, actions = replay["state"], replay["action"]
    first = np.concatenate(([0], replay["episode_ends"][:-1]))
    error = []
    for row in first[::10]:
        observed, _ = env.reset(options={"state": states[row]})
        for step in range(20):
            observed, *_ = env.step(actions[row + step])
        error.append(np.abs(observed[:4] - states[row + 20, :4]).max())
    assert np.median(error) < 0.01
    assert max(error) < 2.0


@pytest.fixture(scope="module")
def recorded(shared_data):
    """The recorded pictures [25650, 96, 96, 3] uint8."""
    import zarr

    store = zarr.storage.ZipStore(shared_data / "pusht_v7_u8.zarr.zip", mode="r")
    return zarr.open_group(store, mode="r", zarr_format=2)["data/img"]


def test_pictures_are_the_recorded_pictures(replay, recorded):
    env = PushT(observation="image")
    for row in np.linspace(0, len(replay["state"]) - 1, 100).astype(int):
        observed, _ = env.reset(options={"state": replay["state"][row]})
        np.testing.assert_array_equal(observed["agent_pos"], replay["state"][row, :2])
        assert np.abs(recorded[row].astype(int) - observed["image"]).mean() < 0.02
        env.space.step(1e-9)  # finds where agent and block touch, which a picture shows as a dot
        np.testing.assert_array_equal(env.get_obs()["image"], recorded[row])


def test_pictures_of_an_episode_show_no_action(replay, recorded):
    env = PushT(observation="image")
    first = np.concatenate(([0], replay["episode_ends"][:-1]))
    same = []
    for row in first[::20]:
        env.reset(options={"state": replay["state"][row]})
        for step in range(5):
            observed, *_ = env.step(replay["action"][row + step])
            same.append(np.array_equal(observed["image"], recorded[row + step + 1]))
    assert np.mean(same) > 0.8  # a replay is off by up to 0.01 px, which can round to another pixel
    marked = env.render().astype(int)
    assert ((marked[..., 0] > 250) & (marked[..., 1:].max(-1) < 5)).any()


def test_key_points_belong_to_the_state():
    env, other = PushT(observation="keypoints"), PushT()
    np.testing.assert_allclose(env.reset(seed=5)[0], keypoint_observation(other.reset(seed=5)[0]), atol=1e-4)


def covered_share(pose: list[float]) -> float:
    """Share of a grid of points of the T at the goal that lie in the T at a pose: brute force."""
    grid = np.stack(np.meshgrid(np.arange(0, 512, 0.5), np.arange(0, 512, 0.5)), axis=-1).reshape(-1, 2)

    def within(x, y, angle):
        offset = grid - (x, y)
        u = offset @ (np.cos(angle), np.sin(angle))
        v = offset @ (-np.sin(angle), np.cos(angle))
        return ((np.abs(u) < 60) & (v > 0) & (v < 30)) | ((np.abs(u) < 15) & (v >= 30) & (v < 120))

    goal = within(*GOAL)
    return (goal & within(*pose)).sum() / goal.sum()


@pytest.mark.parametrize("shift", [(0, 0, 0), (6, -3, 0.05), (-30, 20, 0.4)])
def test_reward_is_the_clipped_share_of_the_goal_that_is_covered(env, shift):
    pose = [g + s for g, s in zip(GOAL, shift, strict=True)]
    env.reset(options={"state": [40, 40, *pose]})
    _, reward, terminated, truncated, info = env.step([40, 40])
    assert info["coverage"] == pytest.approx(covered_share(pose), abs=0.01)
    assert reward == pytest.approx(min(info["coverage"] / 0.95, 1))
    assert terminated == info["is_success"] == (info["coverage"] > 0.95)
    assert not truncated


class Plain(PushT):
    """Steps as gym-pusht does, with its own bodies, and all geometry anew at every call."""

    _setup = PushTEnv._setup

    def step(self, action):
        observation, reward, terminated, truncated, _ = PushTEnv.step(self, np.asarray(action, np.float64))
        return observation, float(reward), bool(terminated), truncated, self._info()

    def _get_coverage(self):
        shapes = [shape for shape in self.space.shapes if shape.body is self.block]
        goal = pymunk_to_shapely(self.get_goal_pose_body(self.goal_pose), shapes)
        return float(goal.intersection(pymunk_to_shapely(self.block, shapes)).area / goal.area)


@pytest.mark.parametrize("observation", ["state", "keypoints"])
def test_steps_are_those_of_gym_pusht_to_the_last_bit(observation):
    """The agent goes through the block again and again, which is at the goal, on its way there, or at a wall."""
    pushed, covered = 0, set()
    ours, plain = PushT(observation=observation), Plain(observation=observation)
    for seed, start in enumerate((None, None, [40, 40, *GOAL], [300, 100, 240, 250, 0.9], [200, 40, 60, 40, 2.0])):
        options = None if start is None else {"state": start}
        draws = np.random.default_rng(seed)
        first, other = ours.reset(seed=seed, options=options), plain.reset(seed=seed, options=options)
        assert (first[0] == other[0]).all()
        assert first[1] == other[1]
        for _ in range(60):
            before = ours.block.position
            action = np.array(before) + draws.normal(scale=60, size=2)
            (seen, *told), (expected, *facts) = ours.step(action), plain.step(action)
            assert told == facts
            assert (seen == expected).all()
            assert (*ours.agent.position, *ours.block.position) == (*plain.agent.position, *plain.block.position)
            pushed += ours.block.position != before
            covered.add(told[0])
    assert pushed > 60
    assert len(covered) > 30
    assert {0.0, 1.0} < covered


def test_key_points_that_nobody_looks_at_are_the_last_ones_and_nothing_else_changes():
    """Of a chunk of eight steps the last two are looked at; a reset is always."""
    seeing, sparing = PushT(observation="keypoints"), PushT(observation="keypoints")
    draws = np.random.default_rng(0)
    for seed in range(2):
        first, last = seeing.reset(seed=seed)[0], sparing.reset(seed=seed)[0]
        np.testing.assert_array_equal(first, last)
        for step in range(24):
            action = np.array(seeing.block.position) + draws.normal(scale=60, size=2)
            sparing.frames_wanted = step % 8 >= 6
            (expected, *facts), (seen, *told) = seeing.step(action), sparing.step(action)
            assert told == facts
            np.testing.assert_array_equal(seen, expected if sparing.frames_wanted else last)
            assert not np.array_equal(last, expected)
            last = seen
    last[:] = 0
    assert sparing.get_obs().all(), "what was given out is not looked at again"


def test_episodes_leave_no_physics_behind():
    """A space that the garbage collector must find (one held by its collision handler) stays for hundreds of them."""
    import pymunk

    def spaces():
        return sum(type(thing) is pymunk.Space for thing in gc.get_objects())

    env = PushT(observation="keypoints")
    env.reset(seed=0)
    gc.collect()
    gc.disable()
    try:
        before = spaces()
        for seed in range(5):
            env.reset(seed=seed)
            env.step(np.array(env.block.position))
        assert spaces() == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: PushT(observation="keypoint"), "did you mean 'keypoints'"),
        (lambda env: env.reset(options={"state": [1, 2, 3]}), r"five finite numbers.*\[1, 2, 3\]"),
        (lambda env: env.reset(options={"state": [1, 2, 3, 4, np.nan]}), "five finite numbers"),
        (lambda env: env.step([np.nan, 3]), "two finite numbers"),
        (lambda env: env.step([1, 2, 3]), "two finite numbers"),
    ],
)
def test_bad_input_is_one_sentence(env, call, message):
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        call(env)
