from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import lambertw
from support.tensors import f64

from policy_accel.diffusion.grid import timestep_grid
from policy_accel.diffusion.momentum import (
    momentum_clock,
    momentum_complement,
    momentum_input_scale,
    momentum_process,
    momentum_scale,
    vp_sigma,
    weight_cap,
)
from policy_accel.diffusion.processes import DiscreteProcess, vp_process

BASE = vp_process("squaredcos_cap_v2", 100)

# t, B, s (m = 1), s (m = 2), exp(-B / 2), sqrt(1 - exp(-B)), sqrt(exp(B) - 1)
KERNEL = [
    (0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0),
    (0.01, 0.001995, 0.999998013, 0.999992061, 0.999002997, 0.0446431552, 0.044687709),
    (0.05, 0.029875, 0.999562531, 0.998284504, 0.985173511, 0.171560931, 0.174142859),
    (0.10, 0.1095, 0.994425061, 0.979249174, 0.946721799, 0.322052536, 0.340176529),
    (0.20, 0.418, 0.93355764, 0.795797353, 0.811395236, 0.58449788, 0.720361489),
    (0.25, 0.646875, 0.862435041, 0.629039034, 0.723657185, 0.690159604, 0.953710704),
    (0.30, 0.9255, 0.763139582, 0.447835102, 0.62955, 0.776959971, 1.23415133),
    (0.40, 1.632, 0.514656297, 0.163034684, 0.442196909, 0.896917997, 2.02832263),
    (0.50, 2.5375, 0.279688237, 0.0379753501, 0.281182881, 0.959654202, 3.41291831),
    (0.75, 5.671875, 0.0229606346, 1.46190479e-4, 0.058663503, 0.998277814, 17.0170168),
    (1.00, 10.05, 4.77202527e-4, 3.93516883e-8, 0.00657158649, 0.999978407, 152.16697),
]

# sigma, then c_in: edm (m = 1, 2), vp (m = 1, 2), ve
INPUT_SCALES = [
    (0.02, 1, 1, 1, 1, 1),
    (0.1, 1, 1, 1, 1, 1),
    (0.5, 0.999999, 0.999998, 1, 1, 1),
    (1, 0.999996, 0.999984, 0.999999, 0.999998, 0.999998),
    (2, 0.999962, 0.999850, 0.999995, 0.999982, 0.999983),
    (5, 0.999014, 0.996171, 0.999903, 0.999614, 0.999569),
    (10, 0.987386, 0.954779, 0.998813, 0.995405, 0.994462),
    (20, 0.862467, 0.629107, 0.984856, 0.946298, 0.933737),
    (40, 0.279713, 0.0379833, 0.839381, 0.582336, 0.514965),
    (80, 4.77203e-4, 3.93517e-8, 0.230614, 0.0242932, 0.0118018),
]

# VP time t, sigma, clock position, alpha and std of the literal kernel (s, s sigma) for m = 1 and m = 2
LITERAL_KERNEL = [
    (0.25, 0.953711, 0.00626099, 0.999999, 0.95371, 0.999998, 0.953709),
    (0.50, 3.41292, 0.0224223, 0.999974, 3.41283, 0.999896, 3.41256),
    (0.70, 11.8128, 0.0776241, 0.997808, 11.7869, 0.991616, 11.7137),
    (0.80, 25.1085, 0.165001, 0.965824, 24.2504, 0.88633, 22.2544),
    (0.90, 58.8273, 0.386593, 0.549252, 32.311, 0.191594, 11.2709),
    (0.95, 93.4457, 0.614097, 0.10622, 9.92584, 0.00420086, 0.392552),
    (1.00, 152.167, 1, 4.77203e-4, 0.0726145, 3.93517e-8, 5.98803e-6),
]

