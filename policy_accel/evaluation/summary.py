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
    mean_length: environment steps of the episodes that could be run; episodes: one row each (seed, score, success,
    length, and video, error or metrics where there is one). metrics, where the environment reports some: by name, the
    mean over the episodes that have it.

    Raises:
        UserError: no episode.
    """
    if not results:
        raise UserError("there is no episode to score; set evaluation.episodes to at least 1.")
    scores = [result.score for result in results]
    successes = sum(result.success for result in results)
    rows = [{key: value for key, value in asdict(result).items() if value is not None} for result in results]
    lengths = [result.length for result in results if not result.error]
    metrics = _mean_metrics(results)
    return {
        "score": sum(scores) / len(scores),
        "score_interval": list(bootstrap_interval(scores, confidence)),
        "success_rate": successes / len(results),
        "success_interval": list(wilson_interval(successes, len(results), confidence)),
        "confidence": confidence,
        "mean_length": sum(lengths) / len(lengths) if lengths else 0.0,
        **({"metrics": metrics} if metrics else {}),
        "failed_seeds": [result.seed for result in results if result.error],
        "episodes": rows,
    }


def _mean_metrics(results: Sequence[EpisodeResult]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in (result.metrics or {}).items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}
