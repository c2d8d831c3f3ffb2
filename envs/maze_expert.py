"""A scripted expert for `PointMaze`: a drawn route through the cells, timed, tracked by a PD controller."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from policy_accel.data.episodes import Episodes

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .mazes import PointMaze, maze_map
from .planning import env_args

PERIOD = 0.01  # s of a control step
FULL_ACCELERATION = 100.0 / (4 / 3 * np.pi * 0.1**3 * 1000.0)  # m/s^2 of action 1: the motors' 100 N on the ball
DAMPING = 1.0 / (4 / 3 * np.pi * 0.1**3 * 1000.0)  # 1/s
DETOUR = 0.4  # a cell of the route costs between 1 and 1 + DETOUR, so that routes of similar length are all taken
OFFSET = 0.15  # m by which the route passes beside the middle of a cell, at most
SPACING = 0.01  # m between points of the timed route
SPEEDS = (3.4, 4.6)  # m/s, drawn for an episode
ACCELERATIONS = (11.0, 15.0)  # m/s^2, along and across the route, drawn for an episode
STIFFNESS, VISCOSITY = 60.0, 14.0  # 1/s^2, 1/s
NOISE = (0.0, 0.25)  # standard deviation of the disturbance of the actions, drawn for an episode
NOISE_STEPS = 10.0  # correlation of the disturbance
STAY = (10, 16)  # steps at the goal in the end: from 10 to 15
SETTLE = 40  # steps that the ball gets to arrive after the reference has
ARRIVED = 0.15  # m


def generate(
    episodes: int,
    seed: int,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    maze: str = "medium",
) -> Episodes:
    """Episodes that go to the environment's drawn goal and stay there for 10 to 15 steps.

    The result depends on `episodes`, `seed` and `maze` only, and fewer episodes are the first ones of more.

    Args:
        episodes: how many, at least 1.
        seed: 0 or above; draws starts, goals, routes, paces and disturbances.
        workers: processes that share the work; 0 or 1 plays in this process.
        progress: called with (episodes so far, episodes).
        maze: "umaze", "medium", "large" or "open".

    Returns:
        observation [N, 4] (x, y in m, velocities in m/s), achieved_goal [N, 2], desired_goal [N, 2], action [N, 2],
        reward [N] float32 (1 after an action within 0.45 m of the goal) and done [N] bool (the last step of an
        episode).

    Raises:
        UserError: an unknown maze; a number too small; a worker process that died.
    """
    maze_map(maze)
    kept = successful_episodes(partial(_attempt, maze, seed), episodes, seed, workers=workers, progress=progress)
    environment = env_args("policy_accel/PointMaze-v0", maze=maze)
    metadata = {"env_args": environment, "fps": PointMaze.metadata["render_fps"]}
    return end_to_end(kept, f"scripted expert in PointMaze {maze}", metadata)


def _attempt(maze: str, seed: int, index: int) -> Attempt | None:
    episode = play_maze(_environment(maze), start_seed(seed, index))
    return episode if episode.success else None


@cache
def _environment(maze: str) -> PointMaze:
    return PointMaze(maze)


def play_maze(env: PointMaze, seed: int) -> Attempt:
    """Play from the environment's start for `seed`, which draws the expert's route, pace and disturbance too.

    Returns:
        The arrays of `generate`, the last 10 to 15 steps at the goal; a success when the ball came
        to rest there.
    """
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    goal = observation["desired_goal"]
    positions, velocities, accelerations = timed_route(
        smooth(draw_route(env.maze, observation["achieved_goal"], goal, generator)),
        speed=generator.uniform(*SPEEDS),
        acceleration=generator.uniform(*ACCELERATIONS),
    )
    size, stay = generator.uniform(*NOISE), int(generator.integers(*STAY))
    disturbance, remaining = np.zeros(2), stay
    observations, actions, rewards = [], [], []
    for step in range(len(positions) + SETTLE):
        index = min(step, len(positions) - 1)
        state = observation["observation"]
        wanted = accelerations[index] + DAMPING * velocities[index]
        wanted = wanted + STIFFNESS * (positions[index] - state[:2]) + VISCOSITY * (velocities[index] - state[2:])
        disturbance *= 1 - 1 / NOISE_STEPS
        disturbance += size * np.sqrt(1 - (1 - 1 / NOISE_STEPS) ** 2) * generator.standard_normal(2)
        action = np.clip(wanted / FULL_ACCELERATION + disturbance, -1, 1).astype(np.float32)
        observations.append(state)
        actions.append(action)
        observation, reward, *_ = env.step(action)
        rewards.append(reward)
        if index == len(positions) - 1 and np.linalg.norm(observation["achieved_goal"] - goal) < ARRIVED:
            remaining -= 1
            if remaining == 0:
                break
    arrays = {
        "observation": np.array(observations),
        "achieved_goal": np.array(observations)[:, :2],
        "desired_goal": np.repeat(goal[None], len(actions), axis=0),
        "action": np.array(actions),
        "reward": np.array(rewards, np.float32),
        "done": np.arange(len(actions)) == len(actions) - 1,
    }
    return Attempt(arrays, remaining == 0, {"seed": seed})


def draw_route(maze: Any, start: np.ndarray, goal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Points [K, 2] from `start` to `goal`: Dijkstra's cheapest chain of free cells, whose costs are drawn.

    Args:
        maze: gymnasium-robotics' `Maze`.
        start: [2] x, y in a free cell.
        goal: [2] x, y in a free cell.
        generator: draws the cost of each cell and where the route crosses it.
    """
    free = np.array([[cell != 1 for cell in row] for row in maze.maze_map])
    costs = generator.uniform(1, 1 + DETOUR, free.shape)
    first, last = (tuple(maze.cell_xy_to_rowcol(point)) for point in (start, goal))
    cheapest, come_from = {last: 0.0}, {}
    queue = [(0.0, last)]
    while queue:
        cost, cell = heapq.heappop(queue)
        if cell == first:
            break
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            following = (cell[0] + step[0], cell[1] + step[1])
            if free[following] and cost + costs[following] < cheapest.get(following, np.inf):
                cheapest[following], come_from[following] = cost + costs[following], cell
                heapq.heappush(queue, (cheapest[following], following))
    points, cell = [np.asarray(start, dtype=np.float64)], first
    while cell != last:
        cell = come_from[cell]
        points.append(maze.cell_rowcol_to_xy(cell) + generator.uniform(-OFFSET, OFFSET, 2))
    points[-1 if len(points) > 1 else len(points) :] = [np.asarray(goal, dtype=np.float64)]
    return np.array(points)