# k, alpha_bar, L, sigma / alpha, input RMS of `sigma`, gain of `natural`, alpha and sigma of `schedule`,
# half log-SNR of the base and of `schedule`; 100 squared-cosine times
DISCRETE = [
    (0, 0.999369, 6.31481e-4, 0.0251333, 1.00032, 1.00032, 0.9999998007, 6.31348e-4, 3.68356, 7.36765),
    (5, 0.988967, 0.0110945, 0.105623, 1.00556, 1.0055, 0.999939, 0.0110534, 2.24787, 4.50495),
    (12, 0.954611, 0.0464518, 0.218054, 1.0235, 1.02243, 0.998954, 0.0457275, 1.52301, 3.08401),
    (24, 0.847012, 0.16604, 0.424995, 1.08656, 1.07314, 0.98765, 0.156675, 0.855678, 1.84116),
    (36, 0.691449, 0.368966, 0.66801, 1.2026, 1.13834, 0.94657, 0.322498, 0.403452, 1.07675),
    (48, 0.509429, 0.674466, 0.981317, 1.40107, 1.19514, 0.853021, 0.521877, 0.0188594, 0.491352),
    (60, 0.326115, 1.1205, 1.4375, 1.75111, 1.21095, 0.691529, 0.722349, -0.362904, -0.0436034),
    (72, 0.166853, 1.79064, 2.23457, 2.44812, 1.13991, 0.465626, 0.884981, -0.80405, -0.642183),
    (84, 0.0536592, 2.9251, 4.19954, 4.31696, 0.909229, 0.210618, 0.977568, -1.43497, -1.53502),
    (90, 0.0195444, 3.93507, 7.08277, 7.15301, 0.689928, 0.0964528, 0.995338, -1.95766, -2.33403),
    (95, 0.003881, 5.55166, 16.0208, 16.0519, 0.408153, 0.025427, 0.999677, -2.77389, -3.67162),
    (98, 2.42857e-4, 8.32304, 64.1611, 64.1634, 0.145289, 0.00226417, 0.999997, -4.1614, -6.09055),
    (99, 2.42857e-7, 15.2308, 2029.2, 0.968339, 0.00799862, 3.94177e-6, 1, -7.6154, -12.4439),
]


@pytest.mark.parametrize("row", KERNEL, ids=lambda row: f"t={row[0]}")
def test_clock_and_kernel(row: tuple[float, ...]) -> None:
    t, b, once, twice, vp_mean, vp_deviation, ratio = row
    at = momentum_clock(f64(t))
    sigma = float(vp_sigma(f64(t)))
    ours = [float(at), float(momentum_scale(at)), float(momentum_scale(at, 2.0)), 1 / math.hypot(1, sigma), sigma]
    assert ours == pytest.approx([b, once, twice, vp_mean, ratio], rel=1e-8, abs=1e-16)
    assert sigma / math.hypot(1, sigma) == pytest.approx(vp_deviation, rel=1e-8)


@pytest.mark.parametrize(
    ("multiplier", "b", "t", "value"),
    [(1.0, 2.512862417, 0.497542520, 0.284668137), (2.0, 0.366800494, 0.187041590, 0.832434909)],
)
def test_the_kernel_crosses_the_variance_preserving_mean(multiplier: float, b: float, t: float, value: float) -> None:
    assert float(momentum_clock(f64(t))) == pytest.approx(b, abs=1e-8)
    around = f64(b - 1e-4, b, b + 1e-4)
    gap = momentum_scale(around, multiplier) - (-around / 2).exp()
    assert gap[0] > 0 > gap[2]
    assert abs(float(gap[1])) < 1e-9
    assert float(momentum_scale(f64(b), multiplier)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("value", "b"), [(0.5, 1.678346990), (0.1, 3.889720170), (0.01, 6.638352068)])
@pytest.mark.parametrize("multiplier", [1.0, 2.0, 0.7])
def test_the_kernel_inverts_by_the_lambert_function(value: float, b: float, multiplier: float) -> None:
    assert float(momentum_scale(f64(b / multiplier), multiplier)) == pytest.approx(value, rel=1e-8)
    inverse = -1.0 - lambertw(-value / math.e, k=-1).real
    assert float(momentum_scale(f64(inverse / multiplier), multiplier)) == pytest.approx(value, rel=1e-12)


