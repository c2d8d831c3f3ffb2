"""What the words and columns of a result say."""

from __future__ import annotations

from typing import Any

from policy_accel.time_to_score.costs import COSTS
from policy_accel.time_to_score.table import text


def row(statuses: list[str], median: float | None, **ratio: Any) -> dict[str, Any]:
    return {"runs": len(statuses), "statuses": statuses, "costs": {cost: {"median": median, **ratio} for cost in COSTS}}


def test_costs_ratios_and_why_there_is_none() -> None:
    methods = {
        "baseline": row(["reached", "reached"], 400),
        "kl": row(["reached", "reached"], 200, ratio=0.5, ratio_interval=[0.25, 1.0], ratio_why=""),
        "fdm": row(["reached", "not reached"], None, ratio=None, ratio_interval=None, ratio_why="it failed in 1 of 2"),
        "idem": row(["reached", "reached"], 400, ratio=1.0, ratio_interval=None, ratio_why="the same in all 2 runs"),
    }
    plan = {"seeds": [1, 2], "baseline": "baseline", "scoring": {"confidence": 0.95}, "tuning": {"grid": {}}}
    task: dict[str, Any] = {"targets": {"0.8": methods}, "budgets": {}, "few_steps": {}, "surrogates": {}}
    title, _, header, *rows = text({"plan": plan, "checkpoints": [100], "tasks": {"toy": task}}).splitlines()
    assert title == "toy: cost to a score, 2 training seeds, ratios to baseline"
    assert header.split()[:4] == ["to", "0.8", "reached", "updates"]
    assert rows[0].split() == ["baseline", "2", "reached", *5 * ["400"]]
    assert rows[1].split() == ["kl", "2", "reached", *5 * ["200"], *2 * ["0.50", "[0.25,", "1.00]"]]
    assert rows[2].split() == ["fdm", "1", "reached,", "1", "not", "reached", *7 * ["-"]]
    assert rows[3].split() == ["idem", "2", "reached", *5 * ["400"], *2 * ["1.00", "no", "interval"]]
    assert rows[4:6] == ["No ratio of fdm: it failed in 1 of 2.", ""]
