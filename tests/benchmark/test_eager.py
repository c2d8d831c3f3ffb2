"""The eager loop against the same updates made by the training core's parts."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from policy_accel.benchmark.eager import EagerLoop, LoopingEMA
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.ema import EMA, EMAConfig
from policy_accel.training.optimizer import OptimizerConfig, build_optimizer, step_values
from policy_accel.training.weights import Weights


class Line(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, x, t, condition=None):
        return self.map(x)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_its_updates_are_those_of_the_core(clip):
    torch.manual_seed(0)
    config = OptimizerConfig(lr=0.1, warmup_steps=2, weight_decay=0.1, clip_grad_norm=clip)
    plain = Line()
    model = copy.deepcopy(plain)
    average, optimizer = EMA(Weights(model), EMAConfig()), build_optimizer(config, model)
    loop = EagerLoop(plain, config, steps=8)
    x = torch.randn(5, 3)
    for step in range(6):
        found = loop.update(plain(x, x).square().mean())
        loss = model(x, x).square().mean()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step(*step_values(config, step, 8))
        optimizer.zero_grad()
        average.update()
        assert found == pytest.approx(loss.item())
    for one, other in ((plain, model), (loop.ema.model, average.model)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_every_loss_is_read_and_written_down():
    loop = EagerLoop(model := Line(), OptimizerConfig(lr=0.5, warmup_steps=0, schedule="constant"), steps=4)
    losses = [loop.update(model(torch.ones(1, 3), None).square().mean()) for _ in range(2)]
    loop.log.flush()
    with open(loop.log.fileno(), closefd=False) as log:
        log.seek(0)
        rows = [json.loads(line) for line in log]
    assert [row["train_loss"] for row in rows] == losses
    assert rows[1]["global_step"] == 1
    assert rows[1]["lr"] == 0.5


def test_the_average_copies_at_first():
    model = Line()
    average = LoopingEMA(model)
    nn.init.ones_(model.map.weight)
    average.step(model)
    assert torch.equal(average.model.map.weight, torch.ones(2, 3))
