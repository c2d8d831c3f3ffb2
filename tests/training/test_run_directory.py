"""Whose a run directory is: one configuration's, one process's; and links that others put there are not followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import killed_at

from policy_accel.errors import UserError
from policy_accel.run_files import read_metrics
from policy_accel.training import Trained, TrainingConfig
from policy_accel.training.run_directory import check_run_directory

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


def test_another_configuration_in_the_directory_is_refused(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    run(toy_task(), config, run_config={"training": {"lr": 1, "device": "cpu"}, "a": {"b": 2}})
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=r"another configuration \(a\.b: 2 -> 3\); choose another run_dir"):
        run(toy_task(), config, run_config={"training": {"lr": 1, "device": "cuda"}, "a": {"b": 3}})
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_a_refused_setting_does_not_claim_the_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    config.optimizer.lr = -1.0
    with pytest.raises(UserError, match="must be positive"):
        run(toy_task(), config, run_config={"lr": -1.0})
    assert not (tmp_path / "run").exists()


def test_a_directory_in_which_nothing_was_learnt_takes_another_configuration(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    with killed_at(1) as crash:
        run(toy_task(), config, run_config={"lr": 1}, after_update=crash)
    (tmp_path / "run" / ".config.yaml.77.partial").write_text("lr: ")
    assert run(toy_task(), config, run_config={"lr": 2}).finished
    assert (tmp_path / "run" / "config.yaml").read_text() == "lr: 2\n"


def test_two_processes_do_not_train_in_one_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    def start_another(step: int) -> None:
        if step == 2:
            with pytest.raises(UserError, match="Another process is training in run_dir="):
                run(toy_task(), config)

    assert run(toy_task(), config, after_update=start_another).finished


def test_a_directory_of_something_else_is_refused(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run of ours"):
        run(toy_task(), config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_a_file_in_the_way_is_told_by_what_writes_nothing(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        check_run_directory(tmp_path / below, {})


def test_a_folder_that_cannot_be_written_is_told_by_what_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match=r"a/b: no permission to write it"):
        check_run_directory(tmp_path / "a" / "b", {})


def test_a_file_in_the_way_of_the_run_directory(
    toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        run(toy_task(), config)
    assert (tmp_path / "run").read_text() == "mine"
