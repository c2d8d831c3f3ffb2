"""One version, which pyproject.toml states, and how the software is cited."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import policy_accel


@pytest.fixture(scope="module")
def stated(repository: Path) -> str:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]


def test_the_package_says_the_version_that_is_installed(stated: str) -> None:
    assert policy_accel.__version__ == version("policy-accel") == stated


def test_the_changelog_has_the_version_and_its_day(repository: Path, stated: str) -> None:
    changes = (repository / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", changes, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == stated
    cited = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert cited["version"] == stated
    assert str(cited["date-released"]) == headings[1][1]


def test_the_citation_has_what_its_format_asks_for(repository: Path) -> None:
    """The required keys of the Citation File Format 1.2.0, and those of our references."""
    cited = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert {"message", "title", "authors", "license", "abstract", "keywords"} <= set(cited)
    for entry in [cited, *cited["references"]]:
        assert all({"family-names", "given-names"} <= set(author) or "name" in author for author in entry["authors"])
    for reference in cited["references"]:
        assert reference["type"] == "article"
        (identifier,) = reference["identifiers"]
        assert identifier["type"] == "other"
        assert reference["url"].rpartition("/")[2] == identifier["value"].removeprefix("arXiv:")
