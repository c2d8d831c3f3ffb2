"""The two-mode toy as a task: a chunk of 16 steps passes on one of two sides, the less probable one too.

An observation o of N(0, I) in R^2 and a chunk that passes on the side + with probability sigmoid(3 o_1), else on -:

    step h = 0 .. 15, tau = h / 15:   (2 tau - 1 + 0.3 o_2,  +- (1 + 0.3 tanh o_2) sin(pi tau)) + 0.05 N(0, I)

The distribution is that of `benchmarks/two_mode_policy.py`. A policy predicts the whole chunk from one observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw
from scipy.optimize import minimize
from scipy.special import expit

from policy_accel.data.episodes import Episodes
from policy_accel.errors import UserError
from policy_accel.evaluation.episode import EpisodeResult
from policy_accel.evaluation.scene import ActionsOnScene
from policy_accel.evaluation.statistics import METRICS

from .attempts import Attempt, end_to_end, start_seed, successful_episodes

HORIZON, NOISE = 16, 0.05
WORST, SUCCESS = 0.5, 0.1
"""Distances of score 0, about where the mean of both modes lies, and of success, twice that of a demonstration."""
STEEPEST = 100.0
"""Bound of the fitted calibration line, which is reached where a policy always takes one side."""
SIZE, SCALE = 256, 48.0  # px of a picture, px of one unit


def draw_observation(generator: np.random.Generator) -> np.ndarray:
    """An observation [2] float32 of N(0, I)."""
    return generator.standard_normal(2).astype(np.float32)


def plus_probability(observation: np.ndarray) -> float:
    """P(+ | o) of an observation [2]."""
    return float(expit(3.0 * float(observation[0])))


def mode(observation: np.ndarray, side: float) -> np.ndarray:
    """The chunk without noise, [16, 2] float64, of an observation [2] on a side, +1 or -1."""
    tau = np.linspace(0.0, 1.0, HORIZON)
    across = side * (1.0 + 0.3 * np.tanh(float(observation[1]))) * np.sin(np.pi * tau)
    return np.stack([2.0 * tau - 1.0 + 0.3 * float(observation[1]), across], axis=1)


def nearest_mode(observation: np.ndarray, chunk: np.ndarray) -> tuple[float, float]:
    """(distance, side) of the mode that is nearest to a chunk [16, 2]: the root mean square over the 32 entries."""
    distances = {side: float(np.sqrt(np.mean((chunk - mode(observation, side)) ** 2))) for side in (1.0, -1.0)}
    side = min(distances, key=lambda side: distances[side])
    return distances[side], side


def score_of(distance: float) -> float:
    """1 at a distance of 0.05 (the noise of a demonstration) or less, 0 at 0.5 or more, linear between."""
    return float(np.clip((WORST - distance) / (WORST - NOISE), 0.0, 1.0))


class TwoModes(gymnasium.Env, ActionsOnScene):
    """Observe o [2] float32, which does not change, and take 16 actions [2]; the last one ends the episode.

    reward: nought before the last action, then `score_of` the distance of all actions to the nearest mode.
    `info` has `is_success` (a distance of 0.1 or less), and `metrics` at the end: distance, plus (1 on the side +, else
    0) and plus_probability, which is P(+ | o). Over many episodes see `mode_probability_error`.

    Args:
        render_mode: "rgb_array" for pictures of both modes and the actions so far.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, gymnasium's declaration

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self._observation, self._actions = np.zeros(2, np.float32), list[np.ndarray]()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the observation from the seed; without one the generator goes on."""
        super().reset(seed=seed)
        self._observation, self._actions = draw_observation(self.np_random), []
        return self._observation.copy(), {"is_success": False}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take the next action of the chunk. Raises UserError when it is not two finite numbers."""
        taken = np.asarray(action, dtype=np.float64)
        if taken.shape != (2,) or not np.isfinite(taken).all():
            raise UserError(f"an action of the two-mode task is two finite numbers, got {action!r}")
        self._actions.append(taken)
        if len(self._actions) < HORIZON:
            return self._observation.copy(), 0.0, False, False, {"is_success": False}
        distance, side = nearest_mode(self._observation, np.stack(self._actions))
        probability = plus_probability(self._observation)
        metrics = {"distance": distance, "plus": float(side > 0), "plus_probability": probability}
        info = {"is_success": distance <= SUCCESS, "metrics": metrics}
        return self._observation.copy(), score_of(distance), True, False, info

    def render(self) -> np.ndarray | None:
        """A picture [256, 256, 3] uint8: both modes grey, darker the more probable, and the actions so far red; None
        without a render mode."""
        if self.render_mode is None:
            return None
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        draw, plus = ImageDraw.Draw(picture), plus_probability(self._observation)
        for side, probability in ((1.0, plus), (-1.0, 1.0 - plus)):
            draw.line(_places(mode(self._observation, side)), (round(220 - 140 * probability),) * 3, width=3)
        for x, y in _places(np.reshape(self._actions, (-1, 2))):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(200, 30, 30))
        return np.asarray(picture)

    def action_pixels(self, actions: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `ActionsOnScene`: an action is a place."""
        places: np.ndarray = np.reshape(_places(actions), (-1, 2)) * np.array([width, height]) / SIZE
        return places


def _places(points: np.ndarray) -> list[tuple[float, float]]:
    """Where points [N, 2] lie in a picture."""
    return [(SIZE / 2 + SCALE * float(x), SIZE / 2 - SCALE * float(y)) for x, y in points]


def mode_probability_error(results: Sequence[EpisodeResult]) -> float | None:
    """Mean error |q(o) - P(+ | o)| of the probability q with which a policy takes the side +, over the observations of
    the episodes; None for other episodes.

    An episode shows one side, not q. The calibration line logit q = a + b logit P (Cox, 1958, "Two further applications
    of a model for binary regression"; a = 0 and b = 1 where the policy is right) is fitted to all of them by maximum
    likelihood, |a| and |b| at most 100, and |q - P| averaged (the integrated calibration index of Austin and
    Steyerberg, 2019). A policy that is right shows about 0.4 / sqrt(episodes) by chance.
    """
    shown = [result.metrics for result in results if result.metrics and "plus_probability" in result.metrics]
    if not shown:
        return None
    plus, probability = (np.array([row[key] for row in shown]) for key in ("plus", "plus_probability"))
    logit = np.log(probability) - np.log1p(-probability)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        z = line[0] + line[1] * logit
        residual = expit(z) - plus
        return float((np.logaddexp(0.0, z) - plus * z).mean()), np.array([residual.mean(), (residual * logit).mean()])

    fitted = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(-STEEPEST, STEEPEST)] * 2)
    return float(np.abs(expit(fitted.x[0] + fitted.x[1] * logit) - probability).mean())


METRICS["mode_probability_error"] = mode_probability_error


def generate(
    episodes: int, seed: int, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Episodes:
    """Chunks drawn from the distribution of the task, an episode each; fewer are the first ones of more.

    Args:
        episodes: how many, at least 1.
        seed: 0 or above.
        workers: checked and not used: an episode takes no time.
        progress: called with (episodes so far, episodes).

    Returns:
        observation [16 N, 2] and action [16 N, 2] float32.

    Raises:
        UserError: a number too small.
    """
    kept = successful_episodes(lambda index: draw_chunk(start_seed(seed, index)), episodes, seed, progress=progress)
    if workers < 0:
        raise UserError(f"workers is {workers}; give 0 or more")
    return end_to_end(kept, "two modes")


def draw_chunk(seed: int) -> Attempt:
    """A demonstration: an observation and a chunk of the side and with the noise that are drawn for it."""
    generator = np.random.default_rng(seed)
    observation = draw_observation(generator)
    side = 1.0 if generator.random() < plus_probability(observation) else -1.0
    chunk = mode(observation, side) + NOISE * generator.standard_normal((HORIZON, 2))
    arrays = {"observation": np.tile(observation, (HORIZON, 1)), "action": chunk.astype(np.float32)}
    return Attempt(arrays, True, {"seed": seed})
