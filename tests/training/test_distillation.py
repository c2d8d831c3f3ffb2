"""The lesson of a student, worked out step by step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policy_accel.diffusion import (
    Batch,
    FlowProcess,
    Noised,
    Objective,
    Process,
    Sampler,
    SigmaProcess,
    alpha_bar_table,
    predicted_sample,
    vp_process,
)
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.timesteps import UniformTimes
from policy_accel.errors import UserError
from policy_accel.models import Denoiser
from policy_accel.training.distillation import (
    Distillation,
    DistillationConfig,
    RefiningTimes,
    distilled_objective,
    student_times,
    time_at,
)

TARGETS: list[tuple[Process, str]] = [
    (vp_process(), "sample"),
    (vp_process(), "v"),
    (vp_process(), "epsilon"),
    (FlowProcess(), "flow"),
    (FlowProcess(), "sample"),
    (SigmaProcess("edm"), "edm"),
    (SigmaProcess("ve"), "negative_epsilon"),
]


class Net(Denoiser):
    """Of three numbers a sample, told a condition of two, which it encodes as its square."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        self.eval().requires_grad_(False)

    def encode(self, condition: Any) -> Tensor | None:
        return condition.square()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        return self.layers(torch.cat([x, t.float()[:, None] / 100, condition], dim=1))


TEACHER, AVERAGE, MODEL = Net(0), Net(1), Net(2)


def samplers(process: Process, target: str, times: list[float], **how: Any) -> tuple[Sampler, Sampler]:
    """Of the teacher in eight steps, and of a student at `times`."""
    objective = Objective(process, target, **how)
    teaching = Sampler(objective, SamplingConfig(steps=8))
    return teaching, Sampler(objective, teaching.config.distilled(times))


def drawn(student: Sampler, batch: Batch, share: float = 0.6, **how: Any) -> Noised:
    objective = replace(distilled_objective(student.objective, student, share), **how)
    time, noise = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    return objective.draw(batch, time, noise)


def batch_of(samples: int = 6, **parts: Any) -> Batch:
    generator = torch.Generator().manual_seed(5)
    x0 = torch.randn(samples, 3, generator=generator).clamp(-1, 1)
    return Batch(x0, condition=torch.randn(samples, 2, generator=generator), **parts)


def test_a_lesson_of_two_evaluations_by_hand() -> None:
    """DDIM written out on the cosine table, for the teacher in eight steps and the student's own first one."""
    alpha_bar = alpha_bar_table("squaredcos_cap_v2", 100)
    alphas, sigmas = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    teaching, student = samplers(vp_process(), "sample", [99, 25])
    batch = batch_of()
    noised = drawn(student, batch)
    lesson = Distillation(TEACHER, teaching, student, "digest")
    found = lesson(batch, noised, MODEL, AVERAGE)

    assert noised.noise is not None
    assert noised.repeats == 3
    z = noised.noise[0::3]
    assert batch.condition is not None
    condition = batch.condition.square()  # type: ignore[union-attr]
    x, grid = z, [99, 87, 74, 62, 49, 37, 24, 12, -1]  # round(100 - 12.5 i) - 1, halves to even
    grid = [round(100 - 12.5 * i) - 1 for i in range(8)] + [-1]
    for t, to in pairwise(grid):
        x0 = TEACHER(x, torch.full((6,), t), condition)
        epsilon = (x - alphas[t] * x0) / sigmas[t]
        x0 = x0.clamp(-1, 1)
        x = alphas[to] * x0 + sigmas[to] * epsilon if to >= 0 else x0
    first = AVERAGE(z, torch.full((6,), 99), condition)
    epsilon = (z - alphas[99] * first) / sigmas[99]
    second = alphas[25] * first.clamp(-1, 1) + sigmas[25] * epsilon

    assert torch.equal(found.model_input[0::3], z), "pure noise, in which nothing of the data is"
    torch.testing.assert_close(found.model_input[1::3], second)
    assert found.t.view(6, 3)[:, :2].tolist() == [[99, 25]] * 6
    torch.testing.assert_close(found.target[0::3], x)
    torch.testing.assert_close(found.target[1::3], x)
    for name in ("model_input", "x_t", "target", "t"):
        assert torch.equal(getattr(found, name)[2::3], getattr(noised, name)[2::3]), "ordinary denoising"
    assert found.weight is None
    assert torch.equal(noised.target[2::3], batch.x0)
    assert lesson.asks_weights
    assert lesson.evaluations == 8 + 1


