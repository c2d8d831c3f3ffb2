"""What is said where an optional package is missing, and that pyproject.toml has what the sentence asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from policy_accel.extras import packages_of, to_install


@pytest.fixture(scope="module")
def extras(repository: Path) -> dict[str, list[str]]:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_a_checkout_is_installed_from_its_folder(repository: Path) -> None:
    assert to_install("pusht") == f"install it with: pip install -e '.[pusht]' in {repository}"


def test_a_wheel_names_the_packages(tmp_path: Path) -> None:
    """As no index has our name, which a command with it would ask for."""
    (tmp_path / "envs").mkdir()
    assert to_install("report", tmp_path) == "install it with: pip install 'plotly>=6' 'jinja2>=3.1'"
    assert "policy-accel" not in to_install("robomimic", tmp_path)


def test_packages_are_those_of_pyproject(extras: dict[str, list[str]]) -> None:
    from packaging.requirements import Requirement

    def normal(packages: list[str]) -> list[str]:
        return [str(Requirement(package)) for package in packages]

    for name, packages in extras.items():
        if not any(package.startswith("policy-accel") for package in packages):
            assert packages_of(name) == normal(packages), name
    assert packages_of("robomimic") == normal([*extras["robosuite"], "robomimic==0.3.0"])
    assert packages_of("no_such_extra") == []


def test_every_extra_that_is_asked_for_exists(repository: Path, extras: dict[str, list[str]]) -> None:
    """In the messages, and in the commands of the pages."""
    sources = [*(repository / "policy_accel").rglob("*.py"), *(repository / "envs").glob("*.py")]
    asked = {name for path in sources for name in re.findall(r"to_install\(['\"](\w+)['\"]\)", path.read_text())}
    assert {"pusht", "robosuite", "planning", "report", "hub", "serve", "export", "diffusers", "fid"} <= asked
    pages = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    listed = {names for path in pages for names in re.findall(r"'\.\[([\w,]+)\]'", path.read_text())}
    asked |= {name for names in listed for name in names.split(",")}
    assert asked <= set(extras)


def test_no_command_asks_an_index_for_our_name(repository: Path) -> None:
    paths = [*(repository / "policy_accel").rglob("*.py"), *(repository / "envs").glob("*.py")]
    paths += [repository / "README.md", *(repository / "docs").rglob("*.md")]
    for path in paths:
        assert not re.search(r"pip install[^\n]*policy[-_]accel\[", path.read_text()), path
