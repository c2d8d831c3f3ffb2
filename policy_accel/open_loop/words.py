"""What an open-loop check says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_accel.open_loop.episodes import TRAINING

ONE_EPISODE = "This is ONE episode, which says little about others: give more with --data, or raise task.val_ratio."


def table(result: Mapping[str, Any]) -> str:
    """Errors of all samplings beside those of the references, a row each number of an action."""
    columns = [*result["samplings"], *result["references"].values()]
    counts = [f"{one['network_evaluations']}{'*' * one['own']}" for one in result["samplings"]]
    header = ["error (RMSE) at evaluations", "spread", *counts, "repeat last", "mean action"]
    last = result["n_action_steps"]
    rows = [["all, in units of the spread", "1", *(_number(one["error"]) for one in columns)]]
    for step in sorted({1, last}):
        rows.append([f"  step {step} of the chunk", "1", *(_number(one["error_by_step"][step - 1]) for one in columns)])
    for i, name in enumerate(result["dimensions"]):
        rows.append([name, _number(result["spread"][i]), *(_number(one["rmse"][i]) for one in columns)])
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}" for i, (cell, width) in enumerate(zipped)
        ).rstrip()
        for zipped in (list(zip(row, widths, strict=True)) for row in (header, *rows))
    )
    own = f"* the run's own sampling; over the {last} steps of a chunk that are executed"
    return "\n".join([*lines, own, _spread(result)])


def _spread(result: Mapping[str, Any]) -> str:
    whose = (
        "that trained the run"
        if result["spread_of"] == TRAINING
        else "of these episodes, since those of the run's training are gone or changed"
    )
    return f"spread and mean action: standard deviation and mean of the actions {whose}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def conclusion(result: Mapping[str, Any]) -> str:
    """Whether the policy, sampled as it is, is better than what needs no policy."""
    own = next(one for one in result["samplings"] if one["own"])["error"]
    if own is None:
        return "The demonstrated actions never change, so that there is no spread to compare errors with."
    names = {"repeat_last": "repeating the last action", "mean": "the mean action"}
    name, best = min(((name, one["error"]) for name, one in result["references"].items()), key=lambda pair: pair[1])
    if own < best:
        return f"The policy errs {1 - own / best:.0%} less than {names[name]} ({own:.3g} and {best:.3g} of the spread)."
    return (
        f"The policy is NO BETTER than {names[name]}: it errs by {own:.3g} of the spread, that by {best:.3g}. Train "
        "longer, or look at docs/how_to/open_loop.md for what else it may be."
    )
