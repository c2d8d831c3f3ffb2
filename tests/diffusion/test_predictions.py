from __future__ import annotations

import pytest
import torch
from support.tensors import normal
from support.three_modes import PROCESS, as_prediction
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.predictions import TARGETS, predicted_sample
from policy_accel.diffusion.processes import DiscreteProcess, Level, Process
from policy_accel.diffusion.samplers import Predictor, ddim, euler


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 3.0), (0.7, 0.3), (0.8, 1.1)])
def test_targets_are_inverted_for_any_alpha_and_sigma(target: str, alpha: float, sigma: float) -> None:
    x0, epsilon = normal(2, 5, 3, seed=2, dtype=torch.float64).unbind(0)
    a, s = torch.tensor([alpha, sigma], dtype=torch.float64).unbind(0)
    prediction, x = as_prediction(target, x0, epsilon, a, s), alpha * x0 + sigma * epsilon
    torch.testing.assert_close(predicted_sample(prediction, x, Level(alpha, sigma, 1.0, 0), target), x0)
    process = DiscreteProcess(torch.stack([a / 2, a]), torch.stack([s / 2, s]))
    for solver in (ddim, euler):
        seen: list[Tensor] = []

        def denoise(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x)
            return prediction

        solver(Predictor(denoise, target=target, clip=None), x, process, Grid.of([1, 0]))
        torch.testing.assert_close(seen[1], 0.5 * x)


@pytest.mark.parametrize(
    ("process", "target", "sentence"),
    [
        (PROCESS, "epsilom", r"target .*did you mean 'epsilon'"),
        (FlowProcess(), "epsilon", r"target=epsilon .*pure noise"),
        (FlowProcess(), "edm", r"target=edm .*pure noise"),
    ],
)
def test_targets_that_cannot_be_sampled(process: Process, target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ddim(Predictor(lambda x, t: x, target=target), normal(4, 16, 2), process, process.grid(2))
