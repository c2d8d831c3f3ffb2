from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from policy_accel.cli import main

PROGRAM = Path(sys.executable).with_name("policy-accel")
ASK = """
source <(policy-accel completion bash)
complete_with=$(complete -p policy-accel | sed 's/.*-F \\(.*\\) policy-accel/\\1/')
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=()
    $complete_with "$FIRST"
    (IFS='|'; echo "${COMPREPLY[*]}")
done
"""


def completed(folder: Path, *lines: str, first: str = "policy-accel") -> list[list[str]]:
    """What bash offers at the end of each line, in `folder`."""
    environment = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "FIRST": first, "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", *lines], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return [sorted(line.split("|")) if line else [] for line in done.stdout.splitlines()]


def test_bash_completes_commands_settings_choices_and_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    (tmp_path / "runs" / "sweeps").mkdir()
    found = completed(
        tmp_path,
        "policy-accel tra",
        "policy-accel train task=pusht_",
        "policy-accel train training.optimizer.l",
        "policy-accel evaluate runs/",
        "policy-accel evaluate runs/mine --fre",
    )
    assert found == [
        ["train "],
        ["pusht_image", "pusht_keypoints", "pusht_state"],
        ["training.optimizer.lr="],
        ["runs/mine", "runs/sweeps/"],
        ["--fresh "],
    ]


def test_a_program_of_our_name_in_the_folder_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "policy-accel"
    trap.write_text("#!/bin/sh\ntouch trapped\n")
    trap.chmod(0o755)
    (tmp_path / "argparse.py").write_text("open('trapped', 'w')\n")
    assert completed(tmp_path, "./policy-accel tra", first="./policy-accel") == [["train "]]
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_one_that_it_reads(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(PROGRAM)])
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert str(PROGRAM) in script
    if (found := shutil.which(shell)) is not None:
        assert subprocess.run([found, "-n"], input=script, capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("/usr/lib/pytest", "is not the program `policy-accel`"),
        ("/a$(touch b)/policy-accel", "characters in its path that a shell's script cannot hold"),
    ],
)
def test_programs_that_no_script_can_call_are_refused(
    program: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert main(["completion", "bash"]) == 2
    assert sentence in capsys.readouterr().err
