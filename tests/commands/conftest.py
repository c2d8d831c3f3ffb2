from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from policy_accel import cli
from policy_accel.commands import output


@pytest.fixture(autouse=True)
def what_is_suggested_can_be_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that commands of a test suggest, whose words the parser of `policy-accel` takes."""
    lines: list[str] = []
    written = output.suggestion

    def checked(purpose: str, words: Sequence[str]) -> str:
        lines.append(written(purpose, words))
        try:
            cli.parse(words)
        except SystemExit:
            pytest.fail(f"not a command line of policy-accel: {lines[-1]}")
        return lines[-1]

    monkeypatch.setattr(output, "suggestion", checked)
    return lines
