"""The modes of the noise and the tables of a process, against numbers written out and the continuous limit."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from support.karhunen_loeve import (
    COS_100,
    COS_1000,
    LINEAR,
    SCHEDULES,
    SMALL_BETAS,
    at,
    close,
    process_of,
    starting,
    table,
)
from support.tensors import generator
from torch import Tensor

from policy_accel.diffusion import vp_process
from policy_accel.diffusion.karhunen_loeve import (
    KarhunenLoeveProcess,
    brownian_modes,
    karhunen_loeve_process,
    mode_table,
    white_noise_modes,
)

TENTHS = [i / 10 for i in range(1, 11)]


def kept(mode_coefficients: Tensor) -> Tensor:
    """s_K for every K at once: row K - 1."""
    return mode_coefficients.square().cumsum(0).sqrt()


@functools.cache
def full(schedule: tuple[str, int]) -> KarhunenLoeveProcess:
    """All T modes; its first K rows are the process of K modes."""
    return karhunen_loeve_process(vp_process(*schedule), schedule[1])


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
