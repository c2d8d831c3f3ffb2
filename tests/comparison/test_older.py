"""Runs of an older version beside those of this one."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

from support.scored_runs import evaluation_of, write_run

from policy_accel.comparison.scores import scored_runs
from policy_accel.policy.track import ROBOT


def _config(*overrides: str) -> dict:
    return ROBOT.record(ROBOT.config(["task=pusht_state", *overrides]))


def _older(config: dict) -> dict:
    older = copy.deepcopy(config)
    del older["training"]["shard"], older["sampling"]["clip_sample"], older["task"]["score"]
    return older


def test_an_older_run_is_of_the_arm_of_its_defaults(tmp_path: Path) -> None:
    configs = [
        _config(),
        _older(_config("seed=2")),
        _config("training.batch_size=64"),
        _config("training/optimizer=muon"),
    ]
    runs = [write_run(tmp_path / f"{place}", config, evaluation_of([0.5])) for place, config in enumerate(configs)]
    now, older, other, muon = (run.arm for run in scored_runs(runs))
    assert now == older
    assert len({now, other, muon}) == 3


def test_settings_of_a_plugin_stay_as_they_are(tmp_path: Path) -> None:
    """Nothing of a run is imported, even where it is incomplete."""
    mine = _older(_config()) | {"model": {"name": "mine", "width": 8}, "plugins": ["no_such_module"]}
    runs = [write_run(tmp_path / "a", mine, evaluation_of([0.5])), write_run(tmp_path / "b", _config())]
    assert len({run.arm for run in scored_runs(runs)}) == 2


def test_torch_is_left_alone_where_nothing_lacks(tmp_path: Path) -> None:
    for place, overrides in enumerate(([], ["training/optimizer=muon"], ["method=kl"])):
        write_run(tmp_path / f"{place}", _config(*overrides), evaluation_of([0.5]))
    code = "import sys; from pathlib import Path; from policy_accel.comparison.scores import scored_runs as s; "
    code += f"s([Path({str(tmp_path)!r}, name) for name in '012']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
