from __future__ import annotations

import itertools
import math

import pytest
import torch

from policy_accel.acceleration.timestep_curriculum import (
    CurriculumTimes,
    noise_matched_positions,
)
from policy_accel.diffusion import vp_process

T100 = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]
T1000 = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999]

# T, width, progress, T * p at the columns above.
INDEX_ROWS = [
    (100, 0.5, 0.0, "1 1 1 1 1 1 1 1 1 1 1"),
    (100, 0.5, 0.25, "1.00759 1.03468 1.05228 1.05839 1.05228 1.03468 1.00759 0.97394 0.93705 0.90011 0.86901"),
    (100, 0.5, 0.5, "1.01518 1.06936 1.10457 1.11678 1.10457 1.06936 1.01518 0.94788 0.87410 0.80022 0.73801"),
    (100, 0.5, 1.0, "1.03036 1.13872 1.20914 1.23357 1.20914 1.13872 1.03036 0.89575 0.74820 0.60044 0.47602"),
    (100, 0.25, 0.25, "0.96916 1.07694 1.16562 1.20024 1.16562 1.07694 0.96916 0.87518 0.81093 0.77527 0.75998"),
    (100, 0.25, 0.5, "0.93831 1.15388 1.33125 1.40048 1.33125 1.15388 0.93831 0.75037 0.62187 0.55055 0.51997"),
    (100, 0.25, 1.0, "0.87662 1.30776 1.66249 1.80096 1.66249 1.30776 0.87662 0.50073 0.24373 0.10110 0.03994"),
    (1000, 0.5, 0.25, "1.00824 1.03540 1.05305 1.05917 1.05305 1.03540 1.00824 0.97451 0.93752 0.90049 0.86636"),
    (1000, 0.5, 0.5, "1.01649 1.07081 1.10610 1.11835 1.10610 1.07081 1.01649 0.94901 0.87505 0.80098 0.73272"),
    (1000, 0.5, 1.0, "1.03298 1.14162 1.21221 1.23670 1.21221 1.14162 1.03298 0.89803 0.75009 0.60197 0.46545"),
    (1000, 0.25, 1.0, "0.87992 1.31268 1.66875 1.80773 1.66875 1.31268 0.87992 0.50262 0.24465 0.10148 0.03627"),
]

# T, width, progress, mean of t, entropy, 1 / (T sum p^2), max / min, P(t >= 0.7 T).
STATISTICS = [
    (100, 0.5, 0.0, 49.5, math.log(100), 1.0, 1.0, 0.3),
    (1000, 0.5, 0.0, 499.5, math.log(1000), 1.0, 1.0, 0.3),
    (100, 0.5, 0.25, 48.0918, 4.60347, 0.99667, 1.2179, 0.27621),
    (100, 0.5, 0.5, 46.6836, 4.59823, 0.98681, 1.5132, 0.25242),
    (100, 0.5, 1.0, 43.8672, 4.57593, 0.94924, 2.5914, 0.20485),
    (100, 0.25, 1.0, 35.1117, 4.37322, 0.72649, 45.0963, 0.06131),
    (100, 1.0, 1.0, 47.9296, 4.60301, 0.99580, 1.2688, 0.27344),
    (1000, 0.5, 0.25, 485.0975, 6.90600, 0.99657, 1.2226, 0.27585),
    (1000, 0.5, 0.5, 470.6950, 6.90061, 0.98643, 1.5263, 0.25171),
    (1000, 0.5, 1.0, 441.8901, 6.87764, 0.94784, 2.6570, 0.20342),
    (1000, 0.25, 1.0, 352.6086, 6.67118, 0.72283, 49.8395, 0.05942),
    (1000, 1.0, 1.0, 483.4325, 6.90552, 0.99567, 1.2767, 0.27300),
]

EXACT = [
    (100, 0.25, {0: 0.010075901796913119, 30: 0.010583914356961056, 99: 0.008690055191189854}),
    (100, 0.5, {0: 0.010151803593826237, 30: 0.011167828713922114, 99: 0.007380110382379711}),
    (100, 1.0, {0: 0.010303607187652475, 30: 0.012335657427844225, 99: 0.0047602207647594215}),
    (1000, 1.0, {0: 0.0010329765859724924, 300: 0.0012366975044245572, 999: 0.00046544679922880467}),
]

CUMULATIVE = [
    (100, 0.25, {29: 0.31199715, 49: 0.52218607, 69: 0.72378759}),
    (100, 0.5, {29: 0.32399430, 49: 0.54437214, 69: 0.74757517}),
    (100, 1.0, {29: 0.34798860, 49: 0.58874428, 69: 0.79515035}),
    (1000, 1.0, {299: 0.34979904, 499: 0.59074561, 699: 0.79658387}),
]

