from __future__ import annotations

from pathlib import Path

import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.training.averages import asked_averages, averages, load_average
from policy_accel.training.checkpoint import save_checkpoint


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with one checkpoint, whose averages hold 1, 2 and 3."""
    names = ("ema", "ema_0.1", "ema_0.05")
    tensors = {name: {"weight": torch.tensor([float(number)])} for number, name in enumerate(names, 1)}
    save_checkpoint(tmp_path / "checkpoints", 7, tensors, {"task": {"kind": "toy"}})
    return tmp_path


def test_each_average_is_loaded_from_its_own_file(run_dir: Path) -> None:
    assert averages(run_dir) == ["ema", "ema_0.05", "ema_0.1"]
    for name, value in (("ema", 1.0), ("ema_0.1", 2.0), ("ema_0.05", 3.0)):
        loaded = load_average(run_dir, "last", name)
        assert loaded.tensors["ema"]["weight"].item() == value
        assert (loaded.step, loaded.state["task"]) == (7, {"kind": "toy"})
    assert load_average(run_dir).tensors["ema"]["weight"].item() == 1.0


def test_what_is_asked_for(run_dir: Path) -> None:
    assert asked_averages(run_dir, "last", None) == ["ema"]
    assert asked_averages(run_dir, "last", "ema_0.1") == ["ema_0.1"]
    assert asked_averages(run_dir, "last", "all") == ["ema", "ema_0.05", "ema_0.1"]


def test_an_unknown_name(run_dir: Path) -> None:
    with pytest.raises(UserError, match=r"has no average 'swa' of the weights; it has ema, ema_0\.05, ema_0\.1"):
        load_average(run_dir, "last", "swa")
