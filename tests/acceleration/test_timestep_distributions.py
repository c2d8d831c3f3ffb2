from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.tensors import generator
from torch import Tensor

from policy_accel.acceleration.timestep_curriculum import CurriculumTimes, noise_matched_positions
from policy_accel.acceleration.timestep_distributions import (
    LossSecondMoment,
    TableTimes,
    cumulative,
    edm_probabilities,
    invert,
    logit_normal_probabilities,
    speed_mirror,
    speed_probabilities,
    variates,
)
from policy_accel.diffusion import vp_process
from policy_accel.diffusion.timesteps import TimestepDistribution

DRAWS = 200_000


def assert_drawn_from(t: Tensor, p: Tensor) -> None:
    """Chi-square on the counts, small cells pooled; fails by chance once in a thousand."""
    counts, expected = torch.bincount(t.flatten(), minlength=len(p)).double(), p * t.numel()
    assert len(counts) == len(p)
    large = expected >= 10
    observed = torch.cat([counts[large], counts[~large].sum()[None]])
    wanted = torch.cat([expected[large], expected[~large].sum()[None]])
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(observed.numpy(), wanted.numpy(), sum_check=False).pvalue > 1e-3


# T, progress, times at u = 0, .1, .25, .5, .75, .9, .99.
INVERSE = [
    (100, 0.25, [0, 9, 24, 47, 72, 88, 98]),
    (100, 0.5, [0, 9, 23, 45, 70, 87, 98]),
    (100, 1.0, [0, 9, 22, 42, 65, 82, 97]),
    (1000, 0.25, [0, 97, 240, 478, 726, 887, 988]),
    (1000, 0.5, [0, 95, 232, 457, 701, 871, 986]),
    (1000, 1.0, [0, 92, 218, 422, 650, 828, 979]),
]


@pytest.mark.parametrize(("timesteps", "progress", "times"), INVERSE)
def test_inverse_of_the_curriculum(timesteps: int, progress: float, times: list[int]) -> None:
    u = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99], dtype=torch.float64)
    assert CurriculumTimes(timesteps).times(u, progress).tolist() == times
    assert invert(cumulative(CurriculumTimes(timesteps).probabilities(progress)), u).tolist() == times


@pytest.mark.parametrize("progress", [-1.0, 0.0, 0.3, 0.5, 1.0, 2.0])
def test_mixed_tables_are_those_of_the_curriculum(progress: float) -> None:
    settings: dict[str, Any] = {"center": 0.4, "width": 0.2, "start": 0.1, "end": 0.8, "strength": 0.7}
    positions = noise_matched_positions(vp_process().log_snr)
    p = CurriculumTimes(100, positions=positions, **settings).probabilities(progress)
    law = CurriculumTimes(100, positions=positions, unbiased=True, **settings)
    u = torch.rand(5000, generator=generator(), dtype=torch.float64)
    edges = p.cumsum(0)
    clear = (u[:, None] - edges).abs().min(1).values > 1e-12
    assert torch.equal(law.times(u, progress)[clear], invert(edges, u)[clear])
    weight = law.loss_weight(torch.arange(100), progress)
    torch.testing.assert_close(weight, 1.0 / (100 * p), rtol=1e-13, atol=0)
    assert weight is not None
    assert float((p * weight).sum()) == pytest.approx(1.0, abs=1e-13)


def test_curriculum_draws_follow_its_law() -> None:
    for seed, (progress, end, width) in enumerate(
        [(0.0, 1.0, 0.5), (0.4, 0.8, 0.5), (1.0, 1.0, 0.25), (1.0, 1.0, 1.0)]
    ):
        law = CurriculumTimes(100, end=end, width=width)
        t = law.draw((DRAWS,), generator(seed), progress)
        assert (t.dtype, t.shape) == (torch.int64, (DRAWS,))
        assert_drawn_from(t, CurriculumTimes(100, end=end, width=width).probabilities(progress))


