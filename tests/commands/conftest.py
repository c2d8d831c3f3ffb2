from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from policy_accel import cli
from policy_accel.commands import output

PLACEHOLDER = "PATH"
"""In place of what the user alone knows."""


@pytest.fixture(autouse=True)
def what_is_suggested_can_be_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that commands of a test suggest, whose words the parser of `policy-accel` takes, and whose paths are
    there."""
    lines: list[str] = []
    written = output.suggestion

    def checked(purpose: str, words: Sequence[str]) -> str:
        lines.append(written(purpose, words))
        try:
            missing = [path for path in paths(cli.parse(words)) if path != PLACEHOLDER and not Path(path).exists()]
        except SystemExit:
            pytest.fail(f"not a command line of policy-accel: {lines[-1]}")
        assert not missing, lines[-1]
        return lines[-1]

    monkeypatch.setattr(output, "suggestion", checked)
    return lines


def paths(options: argparse.Namespace) -> Iterator[str]:
    """What a command line names that has to be there."""
    for name, value in vars(options).items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Path) or (one is not None and name in ("data", "path", "runs")):
                yield str(one)
            elif name == "overrides" and one.startswith("task.data=") and not one.startswith("task.data=shipped:"):
                yield one.removeprefix("task.data=")
