from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from policy_accel.commands import completers, known_settings, list
from policy_accel.commands.completers import GROUPS, SUFFIXES, files, kinds, run_directories, sections, sets, settings


def test_the_names_that_are_kept_are_those_of_the_settings() -> None:
    """Else: python -m policy_accel.commands.known_settings"""
    assert known_settings.known_settings() == known_settings.collected()


def test_the_groups_of_the_users_files_are_known() -> None:
    from policy_accel import user_files

    assert (GROUPS, SUFFIXES) == (user_files.GROUPS, user_files.SUFFIXES)
    assert {*list.KINDS, list.PARAMETERS} <= set(kinds(""))


def test_completing_loads_no_torch() -> None:
    program = (
        "import sys; from policy_accel.commands import completers as c; from argparse import Namespace; "
        "c.settings('task=', Namespace()); print('torch' in sys.modules or 'hydra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def offered(prefix: str, *overrides: str, **options: object) -> list[str]:
    return settings(prefix, Namespace(overrides=[*overrides], **options))


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a=", "b.", "c.", "e"]),
        ("b", ["b.x=", "b.y="]),
        ("b.", ["b.x=", "b.y="]),
        ("c", ["c.d.f=", "c.d.g="]),
        ("b.x", ["b.x="]),
        ("z", []),
    ],
)
def test_sections_come_before_what_is_in_them(prefix: str, expected: list[str]) -> None:
    names = ["a=", "b.x=", "b.y=", "c.d.f=", "c.d.g=", "e"]
    assert sections(prefix, names) == expected


def test_settings_of_a_choice_are_offered() -> None:
    assert "model.down_dims=" in offered("model.")
    assert offered("training.compil", "task=pusht_state") == ["training.compile="]
    assert offered("training.compile=") == ["training.compile=true", "training.compile=false"]


def test_a_task_says_which_track_is_meant() -> None:
    assert "recipe=edm_cifar10" in offered("recipe=", "task=cifar10")
    assert "recipe=diffusion_policy" not in offered("recipe=", "task=cifar10")
    assert "recipe=diffusion_policy" in offered("recipe=", "task=pusht_state")
    assert {"recipe=diffusion_policy", "recipe=edm_cifar10"} <= set(offered("recipe="))
    assert "policy.horizon=" not in offered("policy.", "images")
    assert "policy.horizon=" in offered("policy.")


def test_the_last_of_several_values_is_completed() -> None:
    assert offered("method=baseline,kl_f") == ["method=baseline,kl_fresh"]


def test_the_demos_are_named_for_demo_alone() -> None:
    assert "images" in offered("im", command="demo")
    assert "images" not in offered("im", command="train")


def test_the_users_own_files_are_offered_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "mine.yaml").write_text("data: !!python/object/apply:os.system ['touch trapped']")
    assert "task=mine" in offered("task=m", config_dir=Path("conf"))
    assert offered("task=./conf/task/") == ["task=./conf/task/mine.yaml"]
    assert offered("task.data=con") == ["task.data=conf/"]
    assert not (tmp_path / "trapped").exists()


def test_runs_and_exported_policies_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "demos", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "demo" / "config.yaml").touch()
    for name in ("demo.onnx", "demo.png"):
        (tmp_path / name).touch()
    assert run_directories("de") == ["demo", "demo.onnx", "demos/"]
    assert run_directories("arm=dem") == ["arm=demo", "arm=demo.onnx", "arm=demos/"]
    assert files("./.h") == ["./.hidden/"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files("~/demo.p") == ["~/demo.png"]
    assert completers.files("nowhere/") == []


def test_the_public_sets_are_offered() -> None:
    assert sets("c") == ["celeba64", "cifar10"]
    assert sets("[") == []
