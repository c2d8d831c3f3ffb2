from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.reported import write_run, write_sweep

from policy_accel.cli import main


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", seeds=(1, 2))
    code = (
        "import sys\nfrom policy_accel.cli import main\nstatus = main(sys.argv[1:])\n"
        "assert status == 0 and 'torch' not in sys.modules"
    )
    words = ["report", str(sweep)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Report: {sweep / 'report.html'} (4.9 MB)")
    assert (sweep / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline", "bassline"], "--baseline 'bassline' is no arm of these runs; did you mean 'baseline'?"),
        (["--output", "."], "--output . is a folder"),
        (["--target", "nan"], "--target nan must be finite."),
        (["--target", "0.8", "--time-to-score", "result.json"], "--time-to-score has targets of its own; drop one"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", losses={1: 0.5})
    assert main(["report", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is neither a run directory" in capsys.readouterr().err
