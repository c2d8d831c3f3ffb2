"""Demonstrations in `PointMaze` from our scripted expert."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from policy_accel.data.episodes import Episodes

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .maze_expert import play_maze
from .mazes import PointMaze, maze_map
from .planning import env_args


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
