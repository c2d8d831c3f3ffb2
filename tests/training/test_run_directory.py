"""A run directory that others may have prepared: links in it are not followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy_accel.errors import UserError
from policy_accel.run_files import read_metrics
from policy_accel.training import Trained, TrainingConfig

Run = Callable[..., Trained]


@pytest.mark.parametrize("dangling", [False, True])
def test_a_lock_that_is_a_link_is_refused(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, treasure: Path, dangling: bool
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "nothing" if dangling else treasure)
    with pytest.raises(UserError, match="is a symbolic link, which is not followed"):
        run(toy_task(), config)
    assert treasure.read_text() == "mine\n"
    assert not (tmp_path / "nothing").exists()


def test_the_lock_keeps_what_is_written_in_it(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("a note")
    assert run(toy_task(), config).finished
    assert (tmp_path / "run" / ".lock").read_text() == "a note"


def test_metrics_that_are_a_link_are_replaced(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, treasure: Path
) -> None:
    run(toy_task(), config)
    metrics = tmp_path / "run" / "metrics.jsonl"
    rows = read_metrics(metrics)
    treasure.write_text(metrics.read_text())
    metrics.unlink()
    metrics.symlink_to(treasure)
    before = treasure.read_text()
    assert run(toy_task(), config).finished
    assert treasure.read_text() == before
    assert not metrics.is_symlink()
    assert read_metrics(metrics) == rows


def test_metrics_that_become_a_link_are_not_followed(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path, treasure: Path
) -> None:
    def swap(step: int) -> None:
        if step == 5:
            (tmp_path / "run" / "metrics.jsonl").unlink()
            (tmp_path / "run" / "metrics.jsonl").symlink_to(treasure)

    with pytest.raises(UserError, match=r"metrics\.jsonl: is a symbolic link, which is not followed"):
        run(toy_task(), config, after_update=swap)
    assert treasure.read_text() == "mine\n"