def test_curriculum_weight_is_off_by_default() -> None:
    assert CurriculumTimes(100).loss_weight(torch.zeros(3, dtype=torch.int64), 0.5) is None
    with pytest.raises(ValueError, match=r"^width=-1\.0"):
        CurriculumTimes(100, width=-1.0)


def test_unbiased_keeps_the_objective() -> None:
    """The weighted mean of any function of t is its uniform mean."""
    law = CurriculumTimes(100, width=0.25, unbiased=True)
    t = law.draw((DRAWS,), generator(3), 1.0)
    weight = law.loss_weight(t, 1.0)
    assert weight is not None
    values = weight * (t.double() / 100).square()
    uniform = float((torch.arange(100, dtype=torch.float64) / 100).square().mean())
    error = float(values.std()) / math.sqrt(DRAWS)
    assert float(values.mean()) == pytest.approx(uniform, abs=3 * error)


@pytest.mark.parametrize("shape", [(64,), (8, 64)])
def test_stratified_variates_fill_every_stratum_once(shape: tuple[int, ...]) -> None:
    u = variates(shape, generator(), True)
    assert u.dtype == torch.float64
    strata = (u * 64).long()
    assert torch.equal(strata.sort(-1).values, torch.arange(64).expand(shape))
    if len(shape) == 1:
        assert not torch.equal(strata, torch.arange(64))
    else:
        assert len((u * 64 - strata).unique()) == u.numel()


