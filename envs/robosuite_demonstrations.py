"""Demonstrations of robosuite's Lift, Can and Square from our scripted experts, with what a robomimic file holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.errors import one_of

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .robosuite_env import Robosuite
from .robosuite_experts import MAX_STEPS, Expert, read_scene

VALID_EVERY = 10  # one episode in ten, from the second on, is in the filter "valid"


def generate(
    episodes: int,
    seed: int,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    task: str = "lift",
    cameras: Sequence[str] = (),
    image_size: int = 84,
) -> Episodes:
    """Let the expert play until `episodes` of its episodes end in success; others are left out.

    The result depends on `episodes`, `seed` and the options only, and fewer episodes are the first ones of more.

    Args:
        episodes: how many, at least 1.
        seed: 0 or above; draws the starts and how the expert plays.
        workers: processes that share the work; 0 or 1 plays in this process.
        progress: called with (successful episodes so far, episodes).
        task: "lift", "can" or "square".
        cameras: cameras to record, as agentview and robot0_eye_in_hand.
        image_size: px, of a recorded frame's sides.

    Returns:
        Float32 arrays: `action` [N, 7] (relative, [-1, 1]) and `action_abs` [N, 7] (the goal that it sets: position in
        m and axis-angle in rad in the frame of the world, gripper), `reward` [N] (1 at success, else 0), every
        observation of `Robosuite` under its own name (`object`, `robot0_eef_pos`, ...) and what followed it as
        `next_obs.<name>`; `sim_state` [N, D] float64; `done` [N] bool (the last step of an episode);
        `<camera>_image` [N, size, size, 3] uint8 (without next_obs). The observation and the state are those before the
        action. Metadata: `env_args` as in robomimic v1.5, `fps`; of an episode: `name`, `filters` (train or valid),
        `model_file`, `seed`.

    Raises:
        UserError: an unknown task or camera; a number too small; robosuite or OpenGL is missing; a worker process that
            died.
    """
    one_of("robosuite task with an expert", task, MAX_STEPS)
    attempt = partial(_attempt, task, tuple(cameras), image_size, seed)
    kept = successful_episodes(attempt, episodes, seed, workers=workers, progress=progress)
    named = [
        replace(episode, facts={"name": f"demo_{index}", "filters": [_filter(index)]} | episode.facts)
        for index, episode in enumerate(kept)
    ]
    environment = _environment(task, tuple(cameras), image_size).env_args
    metadata = {"env_args": environment, "fps": Robosuite.metadata["render_fps"]}
    return end_to_end(named, f"scripted expert in robosuite's {task}", metadata)


def _filter(index: int) -> str:
    return "valid" if index % VALID_EVERY == 1 else "train"


def play(environment: Robosuite, task: str, seed: int) -> Attempt:
    """One episode of the expert for `task` in an environment with relative actions; `seed` fixes all of it."""
    observation, info = environment.reset(seed=seed)
    expert = Expert(task, np.random.default_rng(seed))
    steps: list[dict[str, Any]] = []
    model_file, success = environment.model_xml(), bool(info["is_success"])
    while not success and len(steps) < MAX_STEPS[task]:
        before, state = observation, environment.sim_state()
        action = expert.act(read_scene(environment.robosuite, task))
        observation, reward, success, _, _ = environment.step(action)
        after = {f"next_obs.{name}": value for name, value in observation.items() if value.dtype != np.uint8}
        step = {
            "action": action,
            "action_abs": np.append(environment.goals()[0], action[6]).astype(np.float32),
            "reward": np.float32(reward),
            "done": np.bool_(success),
            "sim_state": state,
        }
        steps.append(step | before | after)
    arrays = {key: np.stack([step[key] for step in steps]) for key in steps[0]} if steps else {}
    return Attempt(arrays, success, {"model_file": model_file, "seed": seed})


def _attempt(task: str, cameras: tuple[str, ...], image_size: int, seed: int, index: int) -> Attempt | None:
    episode = play(_environment(task, cameras, image_size), task, start_seed(seed, index))
    return episode if episode.success and episode.arrays else None


@cache
def _environment(task: str, cameras: tuple[str, ...], image_size: int) -> Robosuite:
    return Robosuite(task, actions="relative", cameras=cameras, image_size=image_size)
