"""Counted operations against sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policy_accel.models import build_denoiser
from policy_accel.models.flops import training_flops
from policy_accel.models.images import DdpmConfig, DitConfig, EdmConfig


class Small(nn.Module):
    """A convolution 2 -> 4 (3 x 3), the same time gate for all, and a linear map of the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.back = nn.Conv2d(4, 2, 1)
        self.map = nn.Linear(5, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x, t, condition=None):
        hidden = self.conv(x) * t[:, None, None, None]
        if condition is not None:
            hidden = hidden + self.map(condition)[:, :, None, None]
        return self.back(nn.functional.dropout(hidden, 0.5, self.training))


def test_equals_the_count_by_hand():
    first, second, linear = 2 * 64 * 9 * 2 * 4, 2 * 64 * 4 * 2, 2 * 5 * 4
    # Backward: gradients of weights and of inputs, except for the first layers, whose inputs need none.
    without = (first + second) + (first + 2 * second)
    assert training_flops(Small(), (2, 8, 8)) == without
    assert training_flops(Small(), (2, 8, 8), 5) == without + 2 * linear


@pytest.mark.parametrize(
    ("config", "shape", "giga"),
    [
        (DdpmConfig(), (3, 32, 32), 37.3),
        (EdmConfig(), (3, 32, 32), 127.1),
        (EdmConfig(multipliers=[1, 2, 2, 2]), (3, 64, 64), 251.2),
    ],
)
def test_published_nets_cost_what_other_implementations_of_them_cost(config, shape, giga):
    """37.3: torchcfm's net of the same size; 127.1 and 251.2: EDM's own code; all by the same counter."""
    with torch.device("meta"):
        net = build_denoiser(config, channels=shape[0], resolution=shape[1])
    assert training_flops(net, shape) / 1e9 == pytest.approx(giga, abs=0.06)


def test_transformer_costs_twice_the_published_multiplications():
    """DiT-S/2 is published with 6.06 G multiplications for a forward pass."""
    with torch.device("meta"):
        net = build_denoiser(DitConfig(), channels=4, resolution=32, condition_dim=1000)
    assert training_flops(net, (4, 32, 32), 1000) / 3 / 2 / 1e9 == pytest.approx(6.06, rel=0.01)


def test_leaves_model_and_random_state_alone():
    torch.manual_seed(0)
    model = Small()
    model.conv.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert training_flops(model, (2, 8, 8)) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.conv.weight.requires_grad


def test_counts_a_compiled_model_too():
    expected = training_flops(Small(), (2, 8, 8), 5)

    def backend(graph, inputs):
        raise AssertionError("compiled")

    assert training_flops(torch.compile(Small(), backend=backend), (2, 8, 8), 5) == expected
    model = Small()
    model.compile(backend=backend)
    assert training_flops(model, (2, 8, 8), 5) == expected
