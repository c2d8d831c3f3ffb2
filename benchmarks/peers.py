"""The comparison with other packages: docs/results/peers.yaml as a table, in README.md and on docs/results/peers.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from policy_accel.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = REPOSITORY / "docs" / "results" / "peers.yaml"
README = REPOSITORY / "README.md"
OURS = "policy_accel"
BEGIN, END = "<!-- peers -->", "<!-- end of peers -->"


def read_peers() -> dict[str, Any]:
    """The content of peers.yaml."""
    content: dict[str, Any] = yaml.safe_load(PEERS.read_text())
    return content


def columns(peers: dict[str, Any]) -> list[str]:
    """Names of the packages, ours first."""
    return [OURS, *peers["repositories"]]


def table(peers: dict[str, Any], *, readme: bool) -> str:
    """A line for each row, or for each row that is for the README; figures still as expressions."""
    names = columns(peers)
    rows = [row for row in peers["rows"] if row.get("readme") or not readme]
    head = [_line(["", *names]), f"|{'---|' * (1 + len(names))}"]
    return "\n".join([*head, *(_line([row["what"], *(row[name][0] for name in names)]) for row in rows)])


def sources(peers: dict[str, Any], name: str) -> list[tuple[str, Sequence[str]]]:
    """Of a package: what a row is about, and the paths that show its cell."""
    return [(row["what"], row[name][1]) for row in peers["rows"] if row[name][1]]


def with_table(readme: str, text: str) -> str:
    """The README with the table between its marks.

    Raises:
        UserError: it does not have the marks.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md must have the lines {BEGIN} and {END}; put them back under its first paragraph.")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
