"""Targets of longer steps: exact for the flow map of a Gaussian, and what training on them leads to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policy_accel.diffusion import Batch, Noised, Objective, vp_process
from policy_accel.diffusion.shortcut import ShortcutProcess
from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.training.ema import EMAConfig
from policy_accel.training.loss import denoising_loss
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.self_consistency import SelfConsistency, lesson_of
from policy_accel.training.update import Update

DEVIATION = 0.4


def spread(u: Tensor) -> Tensor:
    return ((1 - u).square() * DEVIATION**2 + u.square()).sqrt()


class FlowMap(Denoiser):
    """The mean velocity over a step where the data are N(condition, DEVIATION^2)."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        u, d = t[:, :1] / 1000.0, 2.0 ** -t[:, 1:]
        mean = torch.zeros_like(x) if condition is None else condition
        centered = x - (1 - u) * mean
        return (centered * (1 - spread(u - d) / spread(u)) - d * mean) / d


def examples(mean: Tensor, process: ShortcutProcess, **options: Any) -> tuple[Batch, Noised]:
    x0 = mean + DEVIATION * torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    batch = Batch(x0, condition=mean, **options)
    draws = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    return batch, Objective(process, "flow").draw(batch, *draws)


def test_targets_of_the_flow_map_are_the_flow_map() -> None:
    """Two halves, each exact, are the whole step, whatever its place and its size; other rows keep the data's."""
    mean = 0.1 * torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    batch, noised = examples(mean, ShortcutProcess())
    flow_map = FlowMap()
    taught = SelfConsistency()(batch, noised, nn.Module(), flow_map)  # type: ignore[arg-type]
    longer = slice(None, None, 4)
    expected = flow_map(noised.x_t[longer], noised.t[longer], mean[longer])
    torch.testing.assert_close(taught.target[longer], expected, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(noised.target[longer], expected, atol=0.05).all()
    others = torch.arange(256) % 4 != 0
    assert torch.equal(taught.target[others], noised.target[others])
    assert taught.x_t is noised.x_t
    assert taught.t is noised.t


def test_given_entries_stay_half_way() -> None:
    known = torch.tensor([[True, False, False]])
    seen: list[Tensor] = []

    class Watched(FlowMap):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            seen.append(x)
            return super().forward(x, t, condition)

    batch, noised = examples(torch.zeros(16, 3), ShortcutProcess(8), known=known)
    SelfConsistency()(batch, noised, Watched(), Watched())
    assert [torch.equal(x[:, 0], batch.x0[::4, 0]) for x in seen] == [True, True]
    assert not torch.equal(seen[1][:, 1:], seen[0][:, 1:])


def test_states_and_velocities_are_bounded() -> None:
    class Wild(Denoiser):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            seen.append(x)
            return torch.full_like(x, -100.0)

    for scale in (1.0, 2.0):
        seen: list[Tensor] = []
        batch, noised = examples(torch.zeros(8, 3), ShortcutProcess(2))
        taught = SelfConsistency(scale)(batch, noised, Wild(), Wild())
        assert float(seen[1].max()) == 4.0 * scale
        assert taught.target[::4].unique().tolist() == [-4.0 * scale]


def test_training_ends_at_the_composition_of_the_finest_steps() -> None:
    """A table of velocities, one for each step: the finest must become the flow's, the longer follow from them."""
    process = ShortcutProcess(4)

    class Table(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.velocities = nn.Parameter(torch.zeros(7))

        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            steps = torch.exp2(t[:, 1])
            number = steps - 1 + (t[:, 0] / 1000.0 * steps).round() - 1
            return x * self.velocities[number.long()][:, None]

    torch.manual_seed(0)
    table, objective, lesson = Table(), Objective(process, "flow"), SelfConsistency()
    optimizer = torch.optim.Adam(table.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(5)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        batch = Batch(DEVIATION * torch.randn(1024, 2, generator=generator))
        noised = objective.draw(batch, generator, generator)
        with torch.no_grad():
            noised = lesson(batch, noised, table, table)
        optimizer.zero_grad()
        denoising_loss(table, batch, noised).backward()
        optimizer.step()
    u = torch.arange(1, 5) / 4
    finest = (u - (1 - u) * DEVIATION**2) / spread(u).square()
    kept = 1 - finest / 4  # of x, by a step of 1/4
    expected = [*(1 - kept.prod())[None], *2 * (1 - kept.unflatten(0, (2, 2)).prod(1)), *finest]
    torch.testing.assert_close(table.velocities.detach(), torch.stack(expected), rtol=0.0, atol=0.04)


def test_rows_must_come_in_fours(device_task: Callable[..., Any]) -> None:
    """Those of each share: the first of it is one that is taught."""
    task = device_task()
    task.objective, task.lesson = Objective(ShortcutProcess(), "flow"), SelfConsistency()

    def update(batch_size: int, pieces: int) -> Update:
        device = torch.device("cpu")
        order, generators = DataOrder(task.samples, batch_size, 3, device), Generators(3, device)
        optimizer = OptimizerConfig(warmup_steps=0)
        return Update(task, order, optimizer, EMAConfig(), steps=9, generators=generators, pieces=pieces)

    with pytest.raises(UserError, match=r"every 4th row.* given 10 rows at a time; choose training.batch_size"):
        update(10, 1)
    with pytest.raises(UserError, match=r"given 2 rows at a time"):
        update(8, 4)
    update(8, 2)


def test_only_shortcut_models_need_it() -> None:
    assert lesson_of(Objective(ShortcutProcess(), "flow").plain()) is not None
    assert lesson_of(Objective(ShortcutProcess(), "flow", data_scale=2.0)).bound == 8.0  # type: ignore[union-attr]
    assert lesson_of(Objective(vp_process())) is None
