"""Parts of a model card: a README.md as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from policy_accel.parsing import is_number


def card(head: Mapping[str, Any], lines: Sequence[str]) -> str:
    """The whole: what the hub reads, and what people read."""
    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)}---\n\n" + "\n".join(lines)


def training(known: Mapping[str, Any]) -> dict[str, str]:
    """What is known of the training, as rows of a table."""
    cost = []
    if is_number(known.get("updates")):
        cost.append(f"{known['updates']:,} updates")
    if is_number(known.get("network_evaluations")):
        cost.append(f"{known['network_evaluations']:,} evaluations of the network, forward and back")
    if is_number(known.get("seconds")):
        where = f" on {plain(known['device'])}" if known.get("device") else ""
        cost.append(f"{known['seconds']:,.0f} s{where}")
    precision = f" ({plain(known['precision'])})" if known.get("precision") else ""
    return {
        "Data": code(known.get("data", "unknown")),
        "Licence of the data": plain(known.get("data_licence") or "not known: ask whoever recorded them"),
        "Method": plain(known.get("method", "unknown")),
        "Cost": ", ".join(cost) + precision if cost else "unknown",
    }


def table(rows: Mapping[str, str]) -> list[str]:
    """Lines of a table of names and texts."""
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]


def plain(text: Any) -> str:
    """Text of somebody's file as Markdown shows it, on one line of a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def code(text: Any) -> str:
    """The same as code."""
    return "`" + " ".join(str(text).replace("`", "'").replace("|", "/").split()) + "`"