def test_complement_does_not_cancel() -> None:
    ordinary = torch.linspace(0.1, 12, 40, dtype=torch.float64)
    torch.testing.assert_close(momentum_complement(ordinary), 1 - momentum_scale(ordinary).square(), rtol=1e-12, atol=0)
    u = f64(1e-6, 1e-5, 1e-4)
    series = u.square() - 2 / 3 * u**3  # the next term is of fifth order
    torch.testing.assert_close(momentum_complement(u / 2, 2.0), series, rtol=1e-8, atol=0)
    assert float((1 - momentum_scale(u).square() - series).abs().div(series).max()) > 1e-6


@pytest.mark.parametrize("rate", [1.0, 5.0, 10.05, 20.0])
def test_kernel_is_the_critically_damped_oscillator(rate: float) -> None:
    t = np.linspace(0, 1, 101)

    def force(_: float, y: np.ndarray) -> list[float]:
        return [y[1], -2 * rate * y[1] - rate**2 * y[0]]

    oscillator = solve_ivp(force, (0, 1), [1.0, 0.0], t_eval=t, rtol=1e-11, atol=1e-13, method="DOP853").y[0]
    np.testing.assert_allclose(momentum_scale(torch.tensor(rate * t)).numpy(), oscillator, atol=1e-10)


def test_kernel_is_the_oscillator_in_warped_time_not_the_one_with_a_varying_rate() -> None:
    t = np.linspace(0, 1, 401)

    def rate(at: float) -> float:
        return 0.1 + 19.9 * at

    def warped(at: float, y: np.ndarray) -> list[float]:
        return [y[1], -(2 * rate(at) - 19.9 / rate(at)) * y[1] - rate(at) ** 2 * y[0]]

    def varying(at: float, y: np.ndarray) -> list[float]:
        return [y[1], -2 * rate(at) * y[1] - rate(at) ** 2 * y[0]]

    ours = momentum_scale(momentum_clock(torch.tensor(t))).numpy()
    options = {"t_eval": t, "rtol": 1e-11, "atol": 1e-13, "method": "DOP853"}
    np.testing.assert_allclose(ours, solve_ivp(warped, (0, 1), [1.0, 0.0], **options).y[0], atol=1e-10)
    gap = np.abs(ours - solve_ivp(varying, (0, 1), [1.0, 0.0], **options).y[0])
    assert gap.max() == pytest.approx(0.104, abs=5e-4)
    assert t[gap.argmax()] == pytest.approx(0.46, abs=0.01)


@pytest.mark.parametrize(("step", "gap"), [(0.1, 7.8e-2), (0.01, 9.0e-3), (0.001, 9.2e-4)])
def test_heavy_ball_descent_tends_to_the_kernel(step: float, gap: float) -> None:
    rate = 5.0
    friction, learning_rate = math.exp(-2 * rate * step), (1 - math.exp(-rate * step)) ** 2
    path = [1.0, 1.0 - learning_rate]
    for _ in range(round(2 / step) - 1):
        path.append(path[-1] - learning_rate * path[-1] + friction * (path[-1] - path[-2]))
    kernel = momentum_scale(rate * step * torch.arange(len(path), dtype=torch.float64))
    assert float((kernel - torch.tensor(path, dtype=torch.float64)).abs().max()) == pytest.approx(gap, rel=0.01)


@pytest.mark.parametrize("row", INPUT_SCALES, ids=lambda row: f"sigma={row[0]}")
def test_input_scales_of_the_released_preconditioners(row: tuple[float, ...]) -> None:
    sigma = f64(row[0])
    ours = [
        float(momentum_input_scale(sigma, family=family, multiplier=multiplier))
        for family, multiplier in [("edm", 1.0), ("edm", 2.0), ("vp", 1.0), ("vp", 2.0), ("ve", 1.0)]
    ]
    assert ours == pytest.approx(row[1:], rel=6e-6, abs=1e-12)
    # The released VE preconditioner takes a multiplier and never uses it.
    assert float(momentum_input_scale(sigma, family="ve", multiplier=2.0)) == ours[-1]


