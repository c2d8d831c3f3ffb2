from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from support.user_modules import forgotten_afterwards


def test_the_complete_loop_runs(
    repository: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (repository / "docs" / "how_to" / "robot.md").read_text()
    files = re.findall(r"^`(\w+\.py)`\n```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["arm.py", "drive.py"]
    for name, text in files:
        (tmp_path / name).write_text(text.replace("SECONDS = 10, 30", "SECONDS = 50, 0.3"))
    shutil.copytree(run_dir, tmp_path / "runs" / "pusht")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with forgotten_afterwards():
        runpy.run_path("drive.py", run_name="__main__")
    assert re.search(r"^\d+ of 30 actions were late; a chunk came \d+ steps after", capsys.readouterr().out)
