"""Which runs a report is of; their arms are those that a comparison has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policy_accel.comparison.scores import ScoredRun, scored_runs
from policy_accel.errors import UserError
from policy_accel.report.runs import ReportedRun, read_run


def collect(paths: Sequence[Path]) -> list[ReportedRun]:
    """The runs of run directories and sweep folders, in the order given; those that have not begun are left out.

    Raises:
        UserError: neither a run directory nor a sweep, nothing begun, runs of several tasks, a damaged file.
    """
    begun = [run for run in scored_runs(paths) if run.settings is not None]
    if not begun:
        raise UserError(f"{paths[0]} has no run that has begun; report it once one trains.")
    for run in begun[1:]:
        if (run.track, run.task) != (begun[0].track, begun[0].task):
            raise UserError(
                f"{begun[0].run_dir} is a run of task {begun[0].task} and {run.run_dir} one of {run.task}; make a "
                "report of each task."
            )
    return [_reported(run) for run in begun]


def _reported(run: ScoredRun) -> ReportedRun:
    return read_run(run.run_dir, run.arm, str(run.seed), run.config or {}, run)
