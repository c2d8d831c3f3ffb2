"""The ledger of results: one JSON a record in `records/`, added and never changed, and the page that is made of them.

    python benchmarks/ledger.py add runs/time_to_score/toy/result.json --note "What it shows, whichever way it falls."
    python benchmarks/ledger.py add compare.json --id pusht-methods --command "policy-accel compare ..." --note "..."
    python benchmarks/ledger.py check
    python benchmarks/ledger.py table

`add` takes what `policy-accel benchmark time-to-score`, `policy-accel compare --json` and `policy-accel evaluate` (the
evaluation.json of a run directory) write. Commit and machine are those of here and now, unless the file says otherwise:
run it where the result was made, or give --commit. `check` validates all records, and that no record that git knows was
changed or removed; `table` writes them into docs/results/records.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path

from ledger_files import RECORDS, REPOSITORY, changed_records, check_record, read_records
from ledger_results import FIGURES, kind_of
from ledger_table import PAGE, with_table
from results import commit, hardware

from policy_accel.errors import UserError
from policy_accel.files import explained, new_path, replace_text

FORMAT = 1


def add(options: argparse.Namespace) -> Path:
    """Make a record of a result.

    Raises:
        UserError: no such file, not a result, something missing, a record of that name.
    """
    with explained(options.result, "read"):
        text = options.result.read_text()
    try:
        result = json.loads(text)
        kind = kind_of(result)
        found = FIGURES[kind](result, options.result)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{options.result} is no result of time-to-score, compare or evaluate ({type(error).__name__}: {error}); "
            "give result.json, the file of --json, or evaluation.json."
        ) from error
    command = options.command or result.get("command")
    if not command:
        raise UserError(f"{options.result} does not say which command made it; give it with --command.")
    here = hardware()
    del here["torch_threads"]  # of this process, which trained nothing
    versions = {"torch": here.pop("torch"), "python": here.pop("python")}
    made = str(result.get("date") or date.today().isoformat())
    record = {
        "format": FORMAT,
        "id": options.id or f"{found['task']}-{kind}-{made}".replace(" ", ""),
        "kind": kind,
        "date": made,
        "command": command,
        "commit": options.commit or commit(),
        "hardware": result.get("hardware") or here,
        "versions": result.get("versions") or versions,
        **found,
        "note": options.note,
    }
    path = options.records / f"{record['id']}.json"
    problems = check_record(record, path)
    if problems:
        raise UserError(f"no record was made: {problems[0]}")
    with new_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return path


def check(options: argparse.Namespace) -> list[str]:
    """What is wrong with the ledger, a sentence each."""
    problems = [problem for path, record in read_records(options.records) for problem in check_record(record, path)]
    return problems + changed_records(options.records)


def table(options: argparse.Namespace) -> None:
    """Write the records into the page."""
    records = [record for _, record in read_records(options.records)]
    replace_text(options.page, with_table(options.page.read_text(), records))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"default: {RECORDS.relative_to(REPOSITORY)}")
    kinds = parser.add_subparsers(dest="what", required=True)
    adding = kinds.add_parser("add", help="make a record of a result")
    adding.add_argument("result", type=Path, metavar="RESULT.json")
    adding.add_argument("--note", required=True, help="what it shows, in a sentence or two")
    adding.add_argument("--id", help="name of the record (default: task, kind and date)")
    adding.add_argument("--command", help="that made it, where the file does not say")
    adding.add_argument("--commit", help="of the code that made it (default: what is checked out here)")
    kinds.add_parser("check", help="validate all records; status 1 when something is wrong")
    making = kinds.add_parser("table", help="write the records into the page")
    making.add_argument("--page", type=Path, default=PAGE, help=f"default: {PAGE.relative_to(REPOSITORY)}")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.what == "add":
            print(f"written to {add(options)}")
        elif options.what == "table":
            table(options)
            print(f"written to {options.page}")
        else:
            problems = check(options)
            print("\n".join(problems) or "the ledger is as it should be")
            return int(bool(problems))
    except UserError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