NOISE_ROWS = [
    (0.5, 0.5, "0.95781 0.98300 1.00503 1.02320 1.03672 1.04449 1.04477 1.03452 1.00732 0.94366 0.70539"),
    (0.5, 1.0, "0.91563 0.96601 1.01006 1.04639 1.07344 1.08897 1.08953 1.06904 1.01464 0.88732 0.41078"),
    (0.25, 0.5, "0.82926 0.90794 0.98759 1.06162 1.12198 1.15878 1.16013 1.11184 0.99649 0.79040 0.51334"),
    (0.25, 1.0, "0.65853 0.81587 0.97518 1.12325 1.24397 1.31755 1.32025 1.22368 0.99298 0.58080 0.02668"),
]


@pytest.mark.parametrize(("timesteps", "width", "progress", "row"), INDEX_ROWS)
def test_relative_frequencies(timesteps: int, width: float, progress: float, row: str) -> None:
    p = CurriculumTimes(timesteps, width=width).probabilities(progress)
    columns = T100 if timesteps == 100 else T1000
    assert (timesteps * p[columns]).tolist() == pytest.approx([float(x) for x in row.split()], abs=5.1e-6)
    assert p.dtype == torch.float64
    assert p.shape == (timesteps,)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(("timesteps", "width", "progress", "mean", "entropy", "size", "ratio", "late"), STATISTICS)
