"""Our scripted Push-T expert: few long straight pushes, chosen by search, done at a steady speed."""

from __future__ import annotations

import numpy as np

from .attempts import Attempt
from .pusht import PushT
from .pusht_keypoints import block_keypoints
from .pusht_planner import plan
from .pusht_pushes import OUTLINE, to_window
from .pusht_routes import BOUNDS

MAX_STEPS = 300
LEAD_APPROACH, LEAD_PUSH = 30.0, 20.0  # px from the agent to its target: about 12 and 8 px a step
AT_PUSH_START, AT_PUSH_END = 10.0, 2.0  # px from the beginning and the end of a push that count as there
OVERSHOOT = 6.0  # px behind the end of a push that the agent aims at, so that it never slows to a stop


class PushTExpert:
    """Plans a push whenever the last one is done, goes around the block to its beginning, and pushes.

    It has no randomness. One expert plays one episode.
    """

    def __init__(self) -> None:
        self._path = np.empty((0, 2))  # what is left of the approach or of the push
        self._next_push: np.ndarray | None = None  # [2] where the push at the end of the approach ends
        self._push_end = np.empty(2)

    def act(self, state: np.ndarray) -> np.ndarray:
        """The target position [2] float32 in px for a state [5] (agent x, y, block x, y, angle)."""
        agent, block = np.asarray(state[:2], dtype=np.float64), np.asarray(state[2:5], dtype=np.float64)
        if self._arrived(agent) and not self._go_on(agent, block):
            away = agent - to_window(OUTLINE.mean(0), block)
            target = agent + LEAD_PUSH * away / max(float(np.linalg.norm(away)), 1e-6)
        else:
            lead = LEAD_PUSH if self._next_push is None else LEAD_APPROACH
            self._path, target = _ahead(self._path, agent, lead)
        return np.asarray(target.clip(*BOUNDS), dtype=np.float32)

    def _arrived(self, agent: np.ndarray) -> bool:
        if not len(self._path):
            return True
        if self._next_push is not None:
            return bool(np.linalg.norm(agent - self._path[-1]) < AT_PUSH_START)
        way = self._path[-1] - self._path[0]
        return bool((self._push_end - agent) @ way / np.linalg.norm(way) < AT_PUSH_END)

    def _go_on(self, agent: np.ndarray, block: np.ndarray) -> bool:
        """Turn from the approach to its push, or from a push to the next approach; False when there is none."""
        if self._next_push is not None:
            way = self._next_push - self._path[-1]
            aim = self._next_push + OVERSHOOT / float(np.linalg.norm(way)) * way
            self._path, self._push_end = np.stack((self._path[-1], aim)), self._next_push
            self._next_push = None
            return True
        chosen = plan(agent, block)
        self._path, self._next_push = (np.empty((0, 2)), None) if chosen is None else (chosen.approach, chosen.end)
        return chosen is not None


def run_expert_episode(seed: int, start: np.ndarray | None = None, env: PushT | None = None) -> Attempt:
    """Play one episode of at most MAX_STEPS from the environment's start for `seed`, or from a state [5].

    Returns:
        The arrays of `pusht_demonstrations.generate`.
    """
    env = env or PushT(render_mode=None)
    state, _ = env.reset(seed=seed, options=None if start is None else {"state": start})
    expert = PushTExpert()
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    success = False
    while len(states) < MAX_STEPS and not success:
        states.append(state)
        actions.append(expert.act(state))
        state, _, success, *_ = env.step(actions[-1])
    keypoints = block_keypoints(np.array(states)[:, 2:5]).astype(np.float32)
    return Attempt({"state": np.array(states), "action": np.array(actions), "keypoint": keypoints}, success)


def _ahead(path: np.ndarray, agent: np.ndarray, lead: float) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of a path [K, 2] from the one nearest to the agent on, and the point `lead` px ahead of it there."""
    pieces = np.diff(path, axis=0)
    lengths = np.linalg.norm(pieces, axis=1)
    shares = (((agent - path[:-1]) * pieces).sum(1) / np.maximum(lengths, 1e-9) ** 2).clip(0, 1)
    gaps = np.linalg.norm(path[:-1] + shares[:, None] * pieces - agent, axis=1)
    piece = int(gaps.argmin())
    path, lengths = path[piece:], lengths[piece:]
    along = np.concatenate(([0.0], np.cumsum(lengths)))
    reach = shares[piece] * lengths[0] + lead
    return path, np.array([np.interp(reach, along, path[:, axis]) for axis in (0, 1)])
