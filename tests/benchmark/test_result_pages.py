"""The pages of docs/results: they say what the JSONs do, no number in them is typed, and no JSON is left out."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"
TEMPLATES = sorted((BENCHMARKS / "pages").glob("*.md.j2"))
PAGES = [*REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "README.md"]
JSONS = sorted(path for folder in ("results", "records") for path in (BENCHMARKS / folder).glob("*.json"))


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("result_pages")


@pytest.fixture
def changed(pages: ModuleType, tmp_path: Path) -> Callable[..., str]:
    """A page from the JSONs, one of which is changed."""

    def page(name: str, file: str, change: Callable[[dict], None]) -> str:
        for folder in ("results", "records"):
            shutil.copytree(BENCHMARKS / folder, tmp_path / folder, dirs_exist_ok=True)
        path = tmp_path / "results" / f"{file}.json"
        content = json.loads(path.read_text()) if path.is_file() else {}
        change(content)
        path.write_text(json.dumps(content))
        return pages.render(name, tmp_path)

    return page


def test_pages_say_what_the_records_do(pages: ModuleType) -> None:
    assert len(TEMPLATES) >= 6
    assert not pages.stale(), "run python benchmarks/result_pages.py"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_figure_is_typed(template: Path) -> None:
    """What is left without Jinja's expressions, code and links has no decimal number, percentage or thousand."""
    text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|`.*?`|\]\(.*?\)", "", template.read_text(), flags=re.DOTALL)
    assert set(re.findall(r"\d\.\d+", text)) <= {"0.03"}  # the difference that `compare` speaks of
    assert set(re.findall(r"\d+ %|\d,\d{3}", text)) <= {"95 %", "2,048", "3,072", "1,000"}  # intervals; sizes; updates


def test_a_figure_of_a_table_comes_from_its_file(changed: Callable[..., str]) -> None:
    def worse(content: dict) -> None:
        content["scores"][0] |= {"success_rate": 0.123, "success_interval": [0.0456, 0.2345]}

    assert "| 0.12 [0.05,\N{NO-BREAK SPACE}0.23] |" in changed("tasks", "lift_cpu", worse)


def test_a_figure_of_a_sentence_comes_from_its_file(changed: Callable[..., str]) -> None:
    def slower(content: dict) -> None:
        next(rung for rung in content["rungs"] if rung["rung"] == "Muon, 1,000 updates")["cpu_seconds"] = 276.0

    text = changed("push_t", "pusht_speedrun_cpu", slower)
    assert "for 1.00 of the CPU-seconds" in text
    assert "(0.923 in 276)" in text


def test_a_killed_run_that_differs_is_counted(changed: Callable[..., str]) -> None:
    text = changed("speed", "kill_and_resume", lambda content: content.update(equal=19))
    assert "| a run, by SIGKILL at random moments | 19 of 20 |" in text


def test_the_page_of_images_has_the_comparison_of_the_papers(changed: Callable[..., str]) -> None:
    one = {"mean": 30.25, "interval": [29.0, 31.5], "seeds": 3}
    ratio = {"mean": 0.5, "interval": None, "seeds": 3}

    def made(content: dict) -> None:
        over = {
            "immiscible_scaling": [0.7, 0.8],
            "baseline:diffusion.beta_end=0.01": [0.6, 0.65],
            "baseline:diffusion.schedule=squaredcos_cap_v2": [0.4, 0.9],
        }
        ends = {
            arm: {"distance": one, "over_first": {"mean": sum(ends) / 2, "interval": ends}}
            for arm, ends in over.items()
        }
        unseen = {"samples": {"at_most": 1.5, "reached": 2, "seeds": 3}}
        found = {
            "final": {"baseline": {"distance": one, "over_first": ratio}, **ends},
            "speed_ups": {"40": dict.fromkeys(["baseline", *over], unseen)},
        }
        content.clear()
        content.update(
            command="python benchmarks/image_methods.py PLAN",
            quality="fd_resnet56",
            final_samples=5000,
            note="unconditional",
            tables={"ddpm": found, "default": found, "edm": {}},
        )

    text = changed("images", "image_methods_16px_cpu", made)
    assert "| baseline | 30.2\u00a0[29,\u00a031.5] | 0.5 | at most 1.50 (2 of 3 got there) |" in text
    assert "edm: no run yet" in text
    said = " ".join(text.replace("\u00a0", " ").split())
    assert "and ended at 0.75 [0.70, 0.80] of the baseline's distance" in said
    assert "with `diffusion.beta_end=0.01` the distance was 0.62 [0.60, 0.65] of it" in said
    assert "with `diffusion.schedule=squaredcos_cap_v2` 0.65 [0.40, 0.90]." in said
    assert "than the baseline, at 0.75 [0.70, 0.80] of its distance" in said
    assert "[`image_methods_16px_cpu.json`](../../benchmarks/results/image_methods_16px_cpu.json)" in text