def test_statistics(
    timesteps: int, width: float, progress: float, mean: float, entropy: float, size: float, ratio: float, late: float
) -> None:
    p = CurriculumTimes(timesteps, width=width).probabilities(progress)
    assert float((torch.arange(timesteps) * p).sum()) == pytest.approx(mean, abs=5.1e-5)
    assert float(-(p * p.log()).sum()) == pytest.approx(entropy, abs=5.1e-6)
    assert float(1.0 / (timesteps * p.square().sum())) == pytest.approx(size, abs=5.1e-6)
    assert float(p.max() / p.min()) == pytest.approx(ratio, abs=5.1e-5)
    assert float(p[timesteps * 7 // 10 :].sum()) == pytest.approx(late, abs=5.1e-6)


@pytest.mark.parametrize(("timesteps", "progress", "values"), EXACT)
def test_full_precision(timesteps: int, progress: float, values: dict[int, float]) -> None:
    p = CurriculumTimes(timesteps).probabilities(progress)
    assert {t: float(p[t]) for t in values} == pytest.approx(values, rel=1e-13)


@pytest.mark.parametrize(("timesteps", "progress", "values"), CUMULATIVE)
def test_cumulative(timesteps: int, progress: float, values: dict[int, float]) -> None:
    cdf = CurriculumTimes(timesteps).probabilities(progress).cumsum(0)
    assert {t: float(cdf[t]) for t in values} == pytest.approx(values, abs=1e-8)


@pytest.mark.parametrize(
    ("timesteps", "width", "total"),
    [(100, 0.5, 81.06580503304068), (100, 0.25, 55.52598892516314), (1000, 0.5, 808.6051733930732)],
)
def test_bump_is_cut_and_normalised(timesteps: int, width: float, total: float) -> None:
    """The unnormalised bump is 1 at its centre, so the probability there is one over its sum."""
    peak = CurriculumTimes(timesteps, width=width).bump[timesteps * 3 // 10]
    assert float(1.0 / peak) == pytest.approx(total, rel=1e-12)


def test_bump_narrower_than_a_step() -> None:
    p = CurriculumTimes(10, center=0.34, width=1e-6).probabilities(1.0)
    assert p.tolist() == [0.0, 0.0, 0.0, 1.0] + [0.0] * 6


def test_ramp() -> None:
    shares = [CurriculumTimes(100, end=0.8).share(progress) for progress in (0.0, 0.25, 0.5, 0.8, 1.0)]
    assert shares == pytest.approx([0.0, 0.3125, 0.625, 1.0, 1.0], abs=1e-15)
    shares = [
        CurriculumTimes(100, start=0.1, end=0.8, strength=0.8).share(tau) for tau in (-1.0, 0.05, 0.1, 0.45, 0.9, 7.0)
    ]
    assert shares == pytest.approx([0.0, 0.0, 0.0, 0.4, 0.8, 0.8], abs=1e-15)


def test_average_over_a_full_ramp_is_the_half_way_law() -> None:
    middles = [(k + 0.5) / 200 for k in range(200)]
    mean = torch.stack([CurriculumTimes(100).probabilities(tau) for tau in middles]).mean(0)
    torch.testing.assert_close(mean, CurriculumTimes(100).probabilities(0.5), rtol=1e-12, atol=0)


def test_properties() -> None:
    late = []
    for k in range(21):
        p = CurriculumTimes(100, strength=0.6).probabilities(k / 20)
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-14)
        torch.testing.assert_close(p[:30].flip(0), p[31:61], rtol=1e-12, atol=0)
        assert float(p.min()) >= 0.4 / 100
        assert k == 0 or bool((p[30:].diff() < 0).all())
        late.append(float(p[70:].sum()))
    assert all(after < before for before, after in itertools.pairwise(late))
    assert CurriculumTimes(100).probabilities(0.0).tolist() == [0.01] * 100
    assert torch.equal(CurriculumTimes(100).probabilities(-3.0), CurriculumTimes(100).probabilities(0.0))
    assert torch.equal(CurriculumTimes(100).probabilities(1.5), CurriculumTimes(100).probabilities(1.0))


def test_mixture_of_laws_not_of_samples() -> None:
    """Interpolating samples, (1 - g) u + g n, would give a spread of 0.225 and 0.135 of the times beyond 0.7."""
    p = CurriculumTimes(1000).probabilities(0.5)
    x = torch.arange(1000, dtype=torch.float64) / 1000
    spread = ((x - (x * p).sum()).square() * p).sum().sqrt()
    assert float(spread) > 0.27
    assert float(p[700:].sum()) == pytest.approx(0.25171, abs=1e-5)


def test_noise_matched_positions() -> None:
    positions = noise_matched_positions(vp_process("squaredcos_cap_v2", 100).log_snr)
    expected = [0.0037, 0.0282, 0.0529, 0.1032, 0.1548, 0.2088, 0.2664, 0.3295, 0.4018, 0.4910, 0.6217, 0.9990]
    assert positions[[0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]].tolist() == pytest.approx(expected, abs=5.1e-5)
    below = int((positions < 0.3).nonzero()[-1])
    crossing = below + float((0.3 - positions[below]) / (positions[below + 1] - positions[below]))
    assert crossing == pytest.approx(55.456, abs=2e-3)


def test_noise_matched_positions_of_the_reference_are_its_own() -> None:
    positions = noise_matched_positions(vp_process("linear", 1000).log_snr)
    torch.testing.assert_close(positions, torch.arange(1000, dtype=torch.float64) / 1000, rtol=0, atol=1e-9)


def test_noise_matched_positions_clamp() -> None:
    ends = noise_matched_positions(torch.tensor([math.inf, 40.0, -40.0, -math.inf], dtype=torch.float64))
    assert ends.tolist() == [0.0, 0.0, 0.999, 0.999]


@pytest.mark.parametrize(("width", "progress", "row"), NOISE_ROWS)
def test_noise_matched_frequencies(width: float, progress: float, row: str) -> None:
    positions = noise_matched_positions(vp_process("squaredcos_cap_v2", 100).log_snr)
    p = CurriculumTimes(100, width=width, positions=positions).probabilities(progress)
    assert (100 * p[T100]).tolist() == pytest.approx([float(x) for x in row.split()], abs=5.1e-6)


@pytest.mark.parametrize(("width", "late"), [(0.5, 0.27338), (0.25, 0.22657)])
def test_noise_matched_curriculum_is_milder(width: float, late: float) -> None:
    positions = noise_matched_positions(vp_process("squaredcos_cap_v2", 100).log_snr)
    p = CurriculumTimes(100, width=width, positions=positions).probabilities(1.0)
    assert float(p[70:].sum()) == pytest.approx(late, abs=5.1e-6)
    assert int(p.argmax()) == 55


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"center": -0.1}, "center"),
        ({"center": float("nan")}, "center"),
        ({"width": 0.0}, "width"),
        ({"width": float("inf")}, "width"),
        ({"start": -0.1}, "start"),
        ({"start": 0.5, "end": 0.5}, "start"),
        ({"end": 1.2}, "end"),
        ({"strength": 1.1}, "strength"),
    ],
)
def test_errors(setting: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=|and {name}="):
        CurriculumTimes(100, **setting)  # type: ignore[arg-type]


def test_errors_of_shape() -> None:
    with pytest.raises(ValueError, match=r"^positions: the shape is \[99\]"):
        CurriculumTimes(100, positions=torch.zeros(99))
    with pytest.raises(ValueError, match=r"^timesteps=0"):
        CurriculumTimes(0)