def test_stratified_variates_are_uniform_by_themselves() -> None:
    g = generator(1)
    first = torch.stack([variates((4,), g, True)[0] for _ in range(4000)])
    assert stats.kstest(first.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("shape", [(2000, 100), (4, 50_000)])
def test_stratified_draws_have_the_law_and_less_variance(shape: tuple[int, int]) -> None:
    p = logit_normal_probabilities(100)
    plain, stratified = TableTimes(p), TableTimes(p, stratified=True)
    t = stratified.draw(shape, generator(2), 0.0)
    frequencies = torch.bincount(t.flatten(), minlength=100) / t.numel()
    # A stratum of width 1 / n lies inside one time or across an edge: each frequency is exact to 2 / n.
    assert float((frequencies - p).abs().max()) <= 2.0 / shape[1]
    means = [law.draw(shape, generator(4), 0.0).double().mean(1).std() for law in (plain, stratified)]
    assert float(means[1]) < 0.1 * float(means[0])


@pytest.mark.parametrize("law", ["logit_normal", "edm", "speed"])
def test_table_draws_follow_their_law(law: str) -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    p = {
        "logit_normal": logit_normal_probabilities(100),
        "edm": edm_probabilities(process.log_snr),
        "speed": speed_probabilities(100),
    }[law]
    table = TableTimes(p)
    assert_drawn_from(table.draw((DRAWS,), generator(5), 0.5), p)
    assert_drawn_from(table.draw((DRAWS // 4, 4), generator(6), 0.5), p)
    assert table.loss_weight(torch.arange(100), 0.0) is None


def test_table_draws_on_the_batch_are_in_random_order() -> None:
    t = TableTimes(torch.ones(100), stratified=True).draw((100,), generator(), 0.0)
    assert torch.equal(t.sort().values, torch.arange(100))
    assert abs(float(np.corrcoef(t.numpy(), np.arange(100))[0, 1])) < 0.3


def test_times_of_probability_zero_never_come() -> None:
    p = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0 - 2.0**-53], dtype=torch.float64)
    assert invert(cumulative(p), u).tolist() == [1, 1, 3, 3, 3]
    assert invert(cumulative(p), torch.ones(1, dtype=torch.float64)).tolist() == [4]


def test_cumulative_ends_at_one_where_float32_does_not() -> None:
    p = torch.rand(1000, generator=generator(), dtype=torch.float64)
    p = p / p.sum()
    cdf = cumulative(p)
    assert float(cdf[-1]) == 1.0
    np.testing.assert_allclose(cdf.numpy(), np.cumsum(p.numpy()), atol=2e-13)


def test_logit_normal() -> None:
    cosine, linear = logit_normal_probabilities(100), logit_normal_probabilities(1000)
    row = [0.00007, 0.42735, 1.18199, 1.59561, 1.14484, 0.36581, 0.00007]
    assert (100 * cosine[[0, 10, 25, 50, 75, 90, 99]]).tolist() == pytest.approx(row, abs=5.1e-6)
    row = [0.00000, 0.39965, 1.16551, 1.59577, 1.16179, 0.39350, 0.00000]
    assert (1000 * linear[[0, 100, 250, 500, 750, 900, 999]]).tolist() == pytest.approx(row, abs=5.1e-6)
    u = (np.arange(100) + 0.5) / 100
    density = stats.norm.pdf(np.log(u / (1 - u))) / (u * (1 - u))
    np.testing.assert_allclose(cosine.numpy(), density / density.sum(), rtol=1e-12)


def test_edm() -> None:
    process = vp_process("linear", 1000)
    p = edm_probabilities(process.log_snr)
    log_sigma = torch.log(process.sigmas / process.alphas)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-14)
    cell = stats.norm.cdf([float(log_sigma[k : k + 2].mean()) for k in (299, 300)], -1.2, 1.2)
    assert float(p[300]) == pytest.approx(cell[1] - cell[0], rel=1e-10)
    assert float(p[0]) == pytest.approx(stats.norm.cdf(float(log_sigma[:2].mean()), -1.2, 1.2), rel=1e-10)
    # Against draws of ln sigma, rounded to the nearest time.
    draws = -1.2 + 1.2 * torch.randn(DRAWS, generator=generator(7), dtype=torch.float64)
    after = torch.searchsorted(log_sigma, draws).clamp(1, 999)
    nearest = torch.where(draws - log_sigma[after - 1] < log_sigma[after] - draws, after - 1, after)
    assert_drawn_from(nearest, p)


def test_edm_needs_growing_noise() -> None:
    with pytest.raises(ValueError, match=r"^log_snr: .*noisier"):
        edm_probabilities(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("timesteps", [100, 1000])
def test_speed(timesteps: int) -> None:
    relative = timesteps * speed_probabilities(timesteps)
    tau = timesteps * 7 // 10
    assert relative[:tau].unique().tolist() == pytest.approx([1.31579], abs=5e-6)
    assert relative[tau:].unique().tolist() == pytest.approx([0.26316], abs=5e-6)


def test_speed_mirror() -> None:
    linear, cosine = vp_process("linear", 1000), vp_process("squaredcos_cap_v2", 100)
    assert speed_mirror(linear.alphas.square()) == 642
    slope = np.gradient(cosine.sigmas.numpy())
    assert slope.min() > 1e-4  # the unscaled threshold is never met
    mirror = speed_mirror(cosine.alphas.square())
    assert slope[mirror - 1] < 1e-3 <= slope[: mirror - 1].min()
    assert speed_mirror(torch.linspace(1.0, 0.5, 20)) == 20


def test_mirrored_draws() -> None:
    law = TableTimes(speed_probabilities(1000), mirror=642)
    t = law.draw((1001,), generator(8), 0.0)
    first, second = t[:501], t[501:]
    assert second.tolist() == [642 - k if k < 642 else k - 642 for k in first[:500].tolist()]
    wide = law.draw((5, 8), generator(8), 0.0)
    assert torch.equal(wide[:, 4:], (wide[:, :4] - 642).abs())
    p = law.probabilities
    reflected = torch.zeros(1000, dtype=torch.float64).index_add(0, law.mirrored(torch.arange(1000)), p)
    assert_drawn_from(law.draw((DRAWS,), generator(9), 0.0), 0.5 * (p + reflected))
    # t = 0 and t = 999: where the two branches of the mirror lead.
    assert law.mirrored(torch.tensor([0, 1, 641, 642, 999])).tolist() == [642, 641, 1, 0, 357]
    assert TableTimes(torch.ones(20), mirror=20).mirrored(torch.tensor([0, 19])).tolist() == [19, 1]


def test_stratified_mirror() -> None:
    law = TableTimes(torch.ones(100), mirror=64, stratified=True)
    t = law.draw((200,), generator(10), 0.0)
    assert torch.equal(t[:100].sort().values, torch.arange(100))
    assert torch.equal(t[100:], (t[:100] - 64).abs())


class ReferenceSecondMoment:
    """The straight version: one sample at a time, the oldest loss shifted out."""

    def __init__(self, timesteps: int) -> None:
        self.history: list[list[float]] = [[] for _ in range(timesteps)]

    def update(self, t: list[int], losses: list[float]) -> None:
        for time, loss in zip(t, losses, strict=True):
            self.history[time] = [*self.history[time], loss][-10:]

    def probabilities(self) -> np.ndarray:
        timesteps = len(self.history)
        if any(len(history) < 10 for history in self.history):
            return np.full(timesteps, 1.0 / timesteps)
        moments = np.array([np.sqrt(np.mean(np.square(history))) for history in self.history])
        return 0.999 * moments / moments.sum() + 0.001 / timesteps


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_second_moment_equals_the_straight_version(batch: int) -> None:
    """Batches of 300 over 12 times hold each time some 25 times: more than the history keeps."""
    law, reference, g = LossSecondMoment(12), ReferenceSecondMoment(12), generator(11)
    warm = 0
    for _ in range(2400 // batch):
        t = torch.randint(12, (batch,), generator=g)
        losses = torch.rand(batch, generator=g) * (1 + t)
        law.update(t, losses)
        reference.update(t.tolist(), losses.tolist())
        expected = reference.probabilities()
        np.testing.assert_allclose(law.probabilities.numpy(), expected, rtol=1e-12)
        warm += expected.max() > 1.5 * expected.min()
    assert warm >= 7
    for time, history in enumerate(reference.history):
        assert sorted(law.losses[time].tolist()) == sorted(history)


def test_second_moment_is_uniform_until_every_time_has_its_history() -> None:
    law = LossSecondMoment(4)
    t = torch.arange(4).repeat(9)
    law.update(t, torch.rand(36, generator=generator()) + t)
    law.update(torch.tensor([0, 1, 2]), torch.ones(3))
    assert law.probabilities.tolist() == [0.25] * 4
    assert law.loss_weight(torch.tensor([0, 3])).tolist() == [1.0, 1.0]
    law.update(torch.tensor([3]), torch.ones(1))
    assert float(law.probabilities.max()) > 0.3


def test_second_moment_draws_and_weights() -> None:
    law = LossSecondMoment(20)
    t = torch.arange(20).repeat_interleave(10)
    law.update(t.view(10, 20), (1.0 + t.view(10, 20)).requires_grad_())
    p = (1.0 + torch.arange(20, dtype=torch.float64)) / 210 * 0.999 + 0.001 / 20
    torch.testing.assert_close(law.probabilities, p, rtol=1e-14, atol=0)
    drawn = law.draw((DRAWS,), generator(12), 0.5)
    assert_drawn_from(drawn, p)
    torch.testing.assert_close(law.loss_weight(drawn), 1.0 / (20 * p[drawn]), rtol=1e-13, atol=0)
    stratified = LossSecondMoment(20, stratified=True)
    stratified.load_state_dict(law.state_dict())
    frequencies = torch.bincount(stratified.draw((10_000,), generator(13)), minlength=20) / 10_000
    assert float((frequencies - p).abs().max()) <= 2e-4


def test_second_moment_resumes() -> None:
    law, g = LossSecondMoment(8), generator(14)
    for _ in range(30):
        law.update(torch.randint(8, (16,), generator=g), torch.rand(16, generator=g))
    resumed = LossSecondMoment(8)
    resumed.load_state_dict(law.state_dict())
    for _ in range(5):
        t, losses = torch.randint(8, (16,), generator=g), torch.rand(16, generator=g)
        for each in (law, resumed):
            each.update(t, losses)
        assert torch.equal(law.probabilities, resumed.probabilities)
    saved = law.state_dict()
    law.update(t, 5 * losses)
    assert not torch.equal(saved["losses"], law.state_dict()["losses"])
    assert float(saved["losses"].max()) <= 1.0


def test_second_moment_without_losses_worth_naming() -> None:
    law = LossSecondMoment(5)
    law.update(torch.arange(5).repeat(10), torch.zeros(50))
    assert_drawn_from(law.draw((DRAWS,), generator(15)), torch.full((5,), 0.2, dtype=torch.float64))


def test_draws_are_reproducible_and_follow_the_generator() -> None:
    table = torch.ones(100)
    laws: list[TimestepDistribution] = [
        CurriculumTimes(100),
        TableTimes(table),
        TableTimes(table, stratified=True),
        LossSecondMoment(100),
    ]
    for law in laws:
        assert torch.equal(law.draw((32,), generator(1), 0.5), law.draw((32,), generator(1), 0.5))
        assert not torch.equal(law.draw((32,), generator(1), 0.5), law.draw((32,), generator(2), 0.5))
        assert law.draw((32, 3), generator(1), 0.5).shape == (32, 3)


def test_tables_move() -> None:
    """The meta device holds no numbers, so whatever stayed behind would raise or show."""
    curriculum = CurriculumTimes(100).to("meta")
    assert {curriculum.bump.device.type, curriculum.uniform_cdf.device.type, curriculum.bump_cdf.device.type} == {
        "meta"
    }
    moment = LossSecondMoment(10)
    moved = moment.to("meta")
    assert (moved.losses.device.type, moved.counts.device.type, moment.losses.device.type) == ("meta", "meta", "cpu")
    table = TableTimes(speed_probabilities(100), stratified=True, mirror=64)
    same = table.to("cpu")
    assert (same.stratified, same.mirror) == (True, 64)
    assert torch.equal(same.draw((9,), generator(), 0.0), table.draw((9,), generator(), 0.0))


def test_compiles_whole() -> None:
    torch._dynamo.reset()
    law = CurriculumTimes(100, unbiased=True, start=0.1, end=0.8)

    def times(u: Tensor, progress: float) -> tuple[Tensor, Tensor | None]:
        t = law.times(u, progress)
        return t, law.loss_weight(t, progress)

    compiled = torch.compile(times, fullgraph=True, backend="eager")
    u = torch.rand(64, generator=generator(), dtype=torch.float64)
    for progress in (0.0, 0.05, 0.3, 0.5, 0.9, 1.0):
        for got, expected in zip(compiled(u, progress), times(u, progress), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-15, atol=0)

    plain, moment = LossSecondMoment(10), LossSecondMoment(10)
    update = torch.compile(moment.update, fullgraph=True, backend="eager")
    for seed in range(15):
        t = torch.randint(10, (32,), generator=generator(seed))
        update(t, u[:32] * t)
        plain.update(t, u[:32] * t)
    assert torch.equal(moment.state_dict()["losses"], plain.state_dict()["losses"])
    weight = torch.compile(moment.loss_weight, fullgraph=True, backend="eager")
    torch.testing.assert_close(weight(t), plain.loss_weight(t), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TableTimes(torch.tensor([0.5, -0.5])), "^probabilities: "),
        (lambda: TableTimes(torch.tensor([0.5, float("nan")])), "^probabilities: "),
        (lambda: TableTimes(torch.zeros(3)), "^probabilities: "),
        (lambda: TableTimes(torch.ones(3), mirror=4), "^mirror=4"),
        (lambda: LossSecondMoment(3, history=0), "^history=0"),
        (lambda: LossSecondMoment(3).load_state_dict(LossSecondMoment(4).state_dict()), "^state: the saved losses"),
    ],
)
def test_errors(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
