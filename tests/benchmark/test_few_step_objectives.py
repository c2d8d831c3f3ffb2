"""The comparison of objectives: what is kept in its folder becomes its result."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


def test_what_was_done_becomes_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    objectives = importlib.import_module("few_step_objectives")
    generator, scores = np.random.default_rng(0), dict[tuple[str, int, int], np.ndarray]()
    kept: dict[str, object] = {}
    for arm, steps in (("baseline", 12), ("mip", 6)):
        for seed in (1, 2):
            kept[f"train {arm}-muon-seed{seed}, {steps} updates"] = {"updates": steps, "cpu_seconds": 5.0, "loss": 0.1}
            for evaluations, sampling in zip((1, 2, 4), objectives.ARMS[arm].sampling, strict=False):
                own = scores[arm, evaluations, seed] = generator.uniform(0, 1, 20)
                result = {"scores": own.tolist(), "network_evaluations": evaluations, "metrics": {}}
                kept[f"score {arm}-muon-seed{seed} {' '.join(sampling)}, 20 from 7"] = result
            grid = {"scores": [0.0] * 20, "network_evaluations": 2, "metrics": {}}
            kept[f"score baseline-muon-seed{seed} --sampling-times 99,25, 20 from 7"] = grid
    (tmp_path / "speedrun-1-2.json").write_text(json.dumps(kept))
    words = ["--data", "x", "--folder", tmp_path, "--seeds", 1, 2, "--steps", 12, "--episodes", 20, "--start-seed", 7]
    words += ["--optimizers", "muon", "--arms", "baseline", "mip", "--output", tmp_path / "result.json"]
    monkeypatch.setattr(sys, "argv", ["few_step_objectives.py", *map(str, words)])
    objectives.main()
    rows = json.loads((tmp_path / "result.json").read_text())["arms"]
    last = rows[-1]
    means = [float(np.mean([scores[arm, 2, seed] for seed in (1, 2)])) for arm in ("baseline", "mip")]
    assert (last["arm"], last["updates"], last["network_evaluations_a_chunk"]) == ("mip", 6, 2)
    assert last["score"] == pytest.approx(means[1], abs=1e-4)
    assert last["difference"] == pytest.approx(means[1] - means[0], abs=1e-4), "from the better grid of the baseline"
    assert not list(tmp_path.glob("*-seed*")), "nothing was trained"
