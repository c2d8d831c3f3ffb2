"""Demonstrations of robosuite's Lift, Can and Square from our scripted experts, with what a robomimic file holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from policy_accel.data.episodes import Episodes
from policy_accel.errors import one_of
from policy_accel.memory import release_freed_memory

from .attempts import start_seed, successful_episodes
from .robosuite_env import Robosuite
from .robosuite_experts import MAX_STEPS, Expert, read_scene

VALID_EVERY = 10  # one episode in ten, from the second on, is in the filter "valid"
RELEASE_BYTES = 64 * 2**20  # of episodes that are copied and freed before the system gets them back


@dataclass(frozen=True)
class RobosuiteEpisode:
    """One run of an expert.

    Attributes:
        arrays: key -> [T, ...], the keys of `generate`.
        model_file: the MuJoCo XML that the episode was played with.
        seed: of the environment's start and of the expert.
        success: whether it ended in success.
    """

    arrays: dict[str, np.ndarray]
    model_file: str
    seed: int
    success: bool


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
    episode_ends = np.cumsum([len(episode.arrays["action"]) for episode in kept], dtype=np.int64)
    return Episodes(
        arrays=_end_to_end([episode.arrays for episode in kept], episode_ends),
        episode_ends=episode_ends,
        source=f"scripted expert in robosuite's {task}",
        metadata={
            "env_args": _environment(task, tuple(cameras), image_size).env_args,
            "fps": Robosuite.metadata["render_fps"],
        },
        episode_metadata=tuple(
            {
                "name": f"demo_{index}",
                "filters": ["valid" if index % VALID_EVERY == 1 else "train"],
                "model_file": episode.model_file,
                "seed": episode.seed,
            }
            for index, episode in enumerate(kept)
        ),
    )


def play(environment: Robosuite, task: str, seed: int) -> RobosuiteEpisode:
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
    return RobosuiteEpisode(arrays, model_file, seed, success)


def _attempt(task: str, cameras: tuple[str, ...], image_size: int, seed: int, index: int) -> RobosuiteEpisode | None:
    episode = play(_environment(task, cameras, image_size), task, start_seed(seed, index))
    return episode if episode.success and episode.arrays else None


def _end_to_end(parts: list[dict[str, np.ndarray]], episode_ends: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of all episodes, taken out of `parts` one by one, so that frames are not in memory twice."""
    joined = {key: np.empty((episode_ends[-1], *values.shape[1:]), values.dtype) for key, values in parts[0].items()}
    freed = 0
    for part, end in zip(parts, episode_ends, strict=True):
        for key, values in part.items():
            joined[key][end - len(values) : end] = values
            freed += values.nbytes
        del values
        part.clear()
        if freed >= RELEASE_BYTES:
            release_freed_memory()
            freed = 0
    return joined


@cache
def _environment(task: str, cameras: tuple[str, ...], image_size: int) -> Robosuite:
    return Robosuite(task, actions="relative", cameras=cameras, image_size=image_size)
