"""Scripted experts for `Fetch`: grasp and carry, or push from behind; pace, heights and disturbance are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.errors import one_of

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .fetch import TASKS, Fetch
from .planning import env_args

STEPS = 100  # an attempt that takes longer has failed
REACH = 0.05  # m of an action of 1
OPEN, SHUT = 1.0, -1.0
NOISE = (0.0, 0.25)  # standard deviation of the disturbance of the actions, drawn for an episode
NOISE_STEPS = 4.0  # correlation of the disturbance
NEAR = 0.042  # m from the goal, where the push ends
STAY = (5, 11)  # steps after the success: from 5 to 10


def generate(
    episodes: int,
    seed: int,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    task: str = "pick_and_place",
) -> Episodes:
    """Episodes that bring the cube to the environment's drawn goal and keep it there for 5 to 10 steps.

    The result depends on `episodes`, `seed` and `task` only, and fewer episodes are the first ones of more. Attempts
    that fail are left out.

    Args:
        episodes: how many, at least 1.
        seed: 0 or above; draws cubes, goals, the expert's manner and its disturbances.
        workers: processes that share the work; 0 or 1 plays in this process.
        progress: called with (successful episodes so far, episodes).
        task: "push" or "pick_and_place".

    Returns:
        observation [N, 25], achieved_goal [N, 3] (the cube, m), desired_goal [N, 3], action [N, 4], reward [N] float32
        (1 after an action that leaves the cube within 5 cm of the goal), done [N] bool (the last step of an episode)
        and sim_state [N, D] float64, for the option "state" of the environment's reset.

    Raises:
        UserError: an unknown task; a number too small; a worker process that died.
    """
    one_of("task", task, TASKS)
    kept = successful_episodes(partial(_attempt, task, seed), episodes, seed, workers=workers, progress=progress)
    environment = env_args("policy_accel/Fetch-v0", task=task)
    metadata = {"env_args": environment, "fps": Fetch.metadata["render_fps"]}
    return end_to_end(kept, f"scripted expert in Fetch {task}", metadata)


def _attempt(task: str, seed: int, index: int) -> Attempt | None:
    episode = play_fetch(_environment(task), start_seed(seed, index))
    return episode if episode.success else None


@cache
def _environment(task: str) -> Fetch:
    return Fetch(task)


def play_fetch(env: Fetch, seed: int) -> Attempt:
    """Play from the environment's start for `seed`, which draws the expert's manner and disturbance too.

    Returns:
        The arrays of `generate`; the last 5 to 10 steps come after the success.
    """
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    goal = observation["desired_goal"]
    expert = Pusher(generator) if env.task == "push" else Carrier(generator)
    size, remaining = generator.uniform(*NOISE), int(generator.integers(*STAY))
    disturbance, reached = np.zeros(4), False
    rows: list[tuple[np.ndarray, ...]] = []
    rewards: list[float] = []
    for _ in range(STEPS):
        disturbance *= 1 - 1 / NOISE_STEPS
        disturbance[:3] += size * np.sqrt(1 - (1 - 1 / NOISE_STEPS) ** 2) * generator.standard_normal(3)
        wanted = expert.act(observation["observation"], goal)
        action = np.clip(wanted + disturbance, -1, 1).astype(np.float32)
        rows.append((observation["observation"], observation["achieved_goal"], action, env.state()))
        observation, reward, *_ = env.step(action)
        rewards.append(reward)
        reached = reached or reward == 1
        remaining -= reached
        if remaining == 0:
            break
    observations, achieved, actions, states = (np.array(part) for part in zip(*rows, strict=True))
    arrays = {
        "observation": observations,
        "achieved_goal": achieved,
        "desired_goal": np.repeat(goal[None], len(rows), axis=0),
        "action": actions,
        "reward": np.array(rewards, np.float32),
        "done": np.arange(len(rows)) == len(rows) - 1,
        "sim_state": states,
    }
    return Attempt(arrays, remaining == 0 and reward == 1, {"seed": seed})


class Carrier:
    """Go above the cube, down around it, shut the fingers, carry it to the goal."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.gain = generator.uniform(0.7, 1.1)
        self.hover = generator.uniform(0.04, 0.09)  # m above the cube
        self.patience = int(generator.integers(3, 6))  # steps for the fingers to shut
        self.shutting = 0

    def act(self, observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The action [4] for an observation [25] and a goal [3]."""
        gripper, cube = observation[:3].astype(np.float64), observation[3:6].astype(np.float64)
        offset = cube - gripper
        beside = np.linalg.norm(offset[:2])
        if beside > 0.03 or abs(offset[2]) > 0.03:
            self.shutting = 0
        if self.shutting:
            self.shutting += 1
            if self.shutting <= self.patience:
                return np.array([0.0, 0.0, 0.0, SHUT])
            return self._towards(goal - cube, SHUT)
        if beside > 0.015:
            above = np.array([0.0, 0.0, self.hover if beside > 0.03 or offset[2] < -0.015 else 0.0])
            return self._towards(offset + above, OPEN)
        if abs(offset[2]) > 0.012:
            return self._towards(offset, OPEN)
        self.shutting = 1
        return np.array([0.0, 0.0, 0.0, SHUT])

    def _towards(self, way: np.ndarray, fingers: float) -> np.ndarray:
        return np.append(np.clip(self.gain * way / REACH, -1, 1), fingers)


class Pusher:
    """Go around the cube to the side away from the goal, push along the line to the goal, start again if it turns."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.gain = generator.uniform(0.8, 1.1)
        self.behind = generator.uniform(0.075, 0.095)  # m from the cube's middle to where a push begins
        self.height = generator.uniform(0.07, 0.1)  # m above the cube's middle on the way around it
        self.speed = generator.uniform(0.3, 0.5)  # of an action
        self.pushing = False

    def act(self, observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The action [4] for an observation [25] and a goal [3]."""
        gripper, cube = observation[:3].astype(np.float64), observation[3:6].astype(np.float64)
        way = goal[:2] - cube[:2]
        length = max(float(np.linalg.norm(way)), 1e-6)
        ahead = way / length
        relative = gripper[:2] - cube[:2]
        along, across = float(relative @ ahead), relative - (relative @ ahead) * ahead
        low = abs(gripper[2] - cube[2]) < 0.025
        if self.pushing and (along > -0.02 or np.linalg.norm(across) > 0.035):
            self.pushing = False
        if length < NEAR:
            return np.zeros(4)
        start = np.append(cube[:2] - self.behind * ahead, cube[2])
        if not self.pushing:
            gap = np.linalg.norm(start[:2] - gripper[:2])
            if gap < 0.02 and low:
                self.pushing = True
            elif gap < 0.02 or (along < -0.05 and low and np.linalg.norm(across) < 0.06):
                return self._towards(start - gripper)
            elif gripper[2] < cube[2] + self.height - 0.02 and np.linalg.norm(relative) < 0.12:
                return self._towards(np.array([0.0, 0.0, self.height]))
            else:
                return self._towards(start + np.array([0.0, 0.0, self.height]) - gripper)
        pace = min(self.speed, 0.1 + 2.0 * length)
        sideways = np.clip(-2.0 * across / REACH, -pace, pace)
        lift = (cube[2] - gripper[2]) / REACH
        return np.array([*(pace * ahead + sideways), lift, 0.0]).clip(-1, 1)

    def _towards(self, way: np.ndarray) -> np.ndarray:
        return np.append(np.clip(self.gain * way / REACH, -1, 1), 0.0)
