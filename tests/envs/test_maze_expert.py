from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest

from policy_accel.envs.maze_expert import PERIOD, draw_route, generate, play_maze, smooth, timed_route
from policy_accel.envs.mazes import PointMaze
from policy_accel.errors import UserError


def clearance(maze, point):
    """Distance of a point to the nearest wall cell."""
    gaps = []
    for row, cells in enumerate(maze.maze_map):
        for column, cell in enumerate(cells):
            if cell == 1:
                outside = np.abs(point - maze.cell_rowcol_to_xy(np.array([row, column]))) - 0.5
                gaps.append(np.linalg.norm(outside.clip(0)))
    return min(gaps)


@pytest.fixture(scope="module")
def large():
    return PointMaze("large")


def test_routes_are_free_and_vary(large):
    routes = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        start, goal = large.maze.cell_rowcol_to_xy((1, 1)), large.maze.cell_rowcol_to_xy((7, 10))
        route = draw_route(large.maze, start, goal, generator)
        np.testing.assert_array_equal(route[[0, -1]], [start, goal])
        assert min(clearance(large.maze, point) for point in smooth(route)) > 0.1  # the ball's radius
        routes.append(tuple(tuple(large.maze.cell_xy_to_rowcol(point)) for point in route))
    assert all(len(route) < 1.4 * min(map(len, routes)) for route in routes)
    assert len(set(routes)) == 2  # around the wall on either side


def test_route_is_the_cheapest_under_equal_costs(large, monkeypatch):
    monkeypatch.setattr("policy_accel.envs.maze_expert.DETOUR", 0.0)
    grid = np.array([[cell != 1 for cell in row] for row in large.maze.maze_map])
    free = [tuple(cell) for cell in np.argwhere(grid)]
    distances = {(one, one): 0 for one in free}
    for one in free:  # breadth first
        queue = [(0, one)]
        while queue:
            far, cell = heapq.heappop(queue)
            for other in (
                (cell[0] + 1, cell[1]),
                (cell[0] - 1, cell[1]),
                (cell[0], cell[1] + 1),
                (cell[0], cell[1] - 1),
            ):
                if grid[other] and (one, other) not in distances:
                    distances[one, other] = far + 1
                    heapq.heappush(queue, (far + 1, other))
    generator = np.random.default_rng(0)
    for one, other in itertools.islice(itertools.permutations(free, 2), 0, None, 97):
        ends = [large.maze.cell_rowcol_to_xy(np.array(cell)) for cell in (one, other)]
        assert len(draw_route(large.maze, *ends, generator)) == distances[one, other] + 1
    same = draw_route(large.maze, ends[0], ends[0] + 0.2, generator)
    np.testing.assert_allclose(same, [ends[0], ends[0] + 0.2])


def test_timing_keeps_the_limits():
    straight = np.array([[0.0, 0.0], [10.0, 0.0]])
    positions, velocities, accelerations = timed_route(straight, speed=4.0, acceleration=8.0)
    # From rest to 4 m/s in 0.5 s and 1 m, as much at the end: 8 m at 4 m/s take 2 s.
    assert len(positions) * PERIOD == pytest.approx(3.0, abs=0.05)
    np.testing.assert_allclose(positions[[0, -1]], straight, atol=1e-6)
    assert velocities.max() == pytest.approx(4.0, rel=1e-3)
    assert np.abs(accelerations[3:-5]).max() < 8.0 * 1.2
    turn = smooth(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [2.0, 2.0]]))
    _, velocities, _ = timed_route(turn, speed=4.0, acceleration=8.0)
    speeds = np.linalg.norm(velocities, axis=1)
    assert speeds[len(speeds) // 3 : -len(speeds) // 3].min() < 3.0  # slower in the bend than before and after it
    assert np.linalg.norm(velocities[-1]) == 0


@pytest.mark.parametrize(("maze", "longest"), [("umaze", 256), ("medium", 384), ("large", 640)])
def test_expert_reaches_every_goal_and_stays(maze, longest):
    env = PointMaze(maze)
    episodes = [play_maze(env, seed) for seed in range(12)]
    for episode in episodes:
        assert episode.success
        assert 10 < len(episode.arrays["action"]) < longest
        distances = np.linalg.norm(episode.arrays["achieved_goal"] - episode.arrays["desired_goal"], axis=1)
        assert distances[-9:].max() < 0.15
        np.testing.assert_array_equal(episode.arrays["reward"][:-1], distances[1:] <= 0.45)
        assert np.abs(episode.arrays["action"]).max() <= 1
    assert len({len(episode.arrays["action"]) for episode in episodes}) > 6


def test_episodes_replay_and_do_not_depend_on_workers():
    seen = []
    alone = generate(4, 2, maze="umaze", progress=lambda *counts: seen.append(counts))
    shared = generate(3, 2, maze="umaze", workers=2)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    np.testing.assert_array_equal(shared.episode_ends, alone.episode_ends[:3])
    assert set(alone.arrays) == {"observation", "achieved_goal", "desired_goal", "action", "reward", "done"}
    for key, values in shared.arrays.items():
        np.testing.assert_array_equal(values, alone.arrays[key][: shared.steps])
        assert values.dtype == (bool if key == "done" else np.float32)
    np.testing.assert_array_equal(np.flatnonzero(alone.arrays["done"]) + 1, alone.episode_ends)
    assert all(facts["seed"] >= 2**31 for facts in alone.episode_metadata)
    env = PointMaze(**alone.metadata["env_args"]["env_kwargs"])
    for number, facts in enumerate(alone.episode_metadata):
        observation, _ = env.reset(seed=facts["seed"])
        for row in range(alone.starts[number], alone.episode_ends[number]):
            for key, value in observation.items():
                np.testing.assert_array_equal(alone.arrays[key][row], value)
            observation, reward, *_ = env.step(alone.arrays["action"][row])
            assert reward == alone.arrays["reward"][row]
        assert reward == 1


def test_other_seeds_are_other_episodes():
    one, other = generate(1, 0, maze="umaze"), generate(1, 1, maze="umaze")
    assert not np.array_equal(one.arrays["desired_goal"][0], other.arrays["desired_goal"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0, "seed": 0}, "episodes is 0"),
        ({"episodes": 1, "seed": -1}, "seed is -1"),
        ({"episodes": 1, "seed": 0, "workers": -2}, "workers is -2"),
        ({"episodes": 1, "seed": 0, "maze": "huge"}, "maze 'huge' is unknown"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        generate(**arguments)
