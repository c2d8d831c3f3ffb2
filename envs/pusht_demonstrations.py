"""Push-T demonstrations from our scripted expert, as the arrays of a replay buffer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from policy_accel.data.episodes import Episodes

from .attempts import Attempt, end_to_end, start_seed, successful_episodes
from .pusht import PushT
from .pusht_drawing import WINDOW
from .pusht_expert import run_expert_episode
from .pusht_planner import GOAL_POSE, beyond_walls, pose_distance
from .pusht_pushes import AGENT_RADIUS, outline_distance, to_block

NEAR_GOAL = (30.0, 30.0, 0.35)  # standard deviations of a start near the goal: px, px, radians
LEAST_TO_DO = 6.0  # px of `pose_distance`
BESIDE = 30.0  # px between the agent and the block, at most


def generate(
    episodes: int, seed: int, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Episodes:
    """Let the expert play until `episodes` of its episodes end in success (coverage above 0.95); others are left out.

    The result depends on `episodes` and `seed` only, and fewer episodes are the first ones of more.

    Args:
        episodes: how many to return, at least 1.
        seed: 0 or above; draws the starts; the expert has no randomness.
        workers: processes that share the work; 0 or 1 plays in this process.
        progress: called with (successful episodes so far, episodes).

    Returns:
        state [N, 5], action [N, 2], keypoint [N, 9, 2] float32.

    Raises:
        UserError: `episodes` below 1, `seed` or `workers` below 0, or a worker process that died.
    """
    kept = successful_episodes(partial(_successful, seed), episodes, seed, workers=workers, progress=progress)
    return end_to_end(kept, "scripted expert in Push-T")


def _successful(seed: int, index: int) -> Attempt | None:
    episode = play_attempt(seed, index)
    return episode if episode.success else None


def draw_demonstration_start(seed: int, index: int) -> np.ndarray:
    """The state [5] float32 from which the index-th attempt starts; three kinds take turns.

    The environment's own starts; a block near the goal (NEAR_GOAL); a block anywhere inside the walls. In the last two
    the agent is anywhere or, every second time, beside the block: so the demonstrations show how to put right what a
    policy did not hit, and how to go on from wherever it got stuck.
    """
    own = start_seed(seed, index)
    if index % 3 == 0:
        state: np.ndarray = PushT(render_mode=None).reset(seed=own)[0]
        return state
    generator = np.random.default_rng(own)
    beside = bool(generator.integers(2))
    while True:
        near = GOAL_POSE + generator.normal(0, NEAR_GOAL)
        anywhere = generator.uniform((0, 0, -np.pi), (WINDOW, WINDOW, np.pi))
        block, agent = near if index % 3 == 1 else anywhere, generator.uniform(20, WINDOW - 20, 2)
        gap = outline_distance(to_block(agent, block)[None])[0][0] - AGENT_RADIUS
        if 1 < gap < (BESIDE if beside else np.inf) and beyond_walls(block) == 0 and pose_distance(block) > LEAST_TO_DO:
            return np.array([*agent, *block[:2], block[2] % (2 * np.pi)], dtype=np.float32)


def play_attempt(seed: int, index: int) -> Attempt:
    """The expert's episode from the start of the index-th attempt, successful or not."""
    return run_expert_episode(start_seed(seed, index), draw_demonstration_start(seed, index))
