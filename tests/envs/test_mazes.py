from __future__ import annotations

import glob
import tempfile

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.maze.ant_maze_v4 import AntMazeEnv
from gymnasium_robotics.envs.maze.maps import MEDIUM_MAZE, U_MAZE
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

from policy_accel.envs.mazes import AntMaze, PointMaze
from policy_accel.errors import UserError


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(lambda: PointMaze("medium"), lambda: PointMazeEnv(MEDIUM_MAZE)), (AntMaze, lambda: AntMazeEnv(maze_map=U_MAZE))],
)
def test_episodes_are_those_of_the_simulator(ours, theirs):
    ours, theirs = ours(), theirs()
    actions = np.random.default_rng(0).uniform(-1, 1, (40, *ours.action_space.shape)).astype(np.float32)
    for seed in (0, 7):
        own, other = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        for action in actions:
            assert set(own) == set(other)
            for key, value in own.items():
                assert value.dtype == np.float32
                np.testing.assert_array_equal(value, other[key].astype(np.float32))
            own, reward, terminated, _, info = ours.step(action)
            other, their_reward, *_ = theirs.step(action)
            assert reward == their_reward == float(terminated) == float(info["is_success"])


@pytest.mark.parametrize("env", [PointMaze("large"), AntMaze("medium")])
def test_gymnasium_accepts_the_environment(env):
    with pytest.warns(UserWarning, match="Box observation space"):  # its bounds are infinite
        check_env(env, skip_render_check=True)


def test_success_terminates_and_is_rewarded():
    env = PointMaze("umaze")
    _, info = env.reset(options={"state": [-1.0, 1.0, 0, 0], "goal": [-0.2, 1.0]})
    assert not info["is_success"]
    for _ in range(100):
        observation, reward, terminated, truncated, info = env.step([0.2, 0.0])
        distance = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"])
        assert (distance <= 0.45) == terminated == info["is_success"] == (reward == 1)
        assert not truncated
        if terminated:
            break
    assert terminated
    assert env.reset(options={"state": [-1.0, 1.0, 0, 0], "goal": [-0.6, 1.0]})[1]["is_success"]


def test_state_and_goal_are_reset_exactly():
    for env in (PointMaze("medium"), AntMaze("umaze")):
        env.reset(seed=1)
        for action in np.random.default_rng(1).uniform(-1, 1, (30, *env.action_space.shape)):
            env.step(action)
        data = env.body.data
        state, goal = np.concatenate((data.qpos, data.qvel)), env.simulator.goal.copy()
        before = env.observe()
        env.reset(seed=5)
        after, _ = env.reset(seed=6, options={"state": state, "goal": goal})
        for key, value in before.items():
            np.testing.assert_array_equal(after[key], value.astype(np.float32))


def test_fixed_goal_holds_and_the_start_is_away_from_it():
    env = PointMaze("umaze", goal=(0.9, -0.9))
    starts = []
    for seed in range(60):
        observation, info = env.reset(seed=seed)
        np.testing.assert_array_equal(observation["desired_goal"], np.float32([0.9, -0.9]))
        assert not info["is_success"]
        starts.append(observation["achieved_goal"])
    again = env.reset(seed=59)[0]
    np.testing.assert_array_equal(again["achieved_goal"], starts[-1])
    assert np.ptp(starts, axis=0).min() > 1.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointMaze("medum"), "maze 'medum' is unknown; did you mean 'medium'"),
        (lambda: PointMaze("umaze", goal=(0.0, 0.0)).reset(seed=0), "goal .* is in a wall"),
        (lambda: PointMaze("umaze", goal=(90.0, 0.0)).reset(seed=0), "outside the maze"),
        (lambda: PointMaze("umaze", goal=(0.0, 0.0, 1.0)), r"goal is .* shape \(2,\)"),
        (lambda: PointMaze().reset(seed=0, options={"stat": 1}), "no option 'stat'; did you mean 'state'"),
        (lambda: PointMaze().reset(seed=0, options={"state": [0, 0, np.nan, 0]}), "state is .* finite"),
        (lambda: PointMaze().step([0.0]), "action is"),
        (lambda: AntMaze(render_camera="trak"), "render_camera 'trak' is unknown; did you mean 'track'"),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_no_file_is_left_behind():
    pattern = f"{tempfile.gettempdir()}/ant_maze*.xml"
    before = set(glob.glob(pattern))
    PointMaze("large").close()
    assert set(glob.glob(pattern)) <= before


def test_pictures_show_the_camera_and_leave_the_episode_alone():
    whole, tracking, plain = (
        AntMaze(render_mode="rgb_array"),
        AntMaze(render_mode="rgb_array", render_camera="track"),
        AntMaze(),
    )
    for env in (whole, tracking, plain):
        env.reset(seed=3)
    frames = []
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 8)):
        frames = [env.render() for env in (whole, tracking)]
        observations = [env.step(action)[0]["observation"] for env in (whole, tracking, plain)]
        np.testing.assert_array_equal(observations[0], observations[2])
    assert plain.render() is None
    assert all(frame.shape == (480, 480, 3) and frame.dtype == np.uint8 and frame.std() > 10 for frame in frames)
    assert (frames[0] != frames[1]).mean() > 0.1
    ball = PointMaze("umaze", render_mode="rgb_array")
    assert isinstance(ball, gymnasium.Env)
    pictures = []
    for x in (-1.0, 1.0):
        ball.reset(options={"state": [x, 1.0, 0, 0], "goal": [0.0, -1.0]})
        pictures.append(ball.render().astype(int))
    changed = (np.abs(pictures[0] - pictures[1]).max(-1) > 50).mean()
    assert 0.0005 < changed < 0.1
    for env in (whole, tracking, ball):
        env.close()