def test_input_scales_at_the_noisy_end_and_outside_the_range() -> None:
    assert float(momentum_input_scale(f64(152), family="vp", multiplier=1.0)) == pytest.approx(4.868e-4, rel=2e-4)
    assert float(momentum_input_scale(f64(152), family="vp", multiplier=2.0)) == pytest.approx(4.103e-8, rel=2e-4)
    assert float(momentum_input_scale(f64(100), family="ve", multiplier=1.0)) == pytest.approx(4.772e-4, rel=1e-4)
    below, above = momentum_input_scale(f64(1e-4, 160.0), family="edm", multiplier=1.0).tolist()
    assert below == pytest.approx(1.0, abs=1e-10)
    assert 0 < above < 1e-15  # the clock runs on beyond sigma_max


@pytest.mark.parametrize("row", LITERAL_KERNEL, ids=lambda row: f"t={row[0]}")
def test_literal_kernel_in_variance_preserving_time(row: tuple[float, ...]) -> None:
    t, ratio, position, alpha_1, deviation_1, alpha_2, deviation_2 = row
    sigma = vp_sigma(f64(t))
    low, high = vp_sigma(f64(1e-5, 1.0)).tolist()
    assert low == pytest.approx(1.0004976e-3, rel=1e-6)
    s_1, s_2 = (float(momentum_input_scale(sigma, family="vp", multiplier=m)) for m in (1.0, 2.0))
    ours = [float(sigma), (float(sigma) - low) / (high - low), s_1, s_1 * float(sigma), s_2, s_2 * float(sigma)]
    assert ours == pytest.approx([ratio, position, alpha_1, deviation_1, alpha_2, deviation_2], rel=6e-6)


@pytest.mark.parametrize("row", DISCRETE, ids=lambda row: f"k={row[0]}")
def test_discrete_processes(row: tuple[float, ...]) -> None:
    k = int(row[0])
    literal, natural = momentum_process(BASE, "sigma"), momentum_process(BASE, "natural")
    schedule, one = momentum_process(BASE, "schedule"), momentum_process(BASE, "one")
    ours = [
        BASE.alphas[k] ** 2,
        -2 * BASE.alphas[k].log(),
        BASE.sigmas[k] / BASE.alphas[k],
        literal.input_scales[k],  # times the unit RMS of the base process
        natural.input_scales[k],
        schedule.alphas[k],
        schedule.sigmas[k],
        BASE.log_snr[k] / 2,
        schedule.log_snr[k] / 2,
    ]
    assert [float(value) for value in ours] == pytest.approx(row[1:], rel=6e-6, abs=5e-8)
    for scaled in (literal, natural, one):
        torch.testing.assert_close(scaled.alphas, BASE.alphas, rtol=0, atol=0)
        torch.testing.assert_close(scaled.sigmas, BASE.sigmas, rtol=0, atol=0)
    assert float(one.input_scales[k] * BASE.alphas[k]) == pytest.approx(1.0, rel=1e-14)
    assert bool((schedule.input_scales == 1).all())


def test_natural_gain_and_literal_inputs_by_the_whole_table() -> None:
    gain = momentum_process(BASE, "natural").input_scales
    assert int(gain.argmax()) == 57
    assert float(gain.max()) == pytest.approx(2 * math.exp(-0.5), rel=1e-5)  # reached at L = 1, between two times
    assert float(gain[:99].min()) == pytest.approx(0.145, abs=5e-4)
    log_decay = -2 * BASE.alphas.log()
    torch.testing.assert_close(gain, (-log_decay / 2).exp() * (1 + log_decay), rtol=1e-12, atol=0)
    twice = momentum_process(BASE, "natural", strength=2.0).input_scales
    torch.testing.assert_close(twice, (-1.5 * log_decay).exp() * (1 + 2 * log_decay), rtol=1e-11, atol=0)
    none = momentum_process(BASE, "natural", strength=0.0).input_scales
    torch.testing.assert_close(none, 1 / BASE.alphas, rtol=1e-14, atol=0)
    literal = momentum_process(BASE, "sigma", strength=2.0).input_scales
    assert float(literal[99] * BASE.alphas[99]) == pytest.approx(3.93517e-8, rel=1e-5)
    assert float(literal[98]) > 60


