from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from support.tensors import generator
from torch import Tensor

from policy_accel.diffusion import DiscreteProcess, Grid, ddim, timestep_grid, vp_process
from policy_accel.diffusion.karhunen_loeve import (
    CLOCKS,
    KarhunenLoeveProcess,
    brownian_modes,
    karhunen_loeve_process,
    mode_table,
    white_noise_modes,
)
from policy_accel.diffusion.samplers import Predictor, start_scale

LINEAR, COS_1000, COS_100 = ("linear", 1000), ("squaredcos_cap_v2", 1000), ("squaredcos_cap_v2", 100)
SCHEDULES = [LINEAR, COS_1000, COS_100]
TENTHS = [i / 10 for i in range(1, 11)]
SMALL_BETAS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def table(text: str) -> Tensor:
    return torch.tensor([[float(x) for x in row.split()] for row in text.strip().splitlines()], dtype=torch.float64)


def process_of(betas: Tensor) -> DiscreteProcess:
    alpha_bar = torch.cumprod(1.0 - betas, 0)
    return DiscreteProcess(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())


def at(fractions: Sequence[float], timesteps: int) -> list[int]:
    return [round(f * timesteps) - 1 for f in fractions]


def kept(mode_coefficients: Tensor) -> Tensor:
    """s_K for every K at once: row K - 1."""
    return mode_coefficients.square().cumsum(0).sqrt()


@functools.cache
def full(schedule: tuple[str, int]) -> KarhunenLoeveProcess:
    """All T modes; its first K rows are the process of K modes."""
    return karhunen_loeve_process(vp_process(*schedule), schedule[1])


