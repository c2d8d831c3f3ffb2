"""A stranger's run directory runs no code unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from policy_accel import plugins
from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.policy.track import ROBOT
from policy_accel.trust import admit

EVIL = "evil_module_of_a_stranger"
NAMES = [{"environment": f"{EVIL}:Reach-v0"}, {"environment_module": EVIL}]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: a run, beside a module that leaves a trace."""
    (tmp_path / f"{EVIL}.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.modules.pop(EVIL, None)
    plugins._imported[:] = [name for name in plugins._imported if name != EVIL]
    sys.path[:] = before


def record(run_dir: Path, task: dict[str, str], named: list[str]) -> None:
    config = ROBOT.record(ROBOT.config([]))
    config |= {"task": {**config["task"], **task}, "plugins": named}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("named", NAMES)
def test_the_module_of_an_environment_waits_for_the_users_word(run_dir: Path, named: dict[str, str]) -> None:
    record(run_dir, named, [])
    with pytest.raises(UserError, match=rf"config\.yaml has its environment from the module '{EVIL}'.*--trust"):
        admit(run_dir)
    admit(run_dir, environment=False)
    assert not (run_dir / "ran").exists()
    admit(run_dir, trust=True)
    assert (run_dir / "ran").exists()
    admit(run_dir)  # it is imported already, as by `import` in a script


def test_plugins_are_imported_with_trust_alone(run_dir: Path) -> None:
    record(run_dir, {}, [EVIL])
    admit(run_dir)
    assert not (run_dir / "ran").exists()
    admit(run_dir, trust=True)
    assert (run_dir / "ran").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "."],
        ["tune-sampling", "."],
        ["distill", ".", "--evaluations", "1"],
        ["benchmark", "rollouts", "."],
    ],
)
def test_every_command_that_plays_episodes_asks(
    run_dir: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    record(run_dir, NAMES[0], [EVIL])
    assert main(words) == 2
    assert f"the module '{EVIL}', whose code would run here" in capsys.readouterr().err
    assert not (run_dir / "ran").exists()
    assert main([*words, "--trust"]) == 2  # the run has no checkpoint
    assert (run_dir / "ran").exists()


def test_python_m_from_inside_of_the_folder_takes_no_module_of_it(run_dir: Path) -> None:
    record(run_dir, NAMES[1], [EVIL])
    for name in ("typing", "argparse", "yaml", "torch", "multiprocessing"):
        (run_dir / f"{name}.py").write_text("open('ran', 'w').close()")
    words = [sys.executable, "-m", "policy_accel", "evaluate", "."]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=run_dir, env=environment)
    assert not (run_dir / "ran").exists()
    assert done.returncode == 2, done.stderr
    assert f"the module '{EVIL}'" in done.stderr
