"""What a tuning found, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policy_accel.evaluation.statistics import bootstrap_interval
from policy_accel.run_sampling import TUNED
from policy_accel.tuning.tune import Row, Tuning, shown

HEADER = ("evaluations", "sampler", "times", "energy score", "less than even", "score", "over even", "over own", "")
LONG = 5


def table(tuning: Tuning) -> str:
    """One line for each sampling; differences to the even grid of as many evaluations and to the run's own sampling,
    with a standard error (energy) or a 95 % interval (score)."""
    lines = [HEADER, *(_line(row, tuning) for row in tuning.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _line(row: Row, tuning: Tuning) -> Sequence[str]:
    long = len(row.times) > LONG
    return (
        str(row.evaluations),
        row.settings.sampler,
        f"{shown(row.times[:2])},...,{shown(row.times[-1:])}" if long else shown(row.times),
        f"{row.energy:.4f}",
        "-" if row.energy_over is None else f"{-row.energy_over:+.4f} +- {row.energy_error:.4f}",
        "-" if row.scores is None else f"{row.score:.3f}",
        "-" if row.kind != "found" else _difference(row, tuning.even(row.evaluations)),
        _difference(row, tuning.own),
        " ".join([row.kind, *(["chosen"] if row.chosen else []), *(["in use"] if _in_use(row, tuning) else [])]),
    )


def _in_use(row: Row, tuning: Tuning) -> bool:
    use = tuning.tuned.use
    return row.kind == "own" if use is None else row.chosen and row.evaluations == use


def _difference(row: Row, other: Row) -> str:
    found = row.beside(other)
    if found is None:
        return "-"
    mean, (low, high) = found
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def conclusion(tuning: Tuning) -> str:
    """What the run does from now on."""
    use, own = tuning.tuned.use, tuning.own
    asked = "`--sampling-steps N` takes the grid chosen for N"
    if use is None:
        why = (
            f"no choice is within the tolerance of {own.score:.3f}"
            if own.scores is not None
            else "nothing was rolled out; --use N says otherwise"
        )
        return f"{TUNED}: the run is sampled as before ({why}); {asked}."
    chosen = next(row for row in tuning.rows if row.chosen and row.evaluations == use)
    return (
        f"{TUNED}: the run is sampled by {chosen.settings.sampler} at {shown(chosen.times)} from now on; {asked}, and "
        "--untuned goes back. The scores above chose it: quote one from other seeds (`policy-accel evaluate`)."
    )


def record(tuning: Tuning) -> dict[str, Any]:
    """All figures, with plain values."""
    return {
        "step": tuning.tuned.step,
        "use": tuning.tuned.use,
        "held_out": tuning.held_out,
        "windows": tuning.windows,
        "rows": [
            {
                "kind": row.kind,
                "evaluations": row.evaluations,
                "sampler": row.settings.sampler,
                "times": list(row.times),
                "energy_score": row.energy,
                "energy_over_even": row.energy_over,
                "energy_error": row.energy_error,
                "chosen": row.chosen,
                **({} if row.scores is None else _scores(row, tuning)),
            }
            for row in tuning.rows
        ],
    }


def _scores(row: Row, tuning: Tuning) -> dict[str, Any]:
    assert row.scores is not None
    found = {"over_own": row.beside(tuning.own)}
    if row.kind == "found":
        found["over_even"] = row.beside(tuning.even(row.evaluations))
    differences = {name: [mean, *interval] for name, pair in found.items() if pair for mean, interval in [pair]}
    return {
        "score": row.score,
        "score_interval": list(bootstrap_interval(row.scores)),
        **differences,
        "scores": row.scores.tolist(),
    }
