"""A source distribution, the wheel made of it, and a fresh environment that has this wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

LEFT_BEHIND = (".*", "*.egg-info", "__pycache__", "build", "dist", "runs", "outputs", "wandb", "gpu_results", "_build")


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files `sdist` and `wheel`, made of a copy, as setuptools writes into the folder that it builds."""
    folder = tmp_path_factory.mktemp("built")
    source = shutil.copytree(repository, folder / "source", ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    uv("build", "--offline", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="session")
def run_installed(
    built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of a fresh environment that has the wheel and borrows the packages of this one, far from the
    checkout. The checkout stays out of sight: the .pth files of a folder that a .pth names are not read."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=120)
    uv("pip", "install", "--offline", "--no-deps", "--python", folder / "venv" / "bin" / "python", built["wheel"])
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (elsewhere := folder / "elsewhere").mkdir()

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        command = [folder / "venv" / "bin" / program, *arguments]
        return subprocess.run(command, cwd=elsewhere, env=kept, capture_output=True, text=True, timeout=600)

    return run
