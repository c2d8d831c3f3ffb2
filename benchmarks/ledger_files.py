"""The records on the disk and in git."""

from __future__ import annotations

import json
import math
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from policy_accel.errors import UserError
from policy_accel.files import explained

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDS = REPOSITORY / "benchmarks" / "records"
KINDS = ("compare", "evaluation", "ladder", "time-to-score")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "id": str,
    "kind": str,
    "date": str,
    "command": str,
    "commit": str,
    "hardware": dict,
    "versions": dict,
    "task": str,
    "seeds": list,
    "episodes": int,
    "result": list,
    "note": str,
}
FIGURE = {"figure", "value", "interval", "why"}
OWN_PATHS = re.compile(r"(?:^|[\s='\"])(?:/(?:home|root|tmp|work|Users|mnt)/|~/)")
"""Places on somebody's machine, which tell others nothing."""


def read_records(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All records by their file, in the order of date and name.

    Raises:
        UserError: a file that is no JSON object.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        with explained(path, "read"):
            text = path.read_text()
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); put back what git has.") from error
        if not isinstance(record, dict):
            raise UserError(f"{path} holds no record; put back what git has.")
        found.append((path, record))
    return sorted(found, key=lambda pair: (str(pair[1].get("date")), pair[0].name))


def check_record(record: dict[str, Any], path: Path) -> list[str]:
    """What is wrong with a record, a sentence each; it is, or shall be, at `path`."""
    name = path.name
    problems = [f"{name} has no {key}." for key in FIELDS if key not in record]
    problems += [f"{name} has an unknown key {key!r}." for key in record if key not in FIELDS]
    problems += [
        f"{name}: {key} is {record[key]!r}, which is no {kind.__name__ if isinstance(kind, type) else kind}."
        for key, kind in FIELDS.items()
        if key in record and (not isinstance(record[key], kind) or isinstance(record[key], bool))
    ]
    if problems:
        return problems
    if record["format"] != 1:
        problems.append(f"{name} has format {record['format']}; this validator knows 1.")
    if record["id"] != path.stem or not re.fullmatch(r"[\w.,+-]+", record["id"]):
        problems.append(f"{name} has the id {record['id']!r}; it must be the file's name, of letters, digits, . , + -.")
    if record["kind"] not in KINDS:
        problems.append(f"{name} is of kind {record['kind']!r}; known are: {', '.join(KINDS)}.")
    try:
        date.fromisoformat(record["date"])
    except ValueError:
        problems.append(f"{name} has the date {record['date']!r}; write YYYY-MM-DD.")
    if not re.fullmatch(r"[0-9a-f]{7,40}", record["commit"]):
        problems.append(f"{name} has the commit {record['commit']!r}; give its hash.")
    if not record["seeds"] or any(not isinstance(seed, int) for seed in record["seeds"]):
        problems.append(f"{name} has the training seeds {record['seeds']!r}; give at least one number.")
    if record["episodes"] < 0:
        problems.append(f"{name} has {record['episodes']} episodes.")
    problems += [f"{name} has an empty {key}." for key in ("command", "note", "task", "result") if not record[key]]
    if OWN_PATHS.search(record["command"]):
        problems.append(f"{name} has a path of one machine in its command ({record['command']}); give --command.")
    return problems + [problem for row in record["result"] for problem in _check_figure(row, name)]


def _check_figure(row: Any, name: str) -> list[str]:
    """What is wrong with a figure: a value with an interval, or a reason why one of them is not there."""
    if not isinstance(row, dict) or set(row) != FIGURE or not isinstance(row["figure"], str):
        return [f"{name}: a figure must have {', '.join(sorted(FIGURE))}, and this is {row!r}."]
    value, interval, why = row["value"], row["interval"], row["why"]
    if value is not None and not _finite(value):
        return [f"{name}: {row['figure']} is {value!r}, which is no number."]
    if (value is None or interval is None) and not why:
        return [f"{name}: {row['figure']} has no {'value' if value is None else 'interval'} and no reason why."]
    if interval is None:
        return []
    if value is None or not isinstance(interval, list) or len(interval) != 2 or not all(map(_finite, interval)):
        return [f"{name}: {row['figure']} has the interval {interval!r}; give low and high of a value."]
    return [] if interval[0] <= interval[1] else [f"{name}: {row['figure']} has the interval {interval!r}."]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def changed_records(folder: Path) -> list[str]:
    """Records that git has in another form, or that a commit changed or removed; a sentence each.

    Without git nothing can be said, and nothing is.
    """
    if not _git(folder, "rev-parse", "--is-inside-work-tree"):
        return []
    changed = {
        Path(line).name for line in _lines(folder, "diff", "--no-renames", "--name-only", "--diff-filter=a", "HEAD")
    }
    problems = [f"{name} is not as it was committed; records are only added: put it back." for name in sorted(changed)]
    earlier = {
        Path(line).name
        for line in _lines(folder, "log", "--no-renames", "--diff-filter=MD", "--format=", "--name-only")
    }
    return problems + [
        f"{name} was changed or removed by a commit; records are only added: put back the first one."
        for name in sorted(earlier)
    ]


def _lines(folder: Path, *command: str) -> list[str]:
    """Files of the ledger that a git command names."""
    return [line for line in _git(folder, *command, "--", "*.json").splitlines() if line]


def _git(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, cwd=folder)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
