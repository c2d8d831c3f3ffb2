"""Shortcut models against the flow map of a Gaussian, which is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import Batch, FlowProcess, Objective, Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.shortcut import ShortcutProcess, step_halves, step_size
from policy_accel.errors import UserError

DEVIATION = 0.4


def spread(u: Tensor) -> Tensor:
    """Deviation of x_u = (1 - u) x0 + u n, where x0 ~ N(0, DEVIATION^2)."""
    return ((1 - u).square() * DEVIATION**2 + u.square()).sqrt()


def exact(x: Tensor, told: Tensor) -> Tensor:
    """Mean velocity of the probability flow over a step: along it x / spread stays."""
    u, d = told[:, 0] / 1000.0, 2.0 ** -told[:, 1]
    return x * ((1 - spread(u - d) / spread(u)) / d)[:, None]


def drawn(objective: Objective, rows: int = 64) -> tuple[Tensor, Tensor]:
    """u and k of the rows of a batch."""
    time = torch.Generator().manual_seed(1)
    told = objective.draw(Batch(torch.zeros(rows, 3)), time, torch.Generator()).t
    assert told.shape == (rows, 2)
    return told[:, 0] / 1000.0, told[:, 1]


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 4, 64, 128])
def test_the_flow_map_takes_noise_to_the_data_in_any_number_of_steps(sampler: str, steps: int) -> None:
    objective = Objective(ShortcutProcess(), "flow")
    noise = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(0))
    asked: list[Tensor] = []

    def network(x: Tensor, told: Tensor) -> Tensor:
        asked.append(told)
        return exact(x, told)

    samples = Sampler(objective, SamplingConfig(sampler, steps, clip_sample=None))(network, noise)
    torch.testing.assert_close(samples, DEVIATION * noise[:, 0], rtol=1e-4, atol=1e-5)
    assert len(asked) == steps
    assert {float(told[0, 1]) for told in asked} == {math.log2(steps)}


def test_the_finest_steps_are_flow_matching() -> None:
    process, flow = ShortcutProcess(16), FlowProcess()
    t = torch.arange(15, 31)
    x0, noise = (torch.randn(16, 3, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    u = torch.arange(1, 17, dtype=torch.float64) / 16
    assert torch.equal(process.diffuse(x0, noise, t), flow.diffuse(x0, noise, u))
    assert torch.equal(process.coefficients(t).time[:, 0], flow.coefficients(u).time)
    assert process.coefficients(t).time[:, 1].tolist() == [4.0] * 16
    assert torch.equal(process.log_snr_at(t), flow.log_snr_at(u))
    noised = Objective(process, "flow").draw(Batch(x0), torch.Generator(), torch.Generator().manual_seed(1))
    assert torch.equal(noised.target, noise - x0)
    assert noised.weight is None


def test_a_quarter_of_the_rows_are_longer_steps() -> None:
    """Each fourth row, of all sizes but the finest alike, and anywhere on the grid of its size."""
    u, k = drawn(Objective(ShortcutProcess(), "flow"), 40_000)
    longer, others = k[::4], torch.cat([k[i::4] for i in (1, 2, 3)])
    assert others.unique().tolist() == [7.0]
    assert longer.unique().tolist() == list(range(7))
    shares = torch.bincount(longer.long()) / len(longer)
    torch.testing.assert_close(shares, torch.full((7,), 1 / 7), rtol=0.0, atol=0.015)
    at = u[::4]
    assert at[longer == 0].unique().tolist() == [1.0]
    assert at[longer == 2].unique().tolist() == [0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(at[longer == 6].mean(), torch.tensor(65 / 128), rtol=0.0, atol=0.03)
    finest = u[1::4]
    assert float(finest.min()) == 1 / 128
    assert float(finest.max()) == 1.0
    torch.testing.assert_close(finest.mean(), torch.tensor(129 / 256), rtol=0.0, atol=0.01)


def test_validation_takes_the_finest_steps_alone() -> None:
    _, k = drawn(Objective(ShortcutProcess(32), "flow").plain())
    assert k.unique().tolist() == [5.0]


def test_halves_of_a_step_are_its_children() -> None:
    process = ShortcutProcess(8)
    n = torch.arange(7)
    told = process.coefficients(n).time
    first, second = step_halves(told)
    assert torch.equal(first, process.coefficients(2 * n + 2).time)
    assert torch.equal(second, process.coefficients(2 * n + 1).time)
    assert step_size(told).tolist() == [1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_levels_are_those_of_the_training() -> None:
    process = ShortcutProcess(4)
    for n in range(process.timesteps):
        level, at = process.level(n), process.coefficients(torch.tensor([n]))
        assert (level.alpha, level.sigma) == (float(at.alpha), float(at.sigma))
        assert torch.equal(level.told(torch.zeros(1, 3)), at.time)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: ShortcutProcess(100), r"^finest=100 must be a power of 2, from 2 on"),
        (lambda: ShortcutProcess(1), r"^finest=1 must be"),
        (lambda: ShortcutProcess(64).grid(3), r"^steps=3 must be a power of 2 from 1 to finest=64"),
        (lambda: ShortcutProcess(64).grid(128), r"^steps=128 must be"),
        (lambda: ShortcutProcess().grid(2, "linspace"), r"^spacing=linspace has no effect"),
        (lambda: ShortcutProcess().grid_of([200, 3]), r"^times=\[200, 3\] has no effect"),
    ],
)
def test_what_shortcuts_cannot_be(made: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made()  # type: ignore[operator]


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver++", "heun", "mip"])
def test_samplers_that_need_the_velocity_itself_are_refused(sampler: str) -> None:
    with pytest.raises(UserError, match=rf"sampling.sampler={sampler.replace('+', '.')} is no sampler .* euler, ddim"):
        SamplingConfig(sampler, 2).check(ShortcutProcess())
