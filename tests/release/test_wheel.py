"""What a stranger gets: the files that are needed and no others, and that they work without the checkout."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def in_wheel(built: dict[str, Path]) -> list[str]:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        return wheel.namelist()


def metadata(built: dict[str, Path]) -> Message:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_every_file_of_its_packages(built: dict[str, Path], repository: Path) -> None:
    roots = {name: f"policy_accel/{name}" for name in ("envs", "configs", "datasets")} | {
        "policy_accel": "policy_accel"
    }
    expected = {
        f"{inside}/{path.relative_to(repository / outside).as_posix()}"
        for outside, inside in roots.items()
        for path in (repository / outside).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    names = {name for name in in_wheel(built) if ".dist-info/" not in name}
    assert names == expected
    for name in ("py.typed", "envs/pusht.py", "configs/recipe/demo.yaml", "datasets/manifest/pusht.json"):
        assert f"policy_accel/{name}" in names
    assert "policy_accel/datasets/pusht_scripted.zarr.zip" in names
    assert {"report.js", "report.css"} <= {Path(name).name for name in names}


def test_files_are_small(built: dict[str, Path]) -> None:
    """What ships is code and two small sets of demonstrations and images."""
    assert built["wheel"].stat().st_size < 12e6
    assert built["sdist"].stat().st_size < 12e6


def test_the_source_distribution_has_neither_tests_nor_measurements(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= set(names)
    top = {name.partition("/")[0] for name in names}
    assert not top & {"tests", "benchmarks", "docs", "runs", "shared", "constraints.txt"}


def test_metadata_is_that_of_the_project(built: dict[str, Path], project: dict[str, Any]) -> None:
    about = metadata(built)
    assert about["Name"] == "policy-accel"
    assert about["Version"] == project["version"]
    assert about["License-Expression"] == "MIT"
    assert about.get_all("License-File") == ["LICENSE"]
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["Requires-Python"] == "<3.14,>=3.11"
    assert set(about.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    said = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert said <= set(about.get_all("Classifier", []))


def test_the_command_says_its_version(run_installed: Run, project: dict[str, Any]) -> None:
    done = run_installed("policy-accel", "--version")
    assert (done.returncode, done.stdout.split()) == (0, ["policy-accel", project["version"]])


def test_the_wheel_is_what_runs(run_installed: Run, project: dict[str, Any]) -> None:
    code = "import policy_accel as p, policy_accel.envs as e; print(p.__version__, p.__file__, e.__file__)"
    done = run_installed("python", "-c", code)
    assert done.returncode == 0, done.stderr
    version, package, envs = done.stdout.split()
    assert version == project["version"]
    assert "site-packages/policy_accel/__init__.py" in package
    assert "site-packages/policy_accel/envs/__init__.py" in envs


def test_its_tasks_are_listed(run_installed: Run) -> None:
    done = run_installed("policy-accel", "list", "tasks")
    assert done.returncode == 0, done.stderr
    assert "pusht_keypoints" in done.stdout


def test_the_demo_trains_and_is_reported(run_installed: Run, tmp_path: Path) -> None:
    """Two updates on the demonstrations that ship, one episode, and the page, whose styles and scripts ship too."""
    run_dir = tmp_path / "run"
    training = ["training.steps=2", "training.device=cpu", "training.threads=1"]
    scored = ["task.max_steps=20", "evaluation.episodes=1", "evaluation.videos=0", "evaluation.workers=0"]
    done = run_installed("policy-accel", "train", "recipe=demo", *training, *scored, f"run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((run_dir / "evaluation.json").read_text())["episodes"]) == 1
    done = run_installed("policy-accel", "report", str(run_dir))
    assert done.returncode == 0, done.stderr


def test_what_is_missing_is_told_by_its_packages(run_installed: Run) -> None:
    """Where there is no checkout, `pip install -e .` would be no help."""
    code = "import sys; sys.modules['gym_pusht'] = None; import policy_accel.envs.pusht"
    done = run_installed("python", "-c", code)
    assert "install it with: pip install 'gym-pusht<0.2,>=0.1.6' 'pymunk<7,>=6.6'" in done.stderr
