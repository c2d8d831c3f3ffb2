"""Whether runs can be compared: one task, scored in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_accel.comparison.scores import EVEN, SAMPLING, TIMES, ScoredRun
from policy_accel.errors import UserError

OF_EVALUATIONS = {
    "noise_seed": None,
    "max_steps": None,
    "seed": None,
    "score_images": None,
    "average": "ema",
    "score_from": {"robot": "max_reward", "images": "fd_random_conv"},
    "control": None,
}
"""Keys of an evaluation that are to be the same for all runs, and what one without them was scored with, on a track."""
FOLLOWING = {key: setting for key, setting in SAMPLING.items() if key != "sampling_clip_sample"}
FOLLOWING["step"] = "training.steps"
"""Keys of an evaluation that may differ where these settings do: then they are what is compared. The bound of a sample
follows from settings and data."""


def check_alike(runs: Sequence[ScoredRun], measure: str = "score") -> None:
    """Raise UserError when runs, all with a score, are of different tasks, or were scored differently by themselves."""
    first = runs[0]
    for run in runs[1:]:
        if run.task != first.task or run.track != first.track:
            raise UserError(
                f"{first.run_dir} is of task {first.task} ({first.track}) and {run.run_dir} of task {run.task} "
                f"({run.track}), whose scores cannot be compared; choose one with --task."
            )
        if (run.scores is None) != (first.scores is None):
            raise UserError(
                f"only one of {first.run_dir} and {run.run_dir} was scored by episodes; give runs of one kind."
            )
    # The score of images is taken of equally many everywhere, the other measures of all that there are.
    for key, missing in {**OF_EVALUATIONS, **({} if measure == "score" else {"images": None})}.items():
        default = missing.get(first.track) if isinstance(missing, dict) else missing
        _refuse_differences([(run, "", (run.evaluation or {}).get(key, default)) for run in runs], f"{key}={{}}")
    for key, setting in FOLLOWING.items():
        groups = (setting, TIMES) if setting in EVEN else (setting,)
        found = [(run, str([_of(run, name) for name in groups]), (run.evaluation or {}).get(key)) for run in runs]
        _refuse_differences(found, f"{key}={{}}")
    for key in sorted({key for run in runs for key in run.config or {} if key.startswith("task.environment")}):
        _refuse_differences([(run, "", _of(run, key)) for run in runs], f"{key}={{}}")
    seen: dict[tuple[str, int | None], ScoredRun] = {}
    for run in runs:
        other = seen.setdefault((run.arm, run.seed), run)
        if other is not run:
            raise UserError(
                f"{other.run_dir} and {run.run_dir} are the same run twice ({run.arm}, seed {run.seed}), which adds no "
                "training seed; leave one of them out."
            )


def _of(run: ScoredRun, key: str) -> str:
    return str((run.config or {}).get(key))


def _refuse_differences(found: Sequence[tuple[ScoredRun, str, Any]], shown: str) -> None:
    """Among runs with the same second value, the third is to be the same."""
    first: dict[str, tuple[ScoredRun, Any]] = {}
    for run, group, value in found:
        other, before = first.setdefault(group, (run, value))
        if value != before:
            raise UserError(
                f"{other.run_dir} was scored with {shown.format(before)} and {run.run_dir} with {shown.format(value)}; "
                "score all in one way with `policy-accel evaluate` and compare again."
            )
