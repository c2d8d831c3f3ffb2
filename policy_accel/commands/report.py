"""`policy-accel report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from policy_accel.errors import UserError, did_you_mean
from policy_accel.report.collect import collect
from policy_accel.report.page import render, sections, write_page
from policy_accel.report.runs import arms_of


def run_report(options: argparse.Namespace) -> int:
    """Write the page and say where it is and how large."""
    runs = collect(options.paths)
    arms = arms_of(runs)
    baseline = options.baseline or ("baseline" if "baseline" in arms else arms[0])
    if baseline not in arms:
        raise UserError(f"--baseline '{baseline}' is no arm of these runs; {did_you_mean(baseline, arms)}")
    output = options.output or options.paths[0] / "report.html"
    title = ", ".join(path.resolve().name for path in options.paths[:3]) + (" and more" * (len(options.paths) > 3))
    chunks = None if options.no_chunks else options.plugins
    page = render(runs, sections(runs, baseline, options.target, chunks=chunks), title)
    write_page(output, page)
    print(f"{output}: {len(runs)} runs, {_size(output)}")
    return 0


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