@pytest.mark.parametrize(("process", "target"), TARGETS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_target_stands_for_the_teachers_sample(process: Process, target: str, scale: float) -> None:
    """In every kind of target: what solves it is the sample, and its error is that of the clean sample."""
    objective = Objective(process, target, data_scale=scale)
    times = student_times(objective, 2)
    teaching, student = samplers(process, target, times, data_scale=scale)
    batch = batch_of()
    noised = drawn(student, batch)
    found = Distillation(TEACHER, teaching, student, "digest")(batch, noised, MODEL, AVERAGE)
    assert noised.noise is not None
    z, condition = noised.noise[0::3], TEACHER.encode(batch.condition)
    expected = teaching(lambda x, t: TEACHER(x, t, condition), z[:, None])
    weight = torch.ones(18) if found.weight is None else found.weight.float()
    for place, time in enumerate(times):
        level = process.level(time)
        x, wanted = found.x_t[place::3], found.target[place::3]
        of_it = predicted_sample(wanted, x, level, target) / scale
        torch.testing.assert_close(of_it, expected, rtol=1e-3, atol=1e-4)
        other = torch.randn(6, 3, generator=torch.Generator().manual_seed(place))
        error = (predicted_sample(wanted + other, x, level, target) - scale * expected).square()
        torch.testing.assert_close(weight[place::3, None] * other.square(), error, rtol=2e-2, atol=2e-3)
        torch.testing.assert_close(found.model_input[place::3], level.input_scale * x)
        assert found.t[place::3].tolist() == pytest.approx([level.time] * 6)
    others = torch.ones(6) if noised.weight is None else noised.weight[2::3].float()
    torch.testing.assert_close(weight[2::3], others)


def test_the_student_starts_where_its_sampler_does() -> None:
    """Whatever the data are: the same noise gives the same first input."""
    teaching, student = samplers(SigmaProcess("edm"), "edm", [80.0])
    lesson = Distillation(TEACHER, teaching, student, "digest")
    inputs = []
    for scale in (1.0, 0.0):
        batch = batch_of()
        noised = drawn(student, replace(batch, x0=scale * batch.x0))
        inputs.append(lesson(batch, noised, MODEL, AVERAGE).model_input[0::2])
        assert noised.noise is not None
        torch.testing.assert_close(inputs[-1], 80.0 * noised.noise[0::2] / (80.0**2 + 0.25) ** 0.5)
    assert torch.equal(*inputs)
    assert not lesson.asks_weights


def test_what_is_given_stays_in_every_sample() -> None:
    known = torch.tensor([[True, False, False]])
    teaching, student = samplers(vp_process(), "sample", [99, 25])
    batch = batch_of(known=known, counted=~known)
    noised = drawn(student, batch)
    found = Distillation(TEACHER, teaching, student, "digest")(batch, noised, MODEL, AVERAGE)
    for rows in (found.model_input, found.target):
        assert torch.equal(rows.view(6, 3, 3)[..., 0], batch.x0[:, None, 0].expand(6, 3))
    assert found.counted is noised.counted


@pytest.mark.parametrize(
    ("process", "low", "high"),
    [(vp_process(), 0, 59), (FlowProcess(), 0.0, 0.6), (SigmaProcess("edm"), 0.0, 5.836), (SigmaProcess("ve"), 0, 8.2)],
)
def test_other_rows_keep_below_a_share_of_the_range(process: Process, low: float, high: float) -> None:
    evaluated = [high, 1] if process.timesteps else [high, 0.25]
    student = samplers(process, "sample", evaluated)[1]
    times = distilled_objective(student.objective, student, 0.6).times
    t = times.draw((4000, 3), torch.Generator().manual_seed(0))
    assert t[:, :2].unique(dim=0).tolist() == [evaluated]
    assert float(t[:, 2].min()) >= low
    assert float(t[:, 2].max()) == pytest.approx(high, rel=0.05)
    own = process.times().draw((400_000,), torch.Generator().manual_seed(1))
    kept = own[own <= t[:, 2].max()].double()
    assert float(t[:, 2].double().mean()) == pytest.approx(float(kept.mean()), rel=0.06)


def test_a_share_of_the_range_is_a_time() -> None:
    assert [time_at(vp_process(), share) for share in (1.0, 0.6, 0.26, 1e-9)] == [99, 59, 25, 0]
    assert time_at(FlowProcess(), 0.25) == pytest.approx(0.25)
    sigma = (0.002 ** (1 / 7) + 0.6 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    assert time_at(SigmaProcess("edm"), 0.6) == pytest.approx(sigma, rel=0.01)


def test_a_student_begins_where_its_prediction_tells_of_the_sample() -> None:
    process = vp_process()
    assert student_times(Objective(process, "sample"), 1) == [99]
    assert student_times(Objective(process, "v"), 2) == [99, 25]
    (first,) = student_times(Objective(process, "epsilon"), 1)
    ratio = process.sigmas / process.alphas
    assert ratio[int(first)] <= 10 < ratio[int(first) + 1]
    assert student_times(Objective(FlowProcess(), "flow"), 3) == pytest.approx([1.0, 0.26, 0.13])


def test_settings_of_the_teachers_sampler() -> None:
    own = Sampler(Objective(vp_process(), "sample"), SamplingConfig(sampler="ddpm", steps=100))
    assert DistillationConfig("run").sampler_of(own).config == SamplingConfig(sampler="ddim", steps=8)
    other = DistillationConfig("run", times=[99, 25], sampler="dpm_solver++").sampler_of(own)
    assert other.grid.timesteps == (99, 25)
    assert other.config.sampler == "dpm_solver++"
    for settings, message in (
        (DistillationConfig("run", sampler="ddpm"), "distillation.sampler=ddpm draws noise"),
        (DistillationConfig("run", sampler="dim"), "distillation.sampler 'dim' is unknown"),
        (DistillationConfig("run", steps=0), "distillation.steps=0 must"),
        (DistillationConfig("run", guidance=2.0), "distillation.guidance=2.0 is for images"),
    ):
        with pytest.raises(UserError, match=message):
            settings.sampler_of(own)
    for settings, message in (
        (DistillationConfig(steps=4), "distillation.steps=4 has no effect with no teacher"),
        (DistillationConfig("run", refine_below=0.0), "refine_below=0.0 must be above 0"),
        (DistillationConfig("run", steps=4, times=[99]), "distillation.steps=4 has no effect with distillation.times"),
    ):
        with pytest.raises(UserError, match=message):
            settings.check()


def test_a_fingerprint_tells_teachers_and_their_samplers_apart() -> None:
    teaching, student = samplers(vp_process(), "sample", [99])
    other = replace(teaching, config=replace(teaching.config, steps=4))
    prints = [
        Distillation(TEACHER, sampler, student, digest).fingerprint
        for sampler, digest in ((teaching, "a"), (teaching, "a"), (teaching, "b"), (other, "a"))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_times_know_what_they_are_drawn_from() -> None:
    assert RefiningTimes(UniformTimes(100), torch.tensor([99]), 59).timesteps == 100
