"""From episodes to the figures that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from policy_accel.errors import UserError
from policy_accel.evaluation.protocol import EpisodeResult
from policy_accel.evaluation.statistics import bootstrap_interval, wilson_interval


def summarize(results: Sequence[EpisodeResult], *, confidence: float = 0.95) -> dict[str, Any]:
    """Score and success of a set of episodes, with intervals, as it stands in evaluation.json.

    score: mean over episodes of the largest reward, with a bootstrap interval; success_rate with a Wilson interval;
    episodes: one row each (seed, score, success, length, and video or error where there is one).

    Raises:
        UserError: no episode.
    """
    if not results:
        raise UserError("there is no episode to score; set evaluation.episodes to at least 1.")
    scores = [result.score for result in results]
    successes = sum(result.success for result in results)
    rows = [{key: value for key, value in asdict(result).items() if value is not None} for result in results]
    return {
        "score": sum(scores) / len(scores),
        "score_interval": list(bootstrap_interval(scores, confidence)),
        "success_rate": successes / len(results),
        "success_interval": list(wilson_interval(successes, len(results), confidence)),
        "confidence": confidence,
        "failed_seeds": [result.seed for result in results if result.error],
        "episodes": rows,
    }
