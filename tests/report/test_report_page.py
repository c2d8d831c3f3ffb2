"""The example of docs/how_to/report.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.reported import write_sweep

from policy_accel.cli import main


def test_the_example(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On runs that are written by hand to where the example has them."""
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / "how_to" / "report.md").read_text()
    (line,) = re.findall(r"^```sh\n(.*)\n```$", text, flags=re.MULTILINE)
    words = shlex.split(line)
    assert words[:2] == ["policy-accel", "report"]
    write_sweep(Path(words[2]))
    assert main(words[1:]) == 0
    page = (Path(words[2]) / "report.html").read_text()
    for part in ("Scores", "Learning curves", "What a score costs", "Runs", "Machine and versions"):
        assert f">{part}</h2>" in page
        assert re.search(rf"^\| .*{part}.* \|", text, flags=re.MULTILINE | re.IGNORECASE) or part == "Runs"
