from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.sweeps import examples, furnish, tiny
from support.user_modules import forgotten_afterwards

from policy_accel.cli import main
from policy_accel.sweep.folder import Job, Run, Sweep, read_sweep

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def sweep(*words: str) -> int:
    with forgotten_afterwards():
        return main(["sweep", *words])


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first example of the page, in the current folder, for one slot."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return [*tiny(examples()[0]), "launcher.slots=1"]


def test_status_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Sweep(tmp_path / "s", {"a": Run([], 5), "b": Run([], 5)})
    made.write()
    made.note("b", Job("failed", "lr=9 is wrong."))
    code = (
        "import sys\nfrom policy_accel.cli import main\nstatus = main(sys.argv[1:])\n"
        "assert status == 0 and not {'torch', 'hydra', 'ray', 'submitit'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--status", str(made.folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{made.folder}: 2 runs: 1 waiting, 1 failed\n  a  waiting\n  b  failed   lr=9 is wrong.\n"
    assert main(["sweep", "--status", str(tmp_path)]) == 2
    assert "is not the folder of a sweep" in capsys.readouterr().err
    assert main(["sweep"]) == 2
    assert capsys.readouterr().err.startswith(
        "policy-accel: say what is to vary, for example `policy-accel sweep task="
    )
    assert main(["sweep", "seed=1", "--status", str(made.folder)]) == 2
    assert "--status shows a sweep and takes no settings; drop seed=1" in capsys.readouterr().err


def test_a_dry_run_names_the_runs_and_starts_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(*words, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["lr0.001", "lr0.003"]
    assert "training.optimizer.lr=0.003" in lines[1]
    assert not Path("runs").exists()


def test_a_mistake_is_one_sentence_and_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(*words, "method=kl,klm") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["policy-accel: run lr0.001-klm: method=klm is unknown; did you mean 'kl'? Nothing was started."]
    Path("sealed").touch()
    assert sweep(*words, "sweep_dir=sealed/here") == 2
    assert "policy-accel: sealed/here" in capsys.readouterr().err


ASKS = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: {}); os.kill(int(sys.argv[1]), 2); {}"


@pytest.mark.parametrize(
    ("handler", "then", "said"),
    [
        ("sys.exit(130)", "time.sleep(60)", "Stopping: every run saves first"),
        ("os.kill(int(sys.argv[1]), 2)", "time.sleep(60)", "Ending all runs at once"),
    ],
)
def test_ctrl_c_once_lets_runs_save_and_twice_ends_them(
    handler: str,
    then: str,
    said: str,
    words: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run presses it and, where it is pressed twice, does not save: it presses again."""
    monkeypatch.setattr("policy_accel.sweep.job.START", ASKS.format(handler, then))
    assert sweep(*words) == 130
    printed = capfd.readouterr()
    assert said in printed.err
    assert "To go on: policy-accel sweep lr.yaml seed=1" in printed.err
    assert "runs/sweeps/lr: 2 runs: 1 waiting, 1 stopped" in printed.out


def test_a_failing_run_does_not_stop_the_others(
    words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command takes up that one alone."""
    failing = "import sys; sys.exit('no luck' if 'seed=3' in sys.argv else 0)"
    monkeypatch.setattr("policy_accel.sweep.job.START", failing)
    many = [word for word in words if not word.startswith(("seed=", "launcher."))]
    many += ["seed=range(5)", "training.optimizer.lr=1e-3", "launcher.slots=4", "sweep_dir=many"]
    assert sweep(*many) == 1
    assert "5 runs: 4 done, 1 failed" in capfd.readouterr().out
    assert read_sweep(Path("many")).job("seed3").said.startswith("no luck (exit status 1; its log is many/logs/seed3")
    monkeypatch.setattr("policy_accel.sweep.job.START", "open('again', 'a').write('x')")
    assert sweep(*many) == 0
    assert Path("again").read_text() == "x"


def test_the_readme_names_the_page() -> None:
    assert "(docs/how_to/many_runs.md)" in README
