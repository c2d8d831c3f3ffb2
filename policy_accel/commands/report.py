"""`policy-accel report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from policy_accel.errors import UserError, did_you_mean
from policy_accel.report.collect import collect
from policy_accel.report.page import render, sections, write_page
from policy_accel.report.runs import arms_of
from policy_accel.trust import admit


def run_report(options: argparse.Namespace) -> int:
    """Write the page and say where it is and how large."""
    target = options.target
    if target is not None and options.time_to_score is not None:
        raise UserError(
            f"--target {target:g} is for the scores that runs logged themselves, and --time-to-score has targets of "
            "its own; drop one of them."
        )
    output = write_report(
        options.paths,
        options.output or options.paths[0] / "report.html",
        baseline=options.baseline,
        target=target,
        chunks=None if options.no_chunks else partial(admit, plugins=options.plugins, trust=options.trust),
        measured=options.time_to_score,
    )
    print(f"Report: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_report(
    paths: Sequence[Path],
    output: Path,
    *,
    baseline: str | None = None,
    target: float | None = None,
    chunks: Callable[[Path], None] | None = None,
    measured: Path | None = None,
) -> Path:
    """Write the page of runs and sweeps to `output`, see `sections`.

    Raises:
        UserError: no runs, a damaged file, an unknown baseline; a file that is no report; a missing package.
    """
    runs = collect(paths)
    arms = arms_of(runs)
    chosen = baseline or ("baseline" if "baseline" in arms else arms[0])
    if chosen not in arms:
        raise UserError(f"--baseline '{chosen}' is no arm of these runs; {did_you_mean(chosen, arms)}")
    title = ", ".join(path.resolve().name for path in paths[:3]) + (" and more" * (len(paths) > 3))
    write_page(output, render(runs, sections(runs, chosen, target, chunks=chunks, measured=measured), title))
    return output