def smooth(points: np.ndarray) -> np.ndarray:
    """Cut the corners of a chain of points [K, 2] three times (Chaikin 1974); its ends stay."""
    for _ in range(3):
        quarter, three_quarters = 0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]
        inner = np.stack((quarter, three_quarters), axis=1).reshape(-1, 2)
        points = np.concatenate((points[:1], inner, points[-1:]))
    return points


def timed_route(points: np.ndarray, *, speed: float, acceleration: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Travel a smooth chain of points [K, 2] from rest to rest, as fast as the limits allow.

    Args:
        points: in m.
        speed: largest speed in m/s.
        acceleration: largest acceleration along the chain, and separately across it, in m/s^2.

    Returns:
        positions, velocities and accelerations [T, 2], every PERIOD seconds; the last are the end at rest.
    """
    arc = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    distances = np.linspace(0, arc[-1], max(3, int(arc[-1] / SPACING) + 1))
    line = np.stack([np.interp(distances, arc, points[:, axis]) for axis in range(2)], axis=1)
    gap = distances[1] - distances[0]
    tangents = np.gradient(line, axis=0) / max(gap, 1e-9)
    bends = np.linalg.norm(np.gradient(tangents, axis=0), axis=1) / max(gap, 1e-9)
    width = max(1, round(0.1 / SPACING))
    bends = np.convolve(bends, np.ones(width) / width, mode="same")  # the chain turns at its points only
    squared = np.minimum(speed**2, acceleration / np.maximum(bends, 1e-6))
    squared[[0, -1]] = 0.0
    for order in (range(1, len(squared)), range(len(squared) - 2, -1, -1)):
        for index in order:
            before = index - order.step
            squared[index] = min(squared[index], squared[before] + 2 * acceleration * gap)
    speeds = np.sqrt(squared)
    durations = 2 * gap / np.maximum(speeds[:-1] + speeds[1:], 1e-3)
    clock = np.concatenate(([0.0], np.cumsum(durations)))
    times = np.minimum(np.arange(0, clock[-1] + PERIOD, PERIOD), clock[-1])
    before = np.searchsorted(clock[1:-1], times, side="right")  # the acceleration is constant between two points
    since = times - clock[before]
    rates = np.diff(speeds)[before] / durations[before]
    travelled = distances[before] + speeds[before] * since + rates * since**2 / 2
    positions = np.stack([np.interp(travelled, distances, line[:, axis]) for axis in range(2)], axis=1)
    velocities = np.gradient(positions, PERIOD, axis=0)
    velocities[-1] = 0.0
    accelerations = np.gradient(velocities, PERIOD, axis=0)
    accelerations[-1] = 0.0
    return positions, velocities, accelerations
