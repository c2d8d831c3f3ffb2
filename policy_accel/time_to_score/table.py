"""A result in words and aligned columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from policy_accel.time_to_score.correlation import TRUSTED
from policy_accel.time_to_score.costs import COSTS

SHORT = {"network_evaluations": "evaluations", "seconds": "seconds", "flops": "FLOPs"}


def text(result: dict[str, Any]) -> str:
    """The whole result, task by task, and what it does not say."""
    plan = result["plan"]
    lines: list[str] = []
    for task, found in result["tasks"].items():
        lines += [f"{task}: cost to a score, {len(plan['seeds'])} training seeds, ratios to {plan['baseline']}", ""]
        for target, methods in found["targets"].items():
            lines += [*_columns([_header(target), *_targets(methods)]), *_without_ratio(methods), ""]
        for title, part in (
            ("updates", found["budgets"]),
            ("steps of the sampler, last checkpoint", found["few_steps"]),
        ):
            for number, methods in part.items():
                header = [f"score, {number} {title}", "score", "interval", "difference", "interval", "p (Holm)"]
                lines += [*_columns([header, *(_score(name, row) for name, row in methods.items())]), ""]
        lines += _surrogates(found["surrogates"], plan["scoring"]["confidence"])
    return "\n".join([*lines, *notes(plan, result)])


def notes(plan: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """What the figures mean, in sentences."""
    gaps = [after / before for before, after in itertools.pairwise(result["checkpoints"])]
    scoring = plan["scoring"]
    return [
        f"Decisions about the checkpoints of a run are all right with probability {scoring['confidence']:g}, however "
        "many episodes they took; undecided ones are said to be so.",
        *(
            [f"Checkpoints lie up to a factor of {max(gaps):.2f} apart: of a ratio nearer to 1 nothing can be told."]
            if gaps
            else []
        ),
        "A checkpoint on the way has had the learning rates of the whole run, not those of a run that ends there.",
        "Seconds are comparable where the runs were trained on equal machines with equal company.",
        *(
            []
            if plan["tuning"]["grid"] or plan["tuning"].get("grids")
            else ["Nothing was tuned: every method has the settings of the plan."]
        ),
    ]


def _header(target: str) -> list[str]:
    names = [SHORT.get(cost, cost) for cost in COSTS]
    return [f"to {target}", "reached", *names, f"ratio of {names[0]}", "interval", f"ratio of {names[1]}", "interval"]


def _targets(methods: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, row in methods.items():
        costs = row["costs"]
        statuses = {status: row["statuses"].count(status) for status in row["statuses"]}
        told = ", ".join(f"{count} {status}" for status, count in statuses.items()) if len(statuses) > 1 else ""
        shown = [_number(costs[cost]["median"]) for cost in COSTS]
        ratios = [cell for cost in COSTS[:2] for cell in _ratio(costs[cost])]
        rows.append([name, told or f"{row['runs']} {row['statuses'][0]}", *shown, *ratios])
    return rows


def _ratio(cost: dict[str, Any]) -> list[str]:
    if "ratio" not in cost:
        return ["", ""]
    if cost["ratio"] is None:
        return ["-", ""]
    return [f"{cost['ratio']:.2f}", _interval(cost["ratio_interval"], "{:.2f}")]


def _without_ratio(methods: dict[str, Any]) -> list[str]:
    """Why methods have no ratio to the baseline, a sentence each."""
    costs = {name: row["costs"][COSTS[0]] for name, row in methods.items()}
    return [
        f"No ratio of {name}: {cost['ratio_why']}."
        for name, cost in costs.items()
        if "ratio" in cost and cost["ratio"] is None
    ]


def _score(name: str, row: dict[str, Any]) -> list[str]:
    cells = [name, f"{row['score']:.3f}", _interval(row["interval"], "{:.3f}")]
    if "difference" in row:
        p = row["p_holm"]
        shown = "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"
        cells += [f"{row['difference']:+.3f}", _interval(row["difference_interval"], "{:+.3f}"), shown]
    return cells


def _surrogates(found: dict[str, Any], confidence: float) -> list[str]:
    lines = []
    for name, row in found.items():
        parts = [
            f"{_trust(row[kind])} {of} (tau {_tau(row[kind])})"
            for kind, of in (("across", "to rank methods"), ("within", "to rank checkpoints of a run"))
        ]
        lines.append(f"{name}: {', '.join(parts)}")
    rule = f"Trusted: the {confidence:.0%} interval of Kendall's tau with the score lies above {TRUSTED:g}."
    return [*lines, rule, ""] if lines else []


def _trust(row: dict[str, Any]) -> str:
    return "may be trusted" if row["trusted"] else "not to be trusted"


def _tau(row: dict[str, Any]) -> str:
    if row["tau"] is None:
        return "unknown: no pair"
    return f"{row['tau']:.2f} {_interval(row['interval'], '{:.2f}')}, {row['pairs']} pairs"


def _interval(interval: Sequence[float] | None, form: str) -> str:
    return "no interval" if interval is None else f"[{form.format(interval[0])}, {form.format(interval[1])}]"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if value >= 1e7 or value < 1e-3 else f"{float(f'{value:.4g}'):,.6g}".replace(",", "")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    count = max(map(len, rows))
    full = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in full]
