"""The page of the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger_files import REPOSITORY
from recorded import folded

from policy_accel.errors import UserError

PAGE = REPOSITORY / "docs" / "results" / "records.md"
BEGIN, END = "<!-- records: written by benchmarks/ledger.py table -->", "<!-- end of records -->"


def with_table(page: str, records: Sequence[dict[str, Any]]) -> str:
    """The page with the records between its marks.

    Raises:
        UserError: it does not have the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"docs/results/records.md must have the lines {BEGIN} and {END}; put them back.")
    return f"{before}{BEGIN}\n\n{section(records)}\n{END}{after}"


def section(records: Sequence[dict[str, Any]]) -> str:
    """All records, the newest first: what was found, and where it comes from."""
    return "\n".join(_record(record) for record in reversed(records)) if records else "There is none yet.\n"


def _record(record: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, record["seeds"]))
    episodes = f", at most {record['episodes']} episodes each" if record["episodes"] else ""
    hardware = ", ".join(f"{key} {value}" for key, value in record["hardware"].items())
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    lines = [
        f"## {record['id']}",
        "",
        record["note"],
        "",
        f"{record['date']}, commit {record['commit']}, training seeds {seeds}{episodes}; {hardware}; {versions}.",
        "",
        f"- [`{record['id']}.json`](../../benchmarks/records/{record['id']}.json)",
        "",
        folded(record["command"]),
        "| figure | value | interval |",
        "|---|---|---|",
        *(f"| {_cell(row['figure'])} | {_number(row['value'])} | {_interval(row)} |" for row in record["result"]),
        "",
    ]
    return "\n".join(lines)


def _interval(row: dict[str, Any]) -> str:
    if row["interval"] is None:
        return _cell(row["why"])
    return " to ".join(map(_number, row["interval"]))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