def test_schedule_as_betas() -> None:
    schedule = momentum_process(BASE, "schedule")
    alpha_bar = schedule.alphas.square()
    betas = 1 - alpha_bar / torch.cat([f64(1.0), alpha_bar[:-1]])
    listed = {0: 3.98600e-7, 1: 2.65698e-6, 10: 3.34217e-4, 50: 0.0265115, 90: 0.282326, 98: 0.913723, 99: 0.999997}
    for k, beta in listed.items():
        assert float(betas[k]) == pytest.approx(beta, rel=6e-6)
    torch.testing.assert_close(alpha_bar + schedule.sigmas.square(), torch.ones(100, dtype=torch.float64))
    assert float(schedule.alphas[0]) == pytest.approx(0.9999998007, abs=5e-11)
    above = schedule.alphas > BASE.alphas
    assert bool(above[:81].all())
    assert not bool(above[81:].any())
    assert [k for k in range(100) if float(schedule.sigmas[k]) < 0.02] == list(range(8))
    half = momentum_process(BASE, "schedule", strength=0.5)
    u = -BASE.alphas.log()
    torch.testing.assert_close(half.alphas, (1 + u) * (-u).exp(), rtol=1e-13, atol=0)
    assert float(half.alphas[84]) == pytest.approx(0.57, abs=0.005)


def test_leading_grids_stop_short_of_the_noisy_end() -> None:
    assert timestep_grid(100, 8, "leading").timesteps == tuple(range(84, -1, -12))
    assert timestep_grid(100, 16, "leading").timesteps == tuple(range(90, -1, -6))
    assert timestep_grid(100, 10, "leading").timesteps == tuple(range(90, -1, -10))


def test_input_scale_keeps_what_else_a_process_carries() -> None:
    @dataclass(frozen=True)
    class Tagged(DiscreteProcess):
        tag: str = ""

    tagged = Tagged(BASE.alphas, BASE.sigmas, BASE.input_scales, "kept")
    for kind in ("natural", "sigma", "one"):
        process = momentum_process(tagged, kind)
        assert isinstance(process, Tagged)
        assert process.tag == "kept"


def test_weight_cap_grows_and_goes() -> None:
    listed = {0: 5.0, 1: 5.1165, 50: 15.8114, 100: 50.0, 150: 158.1139, 199: 488.6186}
    for step, cap in listed.items():
        assert weight_cap(step, 200) == pytest.approx(cap, rel=1e-5)
    assert weight_cap(200, 200) is None
    assert weight_cap(10_000, 200) is None
    assert weight_cap(0, 0) is None
    for warmup, ratio in [(200, 1.0232930), (400, 1.0115795), (800, 1.0057731)]:
        first, second = weight_cap(7, warmup), weight_cap(8, warmup)
        assert first is not None
        assert second is not None
        assert second / first == pytest.approx(ratio, abs=1e-7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: momentum_process(BASE, "naturel"), r"^kind 'naturel' .*did you mean 'natural'"),
        (lambda: momentum_process(BASE, "natural", -1.0), r"^strength=-1\.0"),
        (lambda: momentum_process(BASE, "natural", math.nan), "^strength=nan"),
        (lambda: momentum_process(BASE, "schedule", 0.0), "^strength=0 leaves no noise"),
        (lambda: momentum_process(BASE, "one", 2.0), r"^strength=2\.0 does nothing"),
        (lambda: momentum_process(DiscreteProcess(f64(1.0), f64(2.0))), "^base: .*variance-preserving"),
        (lambda: momentum_process(vp_process(timesteps=1), "sigma"), "^kind=sigma needs a base of at least 2"),
        (lambda: momentum_input_scale(f64(1.0), family="edn", multiplier=1.0), "^family 'edn' .*'edm'"),
        (lambda: momentum_input_scale(f64(1.0), family="edm", multiplier=-2.0), r"^multiplier=-2\.0"),
    ],
)
def test_errors(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_literal_clock_runs_from_the_first_time_to_the_last() -> None:
    """Its position is 0 at the first ratio, however large that is, and 1 at the last."""
    base = vp_process("linear", 10, beta_start=0.2, beta_end=0.5)
    scale = momentum_process(base, "sigma").input_scales * base.alphas
    assert float(scale[0]) == pytest.approx(1.0, abs=1e-12)
    assert float(scale[-1]) == pytest.approx(float(momentum_scale(momentum_clock(f64(1.0)))[0]), rel=1e-12)
