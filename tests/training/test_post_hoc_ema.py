from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ema_pytorch.post_hoc_ema import p_dot_p, solve_weights
from scipy.integrate import quad

from policy_accel.errors import UserError
from policy_accel.run_files import checkpoint_steps
from policy_accel.training import TrainingConfig
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.ema import profile_exponent
from policy_accel.training.post_hoc_ema import inner_products, solve_coefficients, stored_averages, synthesize

Run = Callable[..., Any]
SNAPSHOTS = np.repeat(np.arange(1, 17) / 16, 2) * 800
LENGTHS = np.tile([0.05, 0.1], 16)


def profile(time: float, exponent: float) -> Callable[[float], float]:
    return lambda t: (exponent + 1) * t**exponent / time ** (exponent + 1) if t <= time else 0.0


def test_inner_products_equal_numerical_integrals() -> None:
    times, exponents = np.array([3.0, 3.0, 7.0, 10.0]), np.array([0.0, 16.97, 6.94, 2.5])
    ours = inner_products(times, exponents, times, exponents)
    for i in range(4):
        for j in range(4):
            first, second = profile(times[i], exponents[i]), profile(times[j], exponents[j])
            end = min(times[i], times[j])
            expected, _ = quad(lambda t, a=first, b=second: a(t) * b(t), 0, end, epsabs=1e-12, epsrel=1e-12)
            assert ours[i, j] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("length", [0.04, 0.05, 0.07, 0.15, 0.2])
def test_coefficients_equal_ema_pytorchs_with_their_sum_held_at_one(length: float) -> None:
    gammas = torch.tensor([profile_exponent(value) for value in LENGTHS], dtype=torch.float64)
    times, end = torch.tensor(SNAPSHOTS), torch.tensor([800.0], dtype=torch.float64)
    target = torch.tensor([profile_exponent(length)], dtype=torch.float64)
    free = solve_weights(times, gammas, end, target)[:, 0].numpy()
    gram = p_dot_p(times[:, None], gammas[:, None], times[None], gammas[None]).numpy()
    ones = np.linalg.solve(gram, np.ones(32))
    expected = free + ones * (1 - free.sum()) / ones.sum()
    fit = solve_coefficients(SNAPSHOTS, LENGTHS, 800, length)
    np.testing.assert_allclose(fit.coefficients, expected, atol=1e-6)
    assert fit.coefficients.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("length", "bound"), [(0.07, 0.005), (0.05, 1e-6), (0.15, 0.01), (0.2, 0.03)])
def test_the_fitted_profile_is_the_one_asked_for(length: float, bound: float) -> None:
    fit = solve_coefficients(SNAPSHOTS, LENGTHS, 800, length)
    grid = (np.arange(80_000) + 0.5) / 100
    wanted = np.array(profile_on(grid, 800, length))
    made = sum(
        coefficient * profile_on(grid, time, stored)
        for coefficient, time, stored in zip(fit.coefficients, SNAPSHOTS, LENGTHS, strict=True)
    )
    error = np.linalg.norm(made - wanted) / np.linalg.norm(wanted)
    assert error == pytest.approx(fit.residual, rel=0.02, abs=2e-4)
    assert error < bound


def profile_on(grid: np.ndarray, time: float, length: float) -> np.ndarray:
    gamma = profile_exponent(length)
    return np.where(grid <= time, (gamma + 1) / time * (np.minimum(grid, time) / time) ** gamma, 0.0)


def test_a_length_far_from_the_stored_ones_has_a_large_residual() -> None:
    assert solve_coefficients([100.0, 100.0], [0.05, 0.1], 100, 0.25).residual > 0.5
    assert solve_coefficients(SNAPSHOTS, LENGTHS, 800, 0.01).residual > 0.3


def test_snapshots_that_coincide_share_their_coefficient() -> None:
    fit = solve_coefficients([100.0, 100.0], [0.1, 0.1], 100, 0.1)
    np.testing.assert_allclose(fit.coefficients, [0.5, 0.5], atol=1e-9)


@pytest.fixture
def trained(toy_task: Any, config: TrainingConfig, run: Run, tmp_path: Path) -> Path:
    """64 updates with averages of three lengths, and a run that keeps two of them in sixteen checkpoints."""
    config.steps, config.validate_every, config.logging.every = 64, 0, 64
    config.optimizer.lr, config.checkpoint.every = 0.03, 0
    config.ema.lengths = [0.07, 0.05, 0.1]
    run(toy_task(), config, "kept")
    config.checkpoint.every = config.checkpoint.keep_every = 4
    config.ema.lengths = [0.05, 0.1]
    run(toy_task(), config, "stored")
    return tmp_path


def test_synthesis_gives_the_average_that_the_run_would_have_kept(trained: Path) -> None:
    made = synthesize(trained / "stored", 0.07, 64)
    kept = load_checkpoint(trained / "kept" / "checkpoints" / "last").tensors
    assert made.keys() == kept["ema_0.07"].keys()
    for key, value in kept["ema_0.07"].items():
        assert made[key].dtype == value.dtype
        if not key.endswith(("weight", "bias")):
            assert torch.equal(made[key], value)
            continue
        apart = (kept["ema_0.05"][key] - kept["ema_0.1"][key]).norm()
        assert (made[key] - value).norm() < 0.03 * apart


def test_synthesis_of_an_earlier_step(trained: Path) -> None:
    made = synthesize(trained / "stored", 0.05, 40)
    stored = load_checkpoint(trained / "stored" / "checkpoints" / "00000040").tensors["ema_0.05"]
    torch.testing.assert_close(made["layers.0.weight"], stored["layers.0.weight"])
    between = synthesize(trained / "stored", 0.07, 40)
    for later in checkpoint_steps(trained / "stored" / "checkpoints"):
        if later > 40:
            shutil.rmtree(trained / "stored" / "checkpoints" / f"{later:08d}")
    again = synthesize(trained / "stored", 0.07, 40)
    assert all(torch.equal(between[key], again[key]) for key in again), "what came later takes no part"
    assert stored_averages(trained / "stored")[:3] == [(4, 0.05), (4, 0.1), (8, 0.05)]


def test_what_cannot_be_made_is_one_sentence(trained: Path, toy_task: Any, config: TrainingConfig, run: Run) -> None:
    with pytest.raises(UserError, match=r"length 0\.25 cannot be made from the 3 stored.*error 0\.\d\d of its profile"):
        synthesize(trained / "kept", 0.25, 64)
    with pytest.raises(UserError, match=r"the length of the average=0\.5 is not"):
        synthesize(trained / "stored", 0.5, 64)
    with pytest.raises(UserError, match=r"no averages of step 41; there are those of the steps \[4, 8"):
        synthesize(trained / "stored", 0.05, 41)
    config.ema.lengths = []
    run(toy_task(), config, "none")
    with pytest.raises(UserError, match=r"holds no averages to make others from; train with training\.ema\.lengths"):
        synthesize(trained / "none", 0.05, 64)
