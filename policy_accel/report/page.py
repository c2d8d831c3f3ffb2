"""From runs to the page: which charts, pictures and tables it has, and the one file that holds them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import explained, replacing
from policy_accel.report.charts import Chart, Table
from policy_accel.report.chunks import Admit, chunks_of
from policy_accel.report.curves import curve_chart
from policy_accel.report.differences import comparison_of, difference_chart
from policy_accel.report.facts import machine_table, report_facts, runs_table, settings_table
from policy_accel.report.instrument import measured_task
from policy_accel.report.measures import measure_chart, measure_names, measures_table
from policy_accel.report.media import Gallery, forming_films, rollouts, sample_grids
from policy_accel.report.runs import ReportedRun, arms_of
from policy_accel.report.scores import default_target, few_step_chart, seeds_chart, target_chart

MARK = '<meta name="generator" content="policy-accel report">'
MARK_WITHIN = 1000


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    name: str
    title: str
    text: str = ""
    notes: Sequence[str] = ()
    charts: list[Chart] = field(default_factory=list)
    gallery: Gallery | None = None
    table: Table | None = None
    table_title: str = ""
    chunks: list[dict[str, Any]] = field(default_factory=list)


def sections(
    runs: Sequence[ReportedRun],
    baseline: str,
    target: float | None = None,
    *,
    chunks: Admit | None = None,
    measured: Path | None = None,
) -> list[Section]:
    """What the page shows of the runs; parts that have nothing to show are left out.

    Args:
        runs: of one task.
        baseline: the arm with which others are compared.
        target: the score whose cost is shown; None for `default_target`.
        chunks: called before the run of an action chunk is loaded, see `policy_accel.trust`; None draws none.
        measured: a result of the time-to-score instrument, in place of what the runs logged themselves.

    Raises:
        UserError: `measured` is no such result.
    """
    instrument = None if measured is None else measured_task(measured, runs[0].scored.task)
    runs = runs if instrument is None else [instrument.added_to(run) for run in runs]
    target = default_target(runs, baseline) if target is None else target
    curves = [
        curve_chart(runs, "loss", "Training loss", lambda run: run.points("loss"), axis="loss", mean=True, log=True),
        curve_chart(
            runs,
            "validation-loss",
            "Validation loss",
            lambda run: run.points("validation_loss"),
            axis="validation loss (EMA)",
            log=True,
        ),
        curve_chart(
            [run for run in runs if len(run.points("score")) > 1],
            "score",
            "Score during training",
            lambda run: run.points("score"),
            axis="score",
            better="higher",
        ),
        curve_chart(
            runs,
            "noise-levels",
            "Loss by noise level",
            lambda run: run.levels(),
            axis="loss (EMA)",
            log=True,
            over="log SNR",
            note="At the newest evaluation, on the same samples and noise every time. Left: noise, right: data.",
        ),
    ]
    logged = None if target is None or measured is not None else target_chart(runs, target)
    costs = [*(instrument.charts if instrument else []), logged, few_step_chart(runs)]
    comparison, why_not = comparison_of(runs, baseline)
    differences = None if comparison is None else difference_chart(comparison)
    text = why_not if comparison is None else comparison.summary
    notes = () if comparison is None else comparison.notes
    found = [
        Section("scores", "Scores", text, notes, charts=_there([seeds_chart(runs), differences])),
        Section("curves", "Learning curves", charts=_there(curves)),
        Section("cost", "What a score costs", charts=_there(costs)),
        Section(
            "measures",
            "Measures of images",
            charts=_there([measure_chart(runs, name) for name in measure_names(runs)]),
            table=measures_table(runs),
            table_title="At the latest score; in brackets: held-out real images",
        ),
        Section("samples", "Samples over training", gallery=sample_grids(runs)),
        Section("forming", "How samples form", gallery=forming_films(runs)),
        Section("rollouts", "Rollouts", gallery=rollouts(runs)),
        _chunk_section(runs, chunks),
        Section("runs", "Runs", table=runs_table(runs)),
        Section("settings", "Settings that differ", table=settings_table(runs)),
    ]
    return [section for section in found if _says_something(section)]


def _chunk_section(runs: Sequence[ReportedRun], admitted: Admit | None) -> Section:
    drawn, notes = ([], []) if admitted is None or runs[0].track != "robot" else chunks_of(runs, admitted)
    return Section("chunks", "Action chunks, from noise to the result", notes=notes, chunks=drawn)


def _there(charts: Sequence[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def _says_something(section: Section) -> bool:
    gallery = section.gallery
    shows = gallery is not None and bool(gallery.groups or gallery.left_out)
    return bool(section.charts or shows or section.chunks or section.notes or (section.table and section.table.rows))


def render(runs: Sequence[ReportedRun], parts: Sequence[Section], title: str) -> str:
    """The page as text.

    Raises:
        UserError: plotly or jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError(f"a report needs the package {error.name}; {to_install('report')}") from error
    plotly, script = str(get_plotlyjs()), _own("report.js")
    environment = Environment(
        loader=PackageLoader("policy_accel.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    arms = arms_of(runs)
    seeds = sorted({run.seed for run in runs}, key=lambda seed: (len(seed), seed))
    charts = [chart for part in parts for chart in part.charts]
    data = {
        "arms": arms,
        "seeds": seeds,
        "charts": [{k: getattr(c, k) for k in ("name", "traces", "layout", "follows", "height")} for c in charts],
        "chunks": [chunk for part in parts for chunk in part.chunks],
    }
    return environment.get_template("report.html").render(
        mark=MARK,
        title=title,
        parts=parts,
        runs=runs,
        arms=arms,
        seeds=seeds,
        machine=machine_table(runs),
        facts=report_facts(),
        data=as_script_data(data),
        style=_own("report.css"),
        plotly=plotly,
        script=script,
        sources=" ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script)),
    )


def as_script_data(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _own(name: str) -> str:
    return resources.files("policy_accel.report").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_page(path: Path, page: str) -> None:
    """Write the page; an older report is replaced, any other file is not.

    Raises:
        UserError: another file is there; no permission, a full disk.
    """
    with explained(path):
        if path.is_dir():
            raise UserError(f"--output {path} is a folder; name a file in it, such as {path / 'report.html'}.")
        if path.is_symlink() or (path.exists() and MARK.encode() not in _beginning(path)):
            raise UserError(f"--output {path} is there and is not a report of ours; choose another path.")
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(MARK_WITHIN)