def close(actual: Tensor, expected: Tensor | float, tolerance: float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


# --- The tables ------------------------------------------------------------------------------------------------------

SMALL_U = table("""
    0.6565385020  0.5773502692  0.4285250731  0.2280134289
    0.5773502692  0.0000000000 -0.5773502692 -0.5773502692
    0.4285250731 -0.5773502692 -0.2280134289  0.6565385020
    0.2280134289 -0.5773502692  0.6565385020 -0.4285250731""")
SMALL_C = table("""
    0.2076157038  0.4438960205  0.6061029053  0.6136936461
    0.1825741858  0.1632993162 -0.1796017558 -0.5042672935
    0.1355115266 -0.1369936957 -0.2395052475  0.2297114406
    0.0721041772 -0.1937069530  0.1975340829 -0.1180138104""")
SMALL_S = table("""
    0.2076157038  0.4438960205  0.6061029053  0.6136936461
    0.2764735318  0.4729802783  0.6321530847  0.7942955335
    0.3078976902  0.4924201624  0.6760031702  0.8268450523
    0.3162277660  0.5291502622  0.7042726745  0.8352245207""")


def test_four_steps_by_hand() -> None:
    close(white_noise_modes(4, 4), SMALL_U, 1e-10)
    close(mode_table(SMALL_BETAS, 4), SMALL_C, 1e-10)
    close(mode_table(SMALL_BETAS, 2), SMALL_C[:2], 1e-10)
    base = process_of(SMALL_BETAS)
    for modes in range(1, 5):
        process = karhunen_loeve_process(base, modes, "raw")
        close(process.sigmas, SMALL_S[modes - 1], 1e-10)
        close(process.noise_table, SMALL_C[:modes] / SMALL_S[modes - 1], 1e-9)
    for modes, expected in (
        (2, (0.9327618179, 0.1609561724, 0.9211585586)),
        (4, (0.5345224838, 0.2194655727, 0.6531504456)),
    ):
        n = karhunen_loeve_process(base, modes).noise_table
        close((n.T @ n)[[0, 0, 2], [1, 3, 3]], torch.tensor(expected), 1e-7)


@pytest.mark.parametrize("timesteps", [1, 4, 100, 1000])
def test_modes_are_the_right_singular_vectors_of_the_cumulative_sum(timesteps: int) -> None:
    u = white_noise_modes(timesteps, timesteps)
    close(u @ u.T, torch.eye(timesteps), 1e-12)
    walk = torch.tril(torch.ones(timesteps, timesteps, dtype=torch.float64))
    gram = u @ walk.T @ walk @ u.T
    close(gram / gram.max(), torch.diag(gram.diagonal()) / gram.max(), 1e-12)
    assert bool((gram.diagonal().diff() < 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_modes_give_the_exact_chain(schedule: tuple[str, int]) -> None:
    base, process = vp_process(*schedule), full(schedule)
    close(kept(process.mode_table)[-1], base.sigmas, 1e-12)
    alpha, sigma = base.alphas, base.sigmas
    markov = torch.triu((alpha[None, :] / alpha[:, None]) * (sigma[:, None] / sigma[None, :]))
    close(torch.triu(process.noise_table.T @ process.noise_table), markov, 1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_kept_noise_grows_with_modes_up_to_the_whole(schedule: tuple[str, int]) -> None:
    base = vp_process(*schedule)
    s = kept(full(schedule).mode_table)
    assert bool((s.diff(dim=0) >= 0).all())
    assert bool((s <= base.sigmas + 1e-12).all())
    assert bool((s[-1] > s[0]).all())


MODES = [1, 2, 4, 8, 16, 32]
KEPT_LINEAR = table("""
    0.423615 0.578431 0.668853 0.704653 0.686170 0.617347 0.510203 0.382013 0.248855 0.121498
    0.586842 0.752241 0.785165 0.737031 0.688975 0.708305 0.750066 0.715162 0.556742 0.294448
    0.766761 0.820648 0.827636 0.890735 0.858495 0.853173 0.828455 0.787832 0.826858 0.529389
    0.846054 0.925678 0.934071 0.929341 0.929094 0.923375 0.915616 0.898150 0.868607 0.740568
    0.934661 0.956920 0.968030 0.967394 0.964840 0.961199 0.952561 0.950099 0.940792 0.871352
    0.963622 0.980604 0.984121 0.984173 0.982535 0.979831 0.977059 0.974616 0.972170 0.938936""")
KEPT_COS_1000 = table("""
    0.427700 0.588215 0.693263 0.757545 0.783149 0.767053 0.702056 0.575306 0.362976 0.000244
    0.592781 0.767330 0.823089 0.809476 0.784577 0.799423 0.845105 0.836756 0.638756 0.000605
    0.775904 0.842717 0.855804 0.923746 0.922753 0.917776 0.908337 0.860666 0.836190 0.001401
    0.859641 0.933976 0.949676 0.952821 0.960582 0.959458 0.954347 0.933828 0.869910 0.003318
    0.938781 0.962693 0.975738 0.978809 0.980205 0.979533 0.974316 0.967485 0.937033 0.008068
    0.966189 0.983263 0.988005 0.989724 0.990111 0.989361 0.987559 0.983333 0.969115 0.020136""")
KEPT_COS_100 = table("""
    0.427072 0.587194 0.692154 0.756589 0.782584 0.767125 0.703007 0.577336 0.366065 0.003860
    0.592065 0.766598 0.822960 0.809806 0.784352 0.797758 0.842958 0.836830 0.643872 0.010514
    0.775704 0.843229 0.855042 0.922991 0.923036 0.917043 0.908968 0.859285 0.837330 0.026843
    0.861069 0.933615 0.949640 0.952820 0.960901 0.959740 0.954048 0.932818 0.868345 0.069083
    0.939623 0.963253 0.976258 0.979083 0.980682 0.979721 0.974787 0.968367 0.935923 0.177954
    0.968662 0.984551 0.988926 0.990595 0.990984 0.990240 0.988444 0.984402 0.972076 0.439222""")
SIGMA_LINEAR = table("0.320908 0.583919 0.776904 0.897136 0.959902 0.986975 0.996511 0.999234 0.999862 0.999980")[0]


@pytest.mark.parametrize(
    ("schedule", "expected"), [(LINEAR, KEPT_LINEAR), (COS_1000, KEPT_COS_1000), (COS_100, KEPT_COS_100)]
)
def test_kept_share_of_the_noise(schedule: tuple[str, int], expected: Tensor) -> None:
    base = vp_process(*schedule)
    for modes, row in zip(MODES, expected, strict=True):
        process = karhunen_loeve_process(base, modes, "raw")
        close((process.sigmas / base.sigmas)[at(TENTHS, schedule[1])], row, 2e-6)


def test_signed_coefficients_and_sigma() -> None:
    base = vp_process(*LINEAR)
    close(base.sigmas[at(TENTHS, 1000)], SIGMA_LINEAR, 2e-6)
    close(full(LINEAR).mode_table[:4, 499], table("0.658657 -0.059611 -0.472095 -0.137252")[0], 2e-6)
    close(full(COS_100).mode_table[:4, 49], table("0.556767 0.037440 -0.312691 -0.148579")[0], 2e-6)


@pytest.mark.parametrize(("schedule", "expected"), [(LINEAR, (104, 56, 91, 143)), (COS_100, (65, 30, 67, 86))])
def test_modes_needed_for_99_percent(schedule: tuple[str, int], expected: tuple[int, ...]) -> None:
    share = kept(full(schedule).mode_table) / vp_process(*schedule).sigmas
    columns = at((0.1, 0.5, 0.9, 1.0), schedule[1])
    assert tuple(int((share[:, c] < 0.99).sum()) + 1 for c in columns) == expected


# --- The continuous limit, beta(t) = 0.1 + 19.9 t --------------------------------------------------------------------

KEPT_CONTINUOUS = table("""
    0.424211 0.579045 0.669503 0.705428 0.687210 0.618765 0.511975 0.383936 0.250628 0.122839
    0.587684 0.753069 0.785961 0.737887 0.689979 0.709456 0.751512 0.717107 0.559057 0.296572
    0.767947 0.821640 0.828305 0.891135 0.859080 0.854049 0.829515 0.789468 0.828412 0.530754
    0.847599 0.926007 0.934292 0.929624 0.929395 0.923802 0.916277 0.899170 0.869989 0.739710
    0.935119 0.957095 0.968123 0.967527 0.964983 0.961462 0.952916 0.950467 0.941601 0.868547
    0.963840 0.980656 0.984165 0.984216 0.982595 0.979940 0.977243 0.974858 0.972361 0.935062""")


def beta(t: float) -> float:
    return 0.1 + 19.9 * t


@functools.cache
def continuous(timesteps: int, modes: int) -> KarhunenLoeveProcess:
    """A chain whose betas hold each step's share of the integral of beta(t), so that its alphas are exact."""
    edges = torch.linspace(0.0, 1.0, timesteps + 1, dtype=torch.float64)
    return karhunen_loeve_process(process_of(-torch.expm1(-(0.1 * edges + 9.95 * edges**2).diff())), modes, "raw")


def extrapolated(modes: int) -> Tensor:
    """Mode tables at t = 0.1 .. 1.0, freed from their first-order error in 1 / T (Richardson)."""
    coarse, fine = (continuous(n, modes).mode_table[:, at(TENTHS, n)] for n in (4000, 8000))
    return 2 * fine - coarse


def test_discrete_tables_tend_to_the_continuous_ones() -> None:
    limit = extrapolated(32)
    sigma = (1.0 - continuous(4000, 32).alphas ** 2).sqrt()[at(TENTHS, 4000)]
    close((kept(limit) / sigma)[[k - 1 for k in MODES]], KEPT_CONTINUOUS, 5e-6)
    close(limit[:4, 4], table("0.659484 -0.059261 -0.471735 -0.136759")[0], 2e-6)
    close(sigma[4], 0.959654, 1e-6)


def test_runge_kutta_of_the_ode_follows_the_path() -> None:
    x0, z = (
        torch.randn((3, 5), generator=generator(1)).double(),
        torch.randn((3, 4, 5), generator=generator(2)).double(),
    )
    frequency = (torch.arange(1, 5, dtype=torch.float64) - 0.5) * math.pi

    def velocity(x: Tensor, t: float) -> Tensor:
        drive = torch.einsum("k,bks->bs", math.sqrt(2.0) * torch.cos(frequency * t), z)
        return -0.5 * beta(t) * x + math.sqrt(beta(t)) * drive

    steps, x, solution = 1000, x0, []
    h = 1.0 / steps
    for i in range(steps):
        t = i * h
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + h / 2 * k2, t + h / 2)
        k4 = velocity(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if (i + 1) % 100 == 0:
            solution.append(x)

    def paths(timesteps: int) -> Tensor:
        process = continuous(timesteps, 4)
        t = torch.tensor(at(TENTHS, timesteps)).expand(3, 10)
        noise = process.path_noise(z, t)
        repeated = x0.repeat_interleave(10, 0)
        return process.diffuse(repeated, noise.flatten(0, 1), t.flatten()).unflatten(0, (3, 10))

    close(2 * paths(8000) - paths(4000), torch.stack(solution, dim=1), 5e-6)


# --- Marginals -------------------------------------------------------------------------------------------------------

ALPHA_BAR_LINEAR = {
    None: "0.897018 0.524085 0.0785872 0.00335055 0.000275206 4.03583e-05",
    1: "0.979814 0.734687 0.153366 0.0165006 0.00442545 0.00272662",
    4: "0.936772 0.626743 0.103721 0.00533689 0.000402477 0.000143992",
    16: "0.908849 0.541106 0.0839297 0.00370689 0.000310924 5.31545e-05",
}
ALPHA_BAR_COS_100 = {
    None: "0.972093 0.847012 0.493844 0.144272 0.0240917 2.42857e-07",
    1: "0.994791 0.930074 0.614361 0.285859 0.155564 0.0160372",
    4: "0.983019 0.887500 0.533835 0.178643 0.0340124 0.000336942",
    16: "0.975280 0.853841 0.503597 0.151303 0.0274100 7.66888e-06",
}


@pytest.mark.parametrize(("schedule", "expected"), [(LINEAR, ALPHA_BAR_LINEAR), (COS_100, ALPHA_BAR_COS_100)])
def test_variance_preserving_equivalent(schedule: tuple[str, int], expected: dict[int | None, str]) -> None:
    base = vp_process(*schedule)
    columns = at((0.1, 0.25, 0.5, 0.75, 0.9, 1.0), schedule[1])
    for modes, row in expected.items():
        process = base if modes is None else karhunen_loeve_process(base, modes, "vp_equivalent")
        alpha_bar = process.alphas**2
        torch.testing.assert_close(alpha_bar[columns], table(row)[0], rtol=1e-5, atol=0)
        close(process.sigmas**2, 1.0 - alpha_bar, 1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("modes", [1, 2, 3, 4, 8, 16, 32])
def test_betas_describe_the_table(schedule: tuple[str, int], modes: int) -> None:
    base = vp_process(*schedule)
    equivalent = karhunen_loeve_process(base, modes, "vp_equivalent")
    raw = karhunen_loeve_process(base, modes, "raw")
    assert bool(((equivalent.betas > 0) & (equivalent.betas < 1)).all())
    assert bool((equivalent.log_snr.diff() < 0).all())
    close(equivalent.log_snr, raw.log_snr, 1e-8)
    torch.testing.assert_close(torch.cumprod(1 - equivalent.betas, 0), equivalent.alphas**2, rtol=1e-9, atol=0)
    matched = karhunen_loeve_process(base, modes)
    torch.testing.assert_close(torch.cumprod(1 - matched.betas, 0), base.alphas**2, rtol=1e-9, atol=0)
    assert torch.equal(matched.alphas, base.alphas)
    assert torch.equal(matched.sigmas, base.sigmas)


def starting(process: DiscreteProcess) -> float:
    """Where a sampler that takes every step starts."""
    return start_scale(process, timestep_grid(process.timesteps, process.timesteps, "leading"))


def test_the_start_of_a_sampler() -> None:
    base = vp_process(*LINEAR)
    assert [starting(karhunen_loeve_process(base, 4, m)) for m in ("matched", "vp_equivalent")] == [1.0, 1.0]
    assert starting(karhunen_loeve_process(base, 4, "raw")) == pytest.approx(0.529389 * 0.999980, abs=2e-6)


@pytest.mark.parametrize("marginal", ["matched", "vp_equivalent", "raw"])
def test_the_input_scales_of_the_base_are_kept(marginal: str) -> None:
    base = process_of(SMALL_BETAS)
    scaled = DiscreteProcess(base.alphas, base.sigmas, torch.arange(1, 5).double())
    assert karhunen_loeve_process(scaled, 2, marginal).input_scales.tolist() == [1, 2, 3, 4]
    assert karhunen_loeve_process(base, 2, marginal).input_scales.tolist() == [1, 1, 1, 1]


def test_moving_keeps_the_type_and_moves_every_table() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, "raw")
    moved = process.to("meta")
    assert isinstance(moved, KarhunenLoeveProcess)
    assert (moved.modes, moved.marginal, moved.timesteps) == (4, "raw", 100)
    tables = (moved.alphas, moved.sigmas, moved.input_scales, moved.mode_table, moved.noise_table)
    assert {t.device.type for t in tables} == {"meta"}


def refusals() -> list[tuple[DiscreteProcess, dict[str, object], str]]:
    small, cosine = process_of(SMALL_BETAS), vp_process(*COS_100)
    exploding = DiscreteProcess(torch.ones(4, dtype=torch.float64), torch.arange(1, 5).double())
    resting = process_of(torch.tensor([0.1, 0.0, 0.1], dtype=torch.float64))
    # Two modes: the second increment points away from the first, so a big early beta makes the kept noise shrink.
    shrinking = process_of(torch.tensor([0.5, 1e-4, 1e-4, 0.01], dtype=torch.float64))
    return [
        (small, {"modes": 5}, "^modes=5 must be an integer from 1 to timesteps=4"),
        (small, {"modes": 0}, "^modes=0 must be an integer from 1 to timesteps=4"),
        (small, {"modes": 2.0}, r"^modes=2\.0 must be an integer"),
        (small, {"modes": True}, "^modes=True must be an integer"),
        (cosine, {"modes": 4, "marginal": "mached"}, r"^marginal 'mached'.*did you mean 'matched'"),
        (cosine, {"modes": 4, "clock": "varianc"}, r"^clock 'varianc'.*did you mean 'variance'"),
        (exploding, {"modes": 2}, "^base: it must be a variance-preserving process"),
        (resting, {"modes": 2}, "^base: it must be a variance-preserving process"),
        (shrinking, {"modes": 2, "marginal": "vp_equivalent"}, "^marginal=vp_equivalent with modes=2 .*at 2;"),
        (shrinking, {"modes": 2, "marginal": "raw"}, "^marginal=raw with modes=2 .*at 2;"),
    ]


@pytest.mark.parametrize(("base", "arguments", "sentence"), refusals())
def test_refusals(base: DiscreteProcess, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        karhunen_loeve_process(base, **arguments)  # type: ignore[arg-type]


def test_raw_has_no_betas() -> None:
    with pytest.raises(ValueError, match=r"^marginal=raw has no betas"):
        _ = karhunen_loeve_process(vp_process(*COS_100), 4, "raw").betas


# --- The variance clock ----------------------------------------------------------------------------------------------


def test_brownian_modes() -> None:
    at_half, at_one = (
        brownian_modes(torch.tensor([v]), 32).square().cumsum(0)[[k - 1 for k in MODES], 0] for v in (0.5, 1.0)
    )
    close(at_one, table("0.810569 0.900633 0.949598 0.974703 0.987339 0.993668")[0], 1e-6)
    close(at_half, table("0.405285 0.450316 0.474799 0.487351 0.493669 0.496834")[0], 1e-6)
    # The share of the integrated variance, by the midpoint rule.
    t = (torch.arange(10000, dtype=torch.float64) + 0.5) / 10000
    close(2 * brownian_modes(t, 32).square().mean(1).cumsum(0)[[k - 1 for k in MODES]], at_one, 1e-7)


def test_variance_clock() -> None:
    base = vp_process(*COS_100)
    for modes, expected in ((1, 0.900316), (4, 0.974473)):
        raw = karhunen_loeve_process(base, modes, "raw", clock="variance")
        close(raw.sigmas[-1] / base.sigmas[-1], expected, 2e-6)
        assert starting(karhunen_loeve_process(base, modes, "vp_equivalent", clock="variance")) == 1.0
    base = vp_process(*LINEAR)
    process = karhunen_loeve_process(base, 1000, clock="variance")
    v = base.sigmas**2
    close(process.mode_table.T @ process.mode_table, torch.minimum(v[:, None], v[None, :]), 2e-4)
    close(process.noise_table.square().sum(0), torch.ones(1000), 1e-12)


# --- Drawing ---------------------------------------------------------------------------------------------------------

CORRELATIONS = {
    LINEAR: table("""
        1 1 1
        0.708188 0.608188 -0.129725
        0.282803 0.203002  0.050335
        0.233178 0.149063  0.026018
        0.210061 0.134130  0.028176"""),
    COS_100: table("""
        1 1 1
        0.807381 0.639784 0.063079
        0.404659 0.411300 0.150032
        0.354510 0.344604 0.112556
        0.331616 0.326185 0.108168"""),
}


def weights(process: KarhunenLoeveProcess, t: Tensor) -> Tensor:
    """What `path_noise` makes of the unit vectors: epsilon = weights @ path, [B, M, min(K, M)]."""
    rows = min(process.modes, t.shape[1])
    return process.path_noise(torch.eye(rows, dtype=torch.float64).expand(len(t), rows, rows), t)


@pytest.mark.parametrize("schedule", [LINEAR, COS_100])
def test_correlation_between_times(schedule: tuple[str, int]) -> None:
    base = vp_process(*schedule)
    t = torch.tensor([at((0.2, 0.5, 0.8), schedule[1])])
    for modes, expected in zip((1, 2, 4, 16, schedule[1]), CORRELATIONS[schedule], strict=True):
        process = karhunen_loeve_process(base, modes)
        w = weights(process, t)[0]
        covariance = w @ w.T
        close(covariance.diagonal(), torch.ones(3), 1e-9)
        close(covariance[[0, 1, 0], [1, 2, 2]], expected, 2e-6)
        n = process.noise_table[:, t[0]]
        close(covariance, n.T @ n, 1e-9)


@pytest.mark.parametrize("modes", [1, 3, 4, 5, 100])
def test_every_sample_has_its_own_times(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.randint(100, (6, 4), generator=generator(3))
    w = weights(process, t)
    n = process.noise_table.T[t]
    close(w @ w.mT, n @ n.mT, 1e-9)
    if modes <= 4:
        close(w, n, 0.0)


@pytest.mark.parametrize("modes", [2, 16])
def test_law_of_the_drawn_noise(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.tensor([5, 30, 60, 95])
    batch, entries = 40000, 5
    eps = process.draw_path_noise((batch, entries), t.expand(batch, 4), generator(11)).double()
    assert eps.shape == (batch, 4, entries)
    count = batch * entries
    assert bool((eps.mean((0, 2)).abs() < 3.5 / math.sqrt(count)).all())
    assert bool(((eps.square().mean((0, 2)) - 1).abs() < 3.5 * math.sqrt(2 / count)).all())
    n = process.noise_table[:, t]
    expected = n.T @ n
    measured = torch.einsum("bms,bns->mn", eps, eps) / count
    assert bool(((measured - expected).abs() < 3.5 * ((1 + expected**2) / count).sqrt()).all())
    across = torch.einsum("bm,bn->mn", eps[..., 0], eps[..., 1]) / batch
    assert bool((across.abs() < 3.5 / math.sqrt(batch)).all())
    neighbours = torch.einsum("bms,bns->mn", eps[1:], eps[:-1]) / (count - entries)
    assert bool((neighbours.abs() < 3.5 / math.sqrt(count)).all())


@pytest.mark.parametrize("modes", [1, 4, 100])
@pytest.mark.parametrize("shape", [(64, 16, 2), (8, 3, 8, 8)])
def test_one_time_is_the_baseline_bit_for_bit(modes: int, shape: tuple[int, ...]) -> None:
    base = vp_process(*COS_100)
    process = karhunen_loeve_process(base, modes)
    t = torch.randint(100, (shape[0],), generator=generator(4))
    plain = torch.randn(shape, generator=generator(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eps = process.draw_path_noise(shape, t[:, None], generator(5))
    assert torch.equal(eps[:, 0], plain)
    x0 = torch.randn(shape, generator=generator(6))
    assert torch.equal(process.diffuse(x0, eps[:, 0], t), base.diffuse(x0, plain, t))


@pytest.mark.parametrize("modes", [1, 4, 100])
@pytest.mark.parametrize("clock", CLOCKS)
def test_one_time_weighs_its_path_by_one(modes: int, clock: str) -> None:
    """What the short way leaves out: at one time the weight of every timestep rounds to 1."""
    process = karhunen_loeve_process(vp_process(*COS_100), modes, clock=clock)
    t = torch.randint(100, (16, 1), generator=generator(16))
    variance = process.noise_table.T[t].square().sum(-1)
    assert torch.equal(variance.sqrt().float(), torch.ones(16, 1))
    if modes == 1:
        assert bool((process.noise_table > 0.0).all())
    path = torch.randn((16, 1, 3, 2), generator=generator(17), dtype=torch.float64)
    assert torch.equal(process.path_noise(path, t), path)
    twice = process.path_noise(torch.cat([path, torch.zeros_like(path)], 1)[:, : min(modes, 2)], t.expand(16, 2))
    close(twice[:, :1], path, 1e-9)


def test_one_mode_is_one_noise_for_all_times() -> None:
    process = karhunen_loeve_process(vp_process(*LINEAR), 1)
    assert torch.equal(process.noise_table.float(), torch.ones(1, 1000))
    eps = process.draw_path_noise((8, 3), torch.randint(1000, (8, 5), generator=generator(7)), generator(8))
    assert torch.equal(eps, torch.randn((8, 1, 3), generator=generator(8)).expand(8, 5, 3))


@pytest.mark.parametrize("modes", [2, 8])
def test_the_shape_of_the_data_does_not_matter(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.randint(100, (4, 3), generator=generator(9))
    image = process.draw_path_noise((4, 2, 4, 4), t, generator(10))
    actions = process.draw_path_noise((4, 16, 2), t, generator(10))
    assert torch.equal(image.reshape(4, 3, 16, 2), actions)
    assert process.draw_path_noise((4, 6), t, generator(10), torch.float64).dtype == torch.float64


@pytest.mark.parametrize("modes", [2, 8, 100])
def test_one_time_drawn_twice_gets_the_same_noise(modes: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), modes)
    t = torch.tensor([[50, 50, 50, 50, 50], [0, 99, 0, 99, 0], [3, 3, 4, 4, 99], [0, 1, 2, 3, 4]])
    eps = process.draw_path_noise((4, 50), t, generator(12))
    assert bool(eps.isfinite().all())
    close(eps[0], eps[0, :1].expand(5, 50).double(), 2e-4)
    close(eps[1, 2:], eps[1, :3].double(), 2e-4)
    close(eps[2, [0, 2]], eps[2, [1, 3]].double(), 2e-4)


def test_rows_of_a_path_may_be_permuted() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 8)
    t, order = torch.randint(100, (6, 3), generator=generator(13)), torch.randperm(6, generator=generator(14))
    path = torch.randn((6, 3, 4), generator=generator(15))
    assert torch.equal(process.path_noise(path[order], t[order]), process.path_noise(path, t)[order])
    assert torch.equal(process.path_noise(path, t), process.draw_path_noise((6, 4), t, generator(15)))


# --- The loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marginal", ["matched", "vp_equivalent", "raw"])
def test_regression_on_coefficients_and_on_epsilon_have_one_gradient(marginal: str) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, marginal)
    t = torch.randint(100, (5, 4), generator=generator(17))
    z = torch.randn((5, 4, 3), generator=generator(18), dtype=torch.float64)
    eps = process.path_noise(z, t)
    guess = torch.randn((5, 4, 3), generator=generator(19)).double().requires_grad_()
    n = process.noise_table.T[t]
    on_coefficients = (z[:, None] - n[..., None] * guess[:, :, None]).square().sum()
    on_epsilon = (eps - guess).square().sum()
    (first,), (second,) = (torch.autograd.grad(loss, guess) for loss in (on_coefficients, on_epsilon))
    close(first, second, 1e-12)


def best_slopes(process: KarhunenLoeveProcess, t: Tensor, metric: Tensor) -> Tensor:
    """d that minimises E[r^T metric r], r_i = eps_i - d_i x_i, for clean data N(0, 1) shared by all times."""
    n, alpha, sigma = process.noise_table[:, t], process.alphas[t], process.sigmas[t]
    noise = n.T @ n
    second_moment = torch.outer(sigma, sigma) * noise + torch.outer(alpha, alpha)
    return torch.linalg.solve(metric * second_moment, (metric @ noise).diagonal() * sigma)


@pytest.mark.parametrize(
    ("schedule", "expected"), [(COS_100, "2.218 1.380 1.085 1.002"), (LINEAR, "1.326 1.017 0.997 0.997")]
)
def test_only_the_plain_loss_keeps_the_right_minimiser(schedule: tuple[str, int], expected: str) -> None:
    process = karhunen_loeve_process(vp_process(*schedule), 4)
    t = torch.tensor([int(f * schedule[1]) - 1 for f in (0.125, 0.375, 0.625, 0.875)])
    right = process.sigmas[t]  # E[eps | x] = sigma x, since alpha^2 + sigma^2 = 1
    close(best_slopes(process, t, torch.eye(4, dtype=torch.float64)), right, 1e-12)
    n = process.noise_table[:, t]
    close(best_slopes(process, t, torch.linalg.inv(n.T @ n)) / right, table(expected)[0], 1e-3)


def test_regression_on_drawn_paths_finds_the_conditional_mean() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4)
    batch, t = 100000, torch.tensor([10, 40, 60, 85])
    x0 = torch.randn((batch, 1), generator=generator(20))
    eps = process.draw_path_noise((batch, 1), t.expand(batch, 4), generator(21))
    x = process.diffuse(x0.repeat_interleave(4, 0), eps.flatten(0, 1), t.repeat(batch)).view(batch, 4)
    slope = (x * eps[..., 0]).mean(0) / x.square().mean(0)
    close(slope, process.sigmas[t], 3.5 / math.sqrt(batch))


# --- Sampling --------------------------------------------------------------------------------------------------------

MEAN, STD = 0.3, 0.5


def exact_epsilon(process: DiscreteProcess) -> Callable[[Tensor, Tensor], Tensor]:
    """E[epsilon | x_t] for data N(MEAN, STD^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alphas[t].view(-1, 1), process.sigmas[t].view(-1, 1)
        return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    return denoise


def sampled_law(network: DiscreteProcess, sampler: DiscreteProcess, start: float) -> tuple[float, float]:
    """Mean and std of all-step DDIM from N(0, start^2): the map of an exact Gaussian network is affine."""
    x = torch.tensor([[0.0], [start]], dtype=torch.float64)
    grid = Grid.of(range(sampler.timesteps - 1, -1, -1))
    at_zero, at_one = ddim(Predictor(exact_epsilon(network), clip=None), x, sampler, grid).flatten().tolist()
    return at_zero, abs(at_one - at_zero)


@pytest.mark.parametrize(
    ("schedule", "mean", "std", "wrong_std", "matched"),
    [(LINEAR, 0.297, 0.498, 0.164, (0.298, 0.498)), (COS_100, 0.296, 0.491, 58.0, (0.298, 0.491))],
)
def test_ddim_recovers_a_gaussian(
    schedule: tuple[str, int], mean: float, std: float, wrong_std: float, matched: tuple[float, float]
) -> None:
    base = vp_process(*schedule)
    raw = karhunen_loeve_process(base, 4, "raw")
    equivalent = karhunen_loeve_process(base, 4, "vp_equivalent")
    same = karhunen_loeve_process(base, 4)
    assert sampled_law(raw, raw, starting(raw)) == pytest.approx((mean, std), abs=3e-3)
    assert sampled_law(same, same, starting(same)) == pytest.approx(matched, abs=3e-3)
    assert sampled_law(equivalent, equivalent, starting(equivalent)) == pytest.approx((MEAN, STD), abs=0.02)
    # A network of the raw process must not be run with the baseline's table.
    assert sampled_law(raw, base, 1.0)[1] == pytest.approx(wrong_std, rel=0.01)


def test_raw_is_the_equivalent_sampler_rescaled() -> None:
    base = vp_process(*COS_100)
    raw, equivalent = (karhunen_loeve_process(base, 4, m) for m in ("raw", "vp_equivalent"))
    x = torch.randn((64, 1), generator=generator(22)).double()
    grid = timestep_grid(100, 10, "trailing")
    scale = (raw.alphas[-1] ** 2 + raw.sigmas[-1] ** 2).sqrt()
    close(
        ddim(Predictor(exact_epsilon(raw), clip=None), scale * x, raw, grid),
        ddim(Predictor(exact_epsilon(equivalent), clip=None), x, equivalent, grid),
        1e-12,
    )


@pytest.mark.parametrize("steps", [10, 100])
def test_diffusers_samples_the_same_from_trained_betas(steps: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, "vp_equivalent")
    scheduler: Any = DDIMScheduler(num_train_timesteps=100, trained_betas=process.betas.numpy(), clip_sample=False)
    scheduler.set_timesteps(steps)
    start = torch.randn((256, 1), generator=generator(23)).double()
    denoise = exact_epsilon(process)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, torch.full((len(x),), int(t))), t, x).prev_sample
    ours = ddim(Predictor(denoise, clip=None), start, process, timestep_grid(100, steps, "leading"))
    close(x, ours, 1e-4)
