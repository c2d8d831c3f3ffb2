"""The README: its length, what stands first, and its figures, which are those of the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.pages import record, result, rows

PICTURES = (
    "docs/figures/rollout.webp",
    "docs/figures/score_over_time_light.svg",
    "docs/figures/score_over_time_dark.svg",
)


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def test_it_is_short_and_begins_with_what_matters(readme: str, repository: Path) -> None:
    lines = readme.splitlines()
    assert len(lines) <= 150
    assert "speed comes from" in lines[3]
    places = [readme.index(mark) for mark in (*PICTURES[:1], *reversed(PICTURES[1:]), "<!-- peers -->", "make demo  ")]
    assert places == sorted(places)
    assert all((repository / picture).is_file() for picture in PICTURES)
    peers = readme.split("<!-- peers -->", 1)[1].split("<!-- end of peers -->", 1)[0]
    assert len(re.findall(r"^\|", peers, flags=re.MULTILINE)) == 2 + 8
    headings = ["Start", "Your data", "Your robot", "Which method", "Several GPUs, many runs", "Images", "More"]
    assert re.findall(r"^## (.*)$", readme, flags=re.MULTILINE) == headings


def test_the_demo_scores_what_its_record_says(readme: str) -> None:
    scores = {row["network_evaluations"]: row["score"] for row in result("demo_cpu")["scores"] if row["episodes"] == 50}
    said = re.search(r"reaches ([\d.]+) on its 50 test starts, and ([\d.]+) and ([\d.]+) with two", readme)
    assert said
    assert list(said.groups()) == [f"{scores[evaluations]:.2f}" for evaluations in (8, 2, 1)]


def test_recipes_and_methods_earned_what_their_records_say(readme: str) -> None:
    ladder = {row["rung"]: row["score"] for row in result("pusht_speedrun_cpu")["rungs"]}
    differences = {
        name.removeprefix("score, ").removesuffix(" less baseline"): row
        for name, row in record("pusht_keypoints-compare-2026-11-29").items()
        if name.endswith(" less baseline")
    }
    of_methods = 0
    for _, how, earned in rows(readme, "| what | how"):
        found = re.findall(r"(?<![\w.,])[+-]?\d\.\d{3}", earned)
        if method := re.match(r"`method=(\w+)`", how):
            row, of_methods = differences[method[1]], of_methods + 1
            expected = [row["value"], *row["interval"]] + (
                [differences["kl_independent"]["value"]] if len(found) == 4 else []
            )
            assert found == [f"{value:+.3f}" for value in expected], how
        else:
            rungs = {
                "`recipe=small`, the default": ["AdamW, 4,000 updates (recipe=small)"],
                "`recipe=fast`": ["Muon, 1,000 updates", "Muon, 1,500 updates (recipe=fast)"],
                "`policy-accel tune-sampling RUN`, `policy-accel distill RUN`": [
                    "+ grid (99, 25)",
                    "+ distilled, 1 evaluation",
                    "Muon, 1,500 updates (recipe=fast)",
                ],
            }[how]
            assert found == [f"{ladder[rung]:.3f}" for rung in rungs], how
    assert of_methods == 5


def test_the_site_begins_as_the_readme_does(readme: str, repository: Path) -> None:
    """What the two share is included; the marks that it is cut by are in the README, once each and in order."""
    page = (repository / "docs/index.md").read_text()
    marks = re.findall(r"^:(?:start-after|end-before): \"?(.*?)\"?$", page, flags=re.MULTILINE)
    assert len(marks) == 6
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        part = readme.split(begin, 1)[1].split(end, 1)[0]
        assert len(part.strip()) > 100, begin
    assert "    make demo" in readme.split(marks[4], 1)[1].split(marks[5], 1)[0]
    pictures = re.findall(r"!\[[^]]+\]\(([\w/.]+?)(?:#gh-(?:light|dark)-mode-only)?\)", page)
    assert [f"docs/{picture}" for picture in pictures] == list(PICTURES)
    assert page.index("## Start") < page.index("## All pages")


def test_pictures_of_a_scheme_are_marked_as_github_and_the_site_want_it(repository: Path) -> None:
    pages = [*(repository / "docs").glob("**/*.md")]
    found = [line for page in pages for line in page.read_text().splitlines() if re.search(r"_(light|dark)\.svg", line)]
    assert len(found) > 10
    for line in found:
        assert re.search(r"_(light|dark)\.svg#gh-\1-mode-only\)", line), line
