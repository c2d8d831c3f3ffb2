"""The ladder of recipes: its settings can be run, its figures are those of the scores, and docs/results shows them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from policy_accel.commands.arguments import build_parser
from policy_accel.comparison.statistics import TwoLevels
from policy_accel.policy.track import ROBOT

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def speedrun() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        yield importlib.import_module("pusht_speedrun")


def test_every_rung_can_be_run(speedrun: ModuleType) -> None:
    for name, rung in speedrun.LADDER.items():
        training = speedrun.TRAININGS[rung.training]
        assert rung.on in ("", *speedrun.LADDER), name
        if training.teacher:
            training = speedrun.TRAININGS[training.teacher]
        config = ROBOT.config([*training.settings, *speedrun.COMMON, "task.data=x"])
        ROBOT.check(config)
        build_parser().parse_args(["evaluate", "RUN", *rung.sampling])


def test_means_costs_and_differences(speedrun: ModuleType, tmp_path: Path) -> None:
    """Two rungs of two seeds; the second one's training is taught by the first one's."""
    generator = np.random.default_rng(0)
    scores = {name: generator.uniform(0.5, 1.0, (2, 40)) for name in ("muon", "distilled")}
    kept: dict[str, Any] = {}
    for seed in (0, 1):
        kept[f"train muon seed {seed}"] = {"updates": 1500, "cpu_seconds": 100.0 + seed, "wall_seconds": 50.0}
        kept[f"train distilled seed {seed}"] = {"updates": 300, "cpu_seconds": 40.0, "wall_seconds": 20.0}
        for name, sampling in (("muon", speedrun.ONE), ("distilled", speedrun.ONE)):
            words = f"score {name} seed {seed} {' '.join(sampling)}, 40 from 7"
            kept[words] = {"scores": scores[name][seed].tolist(), "network_evaluations": 1, "success": 0.5}
    (tmp_path / "speedrun-0.json").write_text(json.dumps({k: v for k, v in kept.items() if "seed 0" in k}))
    (tmp_path / "speedrun-1.json").write_text(json.dumps({k: v for k, v in kept.items() if "seed 1" in k}))
    options = Namespace(folder=tmp_path, seeds=[0, 1], episodes=40, start_seed=7, seconds=False, data="x")
    names = ["Muon, 1,500, 1 evaluation", "+ distilled, 1 evaluation"]
    plain, distilled = speedrun.summary(names, options, speedrun.Kept(tmp_path, [0, 1]))
    assert plain["score"] == round(float(scores["muon"].mean()), 4)
    assert (plain["updates"], plain["cpu_seconds"], plain["wall_seconds"]) == (1500, 100.5, 50.0)
    assert (distilled["updates"], distilled["cpu_seconds"], distilled["wall_seconds"]) == (1800, 140.5, 70.0)
    assert distilled["by_seed"] == {str(seed): round(float(scores["distilled"][seed].mean()), 4) for seed in (0, 1)}
    both = TwoLevels([scores["muon"], scores["distilled"]]).estimate(np.array([-1.0, 1.0]))
    assert distilled["compared_with"] == names[0]
    assert distilled["difference"] == round(both.value, 4)
    assert distilled["difference_interval"] == [round(end, 4) for end in both.interval or ()]
    line = speedrun.table([plain, distilled]).splitlines()[3]
    assert line.startswith(f"| + distilled, 1 evaluation | 1,800 | 1 | {round(140.5)} | **{distilled['score']:.3f}** [")
    assert not list(tmp_path.glob("*-seed*")), "nothing was trained"
    speedrun.draw([plain, distilled], tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").stat().st_size > 10_000


def test_the_page_shows_the_recorded_ladder(speedrun: ModuleType) -> None:
    """As `python benchmarks/pusht_speedrun.py` printed it, with the picture beside it."""
    path = REPOSITORY / "benchmarks/results/pusht_speedrun_cpu.json"
    rows = json.loads(path.read_text())["rungs"]
    assert [row["rung"] for row in rows] == list(speedrun.LADDER)
    page = (REPOSITORY / "docs" / "results" / "push_t.md").read_text()
    assert speedrun.table(rows) in page
    assert f"(../../{path.relative_to(REPOSITORY).with_suffix('.png')})" in page
    assert path.with_suffix(".png").is_file()


def test_what_the_page_says_of_the_other_tasks_is_recorded() -> None:
    page = (REPOSITORY / "docs" / "explanation" / "optimizers.md").read_text()

    def recorded(task: str) -> dict[int, dict[str, Any]]:
        path = REPOSITORY / f"benchmarks/results/optimizers_{task}_cpu.json"
        return {row["updates"]: row for row in json.loads(path.read_text())["muon_beside_adamw"]}

    maze, lift, door = (recorded(task) for task in ("pointmaze_medium", "lift", "adroit_door"))
    few, more = (round(maze[updates]["updates_of_adamw"], -1) for updates in (250, 500))
    assert f"Muon's 250 updates are AdamW's {few}, its 500 AdamW's {more}." in page
    assert lift[200]["updates_of_adamw"] is None
    assert door[400]["updates_of_adamw"] is None
    low, high = door[800]["difference_interval"]
    assert f"at 800 it is {door[800]['difference']:.2f} [{low:.2f}, {high:.2f}] ahead" in page


def test_updates_to_a_score() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        by_task = importlib.import_module("optimizers_by_task")
    curve = [(100, 0.2), (400, 0.6), (800, 0.6)]
    assert by_task.updates_to(0.1, curve) == 100
    assert by_task.updates_to(0.4, curve) == pytest.approx(200)
    assert by_task.updates_to(0.61, curve) is None


def test_scripts_import_what_there_is() -> None:
    for path in sorted((REPOSITORY / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("policy_accel"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), (path, name)
