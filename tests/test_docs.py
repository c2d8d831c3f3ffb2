"""What the pages say: their links, the names of the code, the commands."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.data import write_zarr
from support.following import IMAGES, ROBOTS, blocks, few_shapes, follow, run_line

from policy_accel.cli import build_parser, main
from policy_accel.data import Episodes, read_episodes
from policy_accel.images.sets import load_split
from policy_accel.policy.track import ROBOT
from policy_accel.training.randomness import DataOrder, Generators

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "policy_accel"
TOUR = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text()
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/README.md", "datasets/README.md")
    for page in REPOSITORY.glob(pattern)
)


def page_id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        scheme = anchor in ("gh-light-mode-only", "gh-dark-mode-only") and target.suffix == ".svg"
        assert not anchor or scheme or anchor in anchors(target), link


def test_pages_that_messages_and_docstrings_name_are_there() -> None:
    named = {name for file in PACKAGE.rglob("*.py") for name in re.findall(r"\bdocs/[\w/]+\.md", file.read_text())}
    assert len(named) > 3
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_file()] == []


def test_pages_have_links() -> None:
    assert sum(len(re.findall(r"\]\((?!https)", page.read_text())) for page in PAGES) > 40


def defined(tree: ast.AST) -> set[str]:
    """Dotted names of the classes, functions, methods and fields of a module."""
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
                found.add(prefix + child.target.id)

    visit(tree, "")
    return found


def test_the_tour_names_files_and_what_is_in_them() -> None:
    """A file is followed by the names that it defines: `policy/task.py` `ChunkTask.batch`."""
    assert len(TOUR.splitlines()) <= 155
    places = re.findall(r"`([\w/]+\.py)`((?: `[\w.]+`)*)", TOUR)
    assert sum(bool(names) for _, names in places) > 25
    everywhere = {name for path in PACKAGE.rglob("*.py") for name in defined(ast.parse(path.read_text()))}
    for file, names in places:
        path = PACKAGE / file if (PACKAGE / file).exists() else PACKAGE / "acceleration" / file
        assert path.is_file(), file
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in defined(ast.parse(path.read_text())), f"{file} has no {name}"
    alone = set(re.findall(r"`([A-Z][A-Za-z0-9]+(?:\.\w+)?)`", TOUR))
    assert len(alone) > 10
    assert alone <= everywhere


def test_the_shapes_of_the_tour_are_those_of_the_default_run() -> None:
    task = ROBOT.build(ROBOT.config(["training.device=cpu"]))
    task.to(torch.device("cpu"))
    generators = Generators(0, torch.device("cpu"))
    batch = task.batch(DataOrder(task.samples, 128, 0, torch.device("cpu")).batch(0))
    noised = task.objective.draw(batch, generators.time, generators.noise)
    assert isinstance(batch.condition, torch.Tensor)
    shapes = [
        *(list(tensor.shape) for tensor in (task.observations, task.actions, task.train.indices)),
        *(list(tensor.shape) for tensor in (batch.x0, batch.condition, noised.x_t, noised.t)),
    ]
    named = TOUR.replace(",", "")
    assert all(str(shape).replace(",", "") in named for shape in shapes), shapes
    assert f"{sum(parameter.numel() for parameter in task.model.parameters()):,} parameters" in TOUR
    assert noised.weight is None
    assert task.objective.target == "sample"


def test_arrows_between_the_rooms_point_down() -> None:
    """As drawn on the tour: from a room to those below it. plugins.py imports a room when something is registered."""
    drawing = TOUR.split("## The rooms", 1)[1]
    rows = [re.findall(r"[\w.]+", line.split("  ")[0]) for line in re.findall(r"^ {4}(\S.*)$", drawing, re.MULTILINE)]
    level = {room.removesuffix(".py"): number for number, row in enumerate(rows) for room in row}
    assert len(level) == 21
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("policy_accel."):
                other = (node.module or "").split(".")[1]
                if room in level and other in level and room not in (other, "plugins"):
                    assert level[other] > level[room], f"{path.relative_to(PACKAGE)} imports {node.module}"


def commands(page: Path) -> list[list[str]]:
    """The command lines of `policy-accel` in the code blocks of a page, without their comments."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(
        r"^(?: {4})?(?:policy-accel|(?:srun )?torchrun .* -m policy_accel) (.*)$", text, flags=re.MULTILINE
    )
    return [shlex.split(line, comments=True) for line in lines]


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every argument is known; every setting that `train` is given exists and takes its value."""
    for words in commands(page):
        words = [word for word in words if not word.endswith("=...") and word != "..."]
        options = build_parser().parse_args(words)
        own = [word for word in getattr(options, "overrides", []) if word.endswith(".yaml") or "plugins=" in word]
        if options.command == "train" and not own and options.config_dir is None:
            assert main([*words, "--print-config"]) == 0, capsys.readouterr().err


EXTEND = (REPOSITORY / "docs" / "how_to" / "extend.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in EXTEND.split("\n## ") if "\n```sh\n" in part}
TASK = next(iter(SECTIONS))


@pytest.fixture(scope="module")
def with_the_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the first example, which the others use, and its demonstrations."""
    folder = tmp_path_factory.mktemp("task")
    for name, _, text in blocks(SECTIONS[TASK]):
        if name:
            (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_line("python reach.py", ROBOTS)
    return folder


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_runs_outside_of_the_package(
    title: str, with_the_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of a section: trained, evaluated, loaded again."""
    monkeypatch.chdir(tmp_path)
    for path in with_the_task.iterdir():
        shutil.copy(path, tmp_path)
    run = follow(SECTIONS[title], ROBOTS)
    runs = sum(line.startswith("policy-accel train") for line in run)
    assert len(list(tmp_path.glob("runs/*/evaluation.json"))) == runs > 0


def test_data_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The heading of the page is that of the run, but for the machine and how long it trains."""
    monkeypatch.chdir(tmp_path)
    page = REPOSITORY / "docs" / "how_to" / "your_data.md"
    follow(page.read_text(), ROBOTS)
    printed = capsys.readouterr()
    shown = re.findall(r"^ {6}(\w.*)$", page.read_text(), flags=re.MULTILINE)
    assert len(shown) == 8
    for line in shown[:-1]:
        assert f"\n  {line}\n" in printed.err
    assert "1 of 4 episodes is shorter" in printed.out
    assert (tmp_path / "mine.png").exists()


def test_training_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of the page with a thousandth of their updates, and few demonstrations."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).uniform(0, 512, (90, 7)).astype("f4")
    write_zarr(tmp_path / "few.zarr", Episodes({"state": values[:, :5], "action": values[:, 5:]}, np.array([40, 90])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = [
        *ROBOTS["train"],
        "task.data=few.zarr",
        "evaluation.videos=0",
        "task.max_steps=8",
        "training.checkpoint.keep_last=4",
        "model.down_dims=[8,16]",
    ]
    two = "train task=pusht_state run_dir=runs/push training.steps=8000 evaluation.episodes=2"
    work = {"train": small, two: [word for word in small if word != "evaluation.episodes=1"]}
    assert len(follow((REPOSITORY / "docs" / "how_to" / "further_training.md").read_text(), work)) == 5
    said = capsys.readouterr()
    assert "training.steps: 4 -> 8" in said.err
    assert "evaluation.episodes: 1 -> 2; training.checkpoint.keep_best: 5 -> 2" in said.err
    changes = (tmp_path / "runs" / "push" / "changes.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in changes] == [4, 8]
    scored = [json.loads(line) for line in (tmp_path / "runs" / "push" / "evaluations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scored] == [4, 8]
    assert json.loads((tmp_path / "runs" / "push" / "evaluation.json").read_text())["step"] == 8
    assert "with the averaged weights of runs/push after 8 updates, its normalisers kept" in said.err
    assert "with the averaged weights of runs/push/checkpoints/last after 8 updates, its normalisers fitted" in said.err


def test_the_examples_of_the_pages_on_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tiny networks and few images; one page takes the files of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("policy_accel.images.track.load_split", few_shapes(load_split))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = ("image_sets", "image_scores", "image_recipes", "generating", "latents", "zoo")
    pages = "\n".join((REPOSITORY / "docs" / "how_to" / f"{name}.md").read_text() for name in names)
    follow(pages, IMAGES)
    shown = re.findall(r"^ {4}(protocol .*)$", pages, flags=re.MULTILINE)
    assert len(shown) == 1
    numbers = {"2,000": "20", "1,999": "19", "3,999": "39", "4,000": "40", "5,999": "59"}
    assert re.sub("|".join(numbers), lambda number: numbers[number[0]], shown[0]) in capsys.readouterr().out


def test_the_layout_of_an_hdf5_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    follow((REPOSITORY / "docs" / "how_to" / "hdf5.md").read_text(), ROBOTS)
    assert "front: [480, 24, 32, 3] uint8" in capsys.readouterr().out
    assert set(read_episodes("lab.zarr.zip").arrays) == {"action", "joints", "front"}
    assert (tmp_path / "runs" / "lab" / "checkpoints" / "last").exists()