def test_a_page_that_is_not_up_to_date_is_named(
    pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "PAGES", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("# Ours\n<!-- peers -->\n| typed | by hand |\n<!-- end of peers -->\nMore.\n")
    monkeypatch.setattr(pages.peers, "README", readme)
    assert pages.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "tasks.md is not up to date" in said
    assert "README.md is not up to date" in said
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
    assert readme.read_text().startswith("# Ours\n<!-- peers -->\n|  | policy_accel | Diffusion Policy |")
    assert readme.read_text().endswith("<!-- end of peers -->\nMore.\n")
    (tmp_path / "tasks.md").write_text("typed by hand")
    assert [page.name for page in pages.stale()] == ["tasks.md"]


def test_the_list_at_the_end_has_date_commit_machine_and_command(pages: ModuleType) -> None:
    recorded = importlib.import_module("recorded").Recorded()
    recorded.result("kill_and_resume")
    recorded.result("benchmark_step_small_cpu")
    recorded.record("lift-compare-2026-11-29")
    _, record, step, killed = recorded.listing().split("- [")
    assert killed == (
        "`kill_and_resume.json`](../../benchmarks/results/kill_and_resume.json), 2026-11-29; commit 22d6376; "
        "2 cores of AMD EPYC, torch 2.15.0+cu132\n\n  <details><summary>command</summary>\n\n  ```sh\n"
        "  python benchmarks/kill_and_resume.py --kills 20\n  ```\n\n  </details>\n"
    )
    assert "\n  policy-accel benchmark step recipe=small training.threads=1\n" in step
    assert record.startswith(
        "`lift-compare-2026-11-29.json`](../../benchmarks/records/lift-compare-2026-11-29.json), 2026-11-29; "
    )
    assert "\n  policy-accel data generate lift --episodes 100\n  policy-accel sweep recipe=small" in record


def test_numbers(pages: ModuleType) -> None:
    assert pages.fixed(1234.567) == "1,234.57"
    assert (pages.shown(5085.2), pages.shown(63.14)) == ("5,085", "63.1")
    assert pages.interval([0.8567, 1]) == "[0.86,\N{NO-BREAK SPACE}1.00]"
    assert pages.signed_interval([-0.012, 0.05]) == "[-0.01,\N{NO-BREAK SPACE}+0.05]"
    assert pages.percent(0.1229) == "12 %"
    assert (pages.span([163.6, 144.2], 0), pages.span([1.11, 1.12], 1)) == ("144 to 164", "1.1")
    assert pages.half_width([{"score_interval": [0.5, 0.7]}, {"score_interval": [0.5, 0.9]}]) == pytest.approx(0.15)
    assert pages.one([{"a": 1}, {"a": 2, "b": 3}], a=2) == {"a": 2, "b": 3}
    with pytest.raises(LookupError, match="no row has"):
        pages.one([{"a": 1}], a=2)


def linked(page: Path) -> set[Path]:
    """The JSONs of the benchmarks that a page links to."""
    links = re.findall(r"\]\(([^)#]+\.json)\)", page.read_text())
    return {(page.parent / link).resolve() for link in links if "://" not in link}


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.name)
def test_every_record_is_on_a_page(path: Path) -> None:
    assert any(path in linked(page) for page in PAGES), "give it a place in benchmarks/pages/*.md.j2"


def test_every_record_that_a_page_links_to_exists() -> None:
    for page in PAGES:
        assert not [path for path in linked(page) if not path.is_file()], page


def test_every_cell_of_the_comparison_has_a_source_or_says_that_it_has_none(pages: ModuleType) -> None:
    found = pages.peers.read_peers()
    for row in found["rows"]:
        for name in pages.peers.columns(found):
            says, paths = row[name]
            assert bool(paths) == (says not in ("none found", "not checked", "not measured")), (row["what"], name)
            if name == "policy_accel":
                assert all((REPOSITORY / path).exists() for path in paths), row["what"]


def test_the_readme_compares_by_eight_rows(pages: ModuleType) -> None:
    """Short ones; the figures are those of the JSONs. `test_pages_say_what_the_records_do` compares README.md."""
    lines = pages.environment().globals["peers_table"](readme=True).splitlines()
    assert len(lines) == 2 + 8
    assert {line.count("|") for line in lines} == {6}
    assert "| 1.32 and 1.61 times as fast as Diffusion Policy's own code" in lines[2]
    assert len(pages.environment().globals["peers_table"](readme=False).splitlines()) > len(lines)


def test_a_readme_without_marks_is_refused(pages: ModuleType) -> None:
    with pytest.raises(pages.peers.UserError, match="put them back under its first paragraph"):
        pages.readme("# Ours")
