from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from policy_accel.acceleration.timestep_curriculum import CurriculumTimes
from policy_accel.diffusion import (
    Batch,
    DiscreteProcess,
    FlowProcess,
    Objective,
    Repetition,
    SigmaProcess,
    make_noised,
    vp_process,
    weighted_squared_error,
)

PROCESS = vp_process("squaredcos_cap_v2", 100)


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 4, 3, generator=generator).unbind(0)
    return x0, noise, torch.tensor([0, 20, 50, 80, 99])


def test_targets() -> None:
    x0, noise, t = example()
    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    assert make_noised(PROCESS, x0, noise, t, "epsilon").target is noise
    assert make_noised(PROCESS, x0, noise, t, "sample").target is x0
    velocity = make_noised(PROCESS, x0, noise, t, "v").target
    torch.testing.assert_close(velocity, scheduler.get_velocity(x0, noise, t), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
def test_x0_follows_from_input_and_target(target: str) -> None:
    """Everything that must agree was made together: x_t and the target give x0 back."""
    x0, noise, t = (part.double() if part.is_floating_point() else part for part in example())
    noised = make_noised(PROCESS, x0, noise, t, target)
    alpha, sigma = PROCESS.alphas[t].view(-1, 1, 1), PROCESS.sigmas[t].view(-1, 1, 1)
    recovered = {
        "epsilon": (noised.x_t - sigma * noised.target) / alpha,
        "sample": noised.target,
        "v": alpha * noised.x_t - sigma * noised.target,
    }[target]
    torch.testing.assert_close(recovered, x0)
    torch.testing.assert_close(noised.model_input, noised.x_t)


def test_known_entries_stay_clean_and_unscaled() -> None:
    x0, noise, t = example()
    known = torch.zeros(4, 3, dtype=torch.bool)
    known[0, 1:] = True
    doubled = DiscreteProcess(PROCESS.alphas, PROCESS.sigmas, torch.full_like(PROCESS.alphas, 2.0))
    plain, noised = (
        make_noised(process, x0, noise, t, "epsilon", k) for process, k in ((PROCESS, None), (doubled, known))
    )
    torch.testing.assert_close(noised.model_input[:, 0, 1:], x0[:, 0, 1:])
    torch.testing.assert_close(noised.model_input[:, 1:], 2 * plain.x_t[:, 1:])


def test_draw_is_uniform_in_time_and_normal_in_noise() -> None:
    objective = Objective(PROCESS, "epsilon")
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    noised = objective.draw(Batch(torch.zeros(20_000, 2)), time, noise)
    counts = torch.bincount(noised.t, minlength=100).double()
    assert counts.shape == (100,)
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    assert 50 < chi_square < 160  # 99 degrees of freedom: 99 +- 4.3 deviations
    assert abs(float(noised.target.mean())) < 3 / 200
    assert abs(float(noised.target.var()) - 1) < 3 * (2 / 40_000) ** 0.5


def test_draw_repeats_with_its_generators() -> None:
    objective = Objective(PROCESS, "v")
    draws = [
        objective.draw(Batch(torch.ones(4, 3)), torch.Generator().manual_seed(5), torch.Generator().manual_seed(6))
        for _ in range(2)
    ]
    assert torch.equal(draws[0].x_t, draws[1].x_t)
    other = objective.draw(Batch(torch.ones(4, 3)), torch.Generator().manual_seed(5), torch.Generator().manual_seed(7))
    assert torch.equal(other.t, draws[0].t)
    assert not torch.equal(other.x_t, draws[0].x_t)


def test_unknown_target() -> None:
    with pytest.raises(ValueError, match="did you mean 'sample'"):
        Objective(PROCESS, "samples")


def test_weighted_squared_error() -> None:
    prediction, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    assert float(weighted_squared_error(prediction, target)) == pytest.approx((1 + 4 + 9 + 16) / 4)
    weight = torch.tensor([1.0, 0.5])
    assert float(weighted_squared_error(prediction, target, weight=weight)) == pytest.approx((1 + 4 + 4.5 + 8) / 4)
    mask = torch.tensor([[True, False], [True, True]])
    assert float(weighted_squared_error(prediction, target, mask=mask)) == pytest.approx((1 + 9 + 16) / 3)
    assert float(weighted_squared_error(prediction, target, mask=torch.tensor([True, False]))) == pytest.approx(5)
    assert weighted_squared_error(prediction.bfloat16(), target).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"times": CurriculumTimes(50)}, "times draws from 50 discrete times, and the process has 100 discrete times"),
        ({"weights": torch.ones(7)}, "weights is a table of (7,) weights"),
        ({"repetition": Repetition(2)}, "repetition has times_per_sample=2 with coupling=shared, which needs"),
        (
            {"cap_warmup": 3, "target": "sample"},
            "target=sample does not have here; set it to 0, or choose epsilon or v.",
        ),
        ({"process": SigmaProcess("edm"), "target": "edm", "times": CurriculumTimes(100)}, "has continuous time"),
        ({"process": SigmaProcess("edm"), "target": "edm", "weights": torch.ones(100)}, "has continuous time"),
        (
            {"process": FlowProcess(), "target": "flow", "cap_warmup": 3},
            "target=flow does not have here; set it to 0.",
        ),
    ],
)
def test_an_objective_is_checked(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Objective(**{"process": vp_process(), **options})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ((0,), "^times_per_sample=0 must"),
        ((2, "foo"), "^coupling 'foo' is unknown"),
        ((2, "independent", 5), "^evaluations=5 must lie between 1 and times_per_sample=2"),
        ((2, "fresh", 1), "^evaluations=1 leaves out .*coupling=fresh"),
    ],
)
def test_a_repetition_is_checked(wrong: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Repetition(*wrong)
