from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from policy_accel.cli import main
from policy_accel.commands.parameters import parameter_lines
from policy_accel.policy.track import ROBOT

NET = ["model=mlp", "model.hidden_dims=[16,16]", "model.step_embedding_dim=8", "training.optimizer.lr=1e-3"]


def test_what_moves_each_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*NET, "training/optimizer=muon", "training.optimizer.matrix_lr=5e-3"]
    assert main(["list", "parameters", *overrides]) == 0
    lines = capsys.readouterr().out.splitlines()
    model = ROBOT.build(ROBOT.config(overrides)).model
    matrices, named = model.matrices(), dict(model.named_parameters())
    rows = {line.split()[0]: line for line in lines[: len(named)]}
    assert list(rows) == list(named)
    for name, line in rows.items():
        shape = " x ".join(map(str, named[name].shape))
        by = "Muon, lr 0.005" if name in matrices else "AdamW, lr 0.001"
        assert line.split(maxsplit=1)[1].strip() == f"{shape}  {by}, weight decay 1e-06"
    total = sum(p.numel() for p in named.values())
    own = sum(named[name].numel() for name in matrices)
    assert f"{len(matrices)} parameters, {own:,} of {total:,} numbers: Muon, lr 0.005, weight decay 1e-06" in lines
    assert len(matrices) > 0


def test_what_nobody_moves_is_frozen() -> None:
    model = torch.nn.Linear(3, 2)
    lines = parameter_lines(model, {model.bias: "AdamW, lr 0.1, weight decay 0"})
    assert lines == [
        "weight  2 x 3  frozen",
        "bias        2  AdamW, lr 0.1, weight decay 0",
        "1 parameters, 6 of 8 numbers: frozen",
        "1 parameters, 2 of 8 numbers: AdamW, lr 0.1, weight decay 0",
    ]


def test_settings_are_for_parameters_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tasks", "seed=1"]) == 2
    assert "seed=1: only `policy-accel list parameters` takes settings" in capsys.readouterr().err
    assert main(["list", "parameters", "training.optimizer.lr=0"]) == 2
    assert "training.optimizer.lr=0.0 must be positive" in capsys.readouterr().err


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/optimizers.md").read_text()
    command, shown = re.findall(
        r"^    policy-accel (list parameters .*)\n\n    \.\.\.\n((?:    .*\n)+)", page, flags=re.M
    )[0]
    assert main(command.split()) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("".join(line.removeprefix("    ") + "\n" for line in shown.splitlines()))
