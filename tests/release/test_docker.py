"""The Dockerfile, read: no daemon is there to build it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policy_accel.envs.rendering import PACKAGES


@pytest.fixture(scope="module")
def steps(repository: Path) -> list[tuple[str, str]]:
    """As ("RUN", "apt-get update && ..."), with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (repository / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word
    ]


def values(steps: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in steps if name == word]


def test_targets(steps: list[tuple[str, str]]) -> None:
    assert [rest.partition(" AS ")[2] for rest in values(steps, "FROM")] == ["base", "cpu", "cuda"]
    assert {rest.partition(" AS ")[0] for rest in values(steps, "FROM")[1:]} == {"base"}


def test_simulators_can_draw(steps: list[tuple[str, str]]) -> None:
    installed = next(rest for rest in values(steps, "RUN") if "apt-get install" in rest)
    assert set(PACKAGES.split()) <= set(installed.split())


def test_torch_is_that_of_make_setup(steps: list[tuple[str, str]], repository: Path) -> None:
    (torch,) = re.findall(r"^TORCH\s*\?=\s*(\S+)", (repository / "Makefile").read_text(), re.MULTILINE)
    assert f"TORCH={torch}" in values(steps, "ARG")
    assert f"| `TORCH` | `{torch}` |" in (repository / "docs/how_to/docker.md").read_text()


def test_it_runs_without_privileges(steps: list[tuple[str, str]]) -> None:
    words = [name for name, _ in steps]
    assert values(steps, "USER") == ["robot"]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")
    assert values(steps, "ENTRYPOINT") == ['["policy-accel"]']


def test_what_the_build_needs_is_not_ignored(steps: list[tuple[str, str]], repository: Path) -> None:
    """The packages and what pyproject.toml names, and nothing that lies about in a checkout."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert all((repository / name).exists() for name in kept)
    copied = {name for rest in values(steps, "COPY") for name in rest.split()[:-1]} - {"."}
    assert copied <= kept
    assert {"policy_accel", "envs", "configs", "datasets", "pyproject.toml", "README.md", "LICENSE"} <= kept


def test_arguments_are_explained(steps: list[tuple[str, str]], repository: Path) -> None:
    page = (repository / "docs/how_to/docker.md").read_text()
    names = {rest.partition("=")[0] for rest in values(steps, "ARG")}
    assert names == set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert {"cpu", "cuda"} == set(re.findall(r"--target (\w+)", page))
