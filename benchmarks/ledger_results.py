"""From what the commands write to the figures of a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from policy_accel.run_files import read_config

Figures = dict[str, Any]
ONE_SEED = "one training seed"


def kind_of(result: dict[str, Any]) -> str:
    """Which command made a result; raises KeyError for none of them."""
    if "rungs" in result:
        return "ladder"
    if "confidence_of_a_checkpoint" in result:
        return "time-to-score"
    if "differences" in result:
        return "compare"
    if "score_interval" in result:
        return "evaluation"
    raise KeyError("tasks, differences, rungs or score_interval")


def of_comparison(result: dict[str, Any], path: Path) -> Figures:
    """Means of all arms and differences from the baseline."""
    measure, baseline = result["measure"], result["baseline"]
    rows = [
        figure(f"{measure}, {arm['name']}", arm["mean"], arm["interval"], "one run without episodes")
        for arm in result["arms"]
    ]
    rows += [
        figure(
            f"{measure}, {row['arm']} less {baseline} ({_p(row['corrected'])})",
            row["value"],
            row["interval"],
            "nothing tells chance",
        )
        for row in result["differences"]
    ]
    seeds = sorted({int(seed) for arm in result["arms"] for seed in arm["runs"]})
    return {"task": result["task"], "seeds": seeds, "episodes": len(result["evaluation_seeds"]), "result": rows}


def of_time_to_score(result: dict[str, Any], path: Path) -> Figures:
    """Costs to each target and their ratios to the baseline, and scores at the budgets."""
    plan, rows = result["plan"], []
    for task, found in result["tasks"].items():
        for target, methods in found["targets"].items():
            for method, row in methods.items():
                rows += _costs(f"{task} to {target}, {method}", row, plan["baseline"])
        for budget, methods in found["budgets"].items():
            for method, row in methods.items():
                name = f"{task}, score at {budget} updates, {method}"
                rows.append(figure(name, row["score"], row["interval"], ONE_SEED))
                if "difference" in row:
                    less = f"{name} less {plan['baseline']} ({_p(row['p_holm'])})"
                    rows.append(figure(less, row["difference"], row["difference_interval"], ONE_SEED))
    return {
        "task": ", ".join(result["tasks"]),
        "seeds": plan["seeds"],
        "episodes": plan["scoring"]["most"],
        "result": rows,
    }


def _costs(name: str, row: dict[str, Any], baseline: str) -> list[dict[str, Any]]:
    told = f"{row['reached']} of {row['runs']} runs reached it"
    updates = row["costs"]["updates"]
    rows = [figure(f"{name}: updates, geometric mean ({told})", updates["mean"], updates["interval"], updates["why"])]
    for cost in ("updates", "network_evaluations"):
        found = row["costs"][cost]
        if "ratio" in found:
            title = f"{name}: {cost.replace('_', ' ')}, ratio to {baseline}"
            rows.append(figure(title, found["ratio"], found["ratio_interval"], found["ratio_why"]))
    return rows


def of_evaluation(result: dict[str, Any], path: Path) -> Figures:
    """The score of one run; its training seed is in the config.yaml beside the file."""
    config = read_config(path.parent)
    sampled = f"{result['step']} updates"
    rows = [figure(f"score after {sampled}", result["score"], result["score_interval"], "")]
    if "success_rate" in result:
        rows.append(figure(f"success after {sampled}", result["success_rate"], result["success_interval"], ""))
    return {
        "task": config["task"]["name"],
        "seeds": [int(config["seed"])],
        "episodes": len(result.get("episodes", ())),
        "result": rows,
    }


def of_ladder(result: dict[str, Any], path: Path) -> Figures:
    """Of every rung its score, what it differs by from the one that it builds on, and its cost."""
    rows = []
    for rung in result["rungs"]:
        name = f"{rung['rung']} ({rung['updates']} updates, {rung['network_evaluations_a_chunk']} evaluations a chunk)"
        rows.append(figure(f"score, {name}", rung["score"], rung["score_interval"], ONE_SEED))
        if "difference" in rung:
            less = f"score, {rung['rung']} less {rung['compared_with']}"
            rows.append(figure(less, rung["difference"], rung["difference_interval"], ONE_SEED))
        rows.append(figure(f"CPU-seconds, {rung['rung']}", rung["cpu_seconds"], None, "one measurement"))
    return {
        "task": "pusht_keypoints",
        "seeds": [int(seed) for seed in result["seeds"]],
        "episodes": result["episodes"],
        "result": rows,
    }


FIGURES: dict[str, Callable[[dict[str, Any], Path], Figures]] = {
    "compare": of_comparison,
    "time-to-score": of_time_to_score,
    "evaluation": of_evaluation,
    "ladder": of_ladder,
}


def figure(name: str, value: float | None, interval: Any, why: str) -> dict[str, Any]:
    """A figure of a record; `why` one of value and interval is missing, said where it is."""
    whole = value is not None and interval is not None
    return {
        "figure": name,
        "value": value,
        "interval": None if interval is None else list(interval),
        "why": "" if whole else why,
    }


def _p(value: float | None) -> str:
    return "no p" if value is None else "p < .001" if value < 0.001 else f"p = {value:.3f}"
