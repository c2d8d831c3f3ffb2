"""The runs of a report: what each logged, how it was scored, and what it recorded about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policy_accel.comparison.scores import ScoredRun
from policy_accel.files import explained
from policy_accel.parsing import from_json, is_number
from policy_accel.report.charts import span
from policy_accel.run_files import OPEN_LOOP, noise_levels, read_metrics

STATE_FACTS = (
    "step",
    "training_seconds",
    "threads",
    "precision",
    "matmul_precision",
    "data",
    "seed",
    "device",
    "torch",
    "policy-accel",
)


@dataclass(frozen=True)
class ReportedRun:
    """A run as the page shows it.

    Attributes:
        run_dir: its directory.
        arm: the method, and what else tells it from other runs beside the training seed.
        seed: of the training, as text.
        settings: of config.yaml, flat: "training.steps" -> 1000.
        scored: the run as a comparison takes it.
        rows: of metrics.jsonl.
        evaluation: the latest score, evaluation.json; {} without.
        evaluations: all scores, evaluations.jsonl.
        state: of the newest checkpoint: see STATE_FACTS.
        open_loop: its actions beside demonstrations, open_loop.json; {} without.
    """

    run_dir: Path
    arm: str
    seed: str
    settings: dict[str, Any]
    scored: ScoredRun
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    open_loop: dict[str, Any] = field(default_factory=dict)

    @property
    def action_error(self) -> float | None:
        """The error of its actions on demonstrations, in units of the actions' spread, as it is sampled."""
        rows = self.open_loop.get("samplings")
        own = [row for row in rows if isinstance(row, dict) and row.get("own")] if isinstance(rows, list) else []
        return as_number(own[0].get("error")) if own else None

    @property
    def track(self) -> str:
        """Robot or images."""
        return str(self.settings.get("track", ""))

    def points(self, key: str) -> list[tuple[float, float]]:
        """(update, value) of the rows that have `key`, ascending; the newest of one update; finite ones."""
        found = {}
        for row in self.rows:
            step, value = as_number(row.get("step")), as_number(row.get(key))
            if step is not None and value is not None:
                found[step] = value
        return sorted(found.items())

    def levels(self) -> list[tuple[float, float]]:
        """(log SNR, loss) at the newest evaluation, ascending."""
        return next((points for row in reversed(self.rows) if (points := noise_levels(row))), [])


def as_number(value: Any) -> float | None:
    """A finite number of somebody's JSON; None for anything else."""
    return float(value) if is_number(value) else None


def shown_interval(result: dict[str, Any]) -> str:
    """The interval of a score as a person reads it; "" for none."""
    interval = result.get("score_interval")
    if not isinstance(interval, list) or len(interval) != 2 or not all(map(is_number, interval)):
        return ""
    return span(*interval)


def read_run(run_dir: Path, arm: str, seed: str, settings: dict[str, Any], scored: ScoredRun) -> ReportedRun:
    """What the page needs of a run.

    Raises:
        UserError: a damaged line of metrics.jsonl or evaluations.jsonl, no permission.
    """
    with explained(run_dir, "read"):
        rows = read_metrics(run_dir / "metrics.jsonl")
        evaluations = read_metrics(run_dir / "evaluations.jsonl")
        state = _json(run_dir / "checkpoints" / "last" / "state.json")
        open_loop = _json(run_dir / OPEN_LOOP)
    facts = {key: state[key] for key in STATE_FACTS if isinstance(state.get(key), int | float | str)}
    evaluation = scored.evaluation or {}
    return ReportedRun(run_dir, arm, seed, settings, scored, rows, evaluation, evaluations, facts, open_loop)


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none that is whole."""
    try:
        value = from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def arms_of(runs: Sequence[ReportedRun]) -> list[str]:
    """The arms in the order in which they come."""
    return list(dict.fromkeys(run.arm for run in runs))


def of_arm(runs: Sequence[ReportedRun], arm: str) -> list[ReportedRun]:
    """The runs of an arm."""
    return [run for run in runs if run.arm == arm]
