"""Reading the pages of docs, their tables and sentences, and what they must agree with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def page(name: str) -> str:
    """The text of a page of docs: `explanation/kl`."""
    return (REPOSITORY / "docs" / f"{name}.md").read_text()


def result(name: str) -> Any:
    """A result of benchmarks/results."""
    return json.loads((REPOSITORY / "benchmarks" / "results" / f"{name}.json").read_text())


def record(name: str) -> dict[str, dict[str, Any]]:
    """The figures of a record by their names without the p-values in them, which `name` keeps."""
    found = json.loads((REPOSITORY / "benchmarks" / "records" / f"{name}.json").read_text())["result"]
    return {row["figure"].split(" (p")[0]: row | {"name": row["figure"]} for row in found}


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of a table's rows, given the beginning of its header."""
    lines = page[page.index(header) :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")] for line in lines]


def numbers_of(page: str, header: str, kind: type = int) -> list[Any]:
    """The numbers that head the columns of a table, all but the first."""
    line = page[page.index(header) :].split("\n", 1)[0]
    return [kind(cell) for cell in line.strip().strip("|").split("|")[1:]]


def sentences(page: str) -> str:
    """The page on one line, so that a sentence may be looked for however it is broken."""
    return " ".join(page.split())
