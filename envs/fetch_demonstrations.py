"""Demonstrations in `Fetch` from our scripted experts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from policy_accel.data.episodes import Episodes
from policy_accel.errors import one_of

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .fetch import TASKS, Fetch
from .fetch_expert import play_fetch
from .planning import env_args


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
