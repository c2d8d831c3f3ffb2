"""Averages of any length after training, from the averages that a run's checkpoints hold (Karras et al. 2024, 3.2).

An average is a weighted mean of the model's weights over training, and a sum of such averages is another one. So the
profile that is asked for is fitted, in the sense of least squares, by the profiles of the stored averages, and the
same coefficients give its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.parsing import from_json
from policy_accel.run_files import checkpoint_steps
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.ema import average_name, check_length, profile_exponent

WORST_FIT = 0.1
"""Largest relative error of a fitted profile that is accepted; one between two stored lengths is near 0.01."""


def inner_products(
    times: np.ndarray, exponents: np.ndarray, other_times: np.ndarray, other_exponents: np.ndarray
) -> np.ndarray:
    """Integrals of products of profiles, float64 [A, B].

    The profile of an average with exponent g that was stored at time T is (g + 1) t**g / T**(g + 1) on [0, T] and 0
    after it. With the earlier time T_1 and the later one T_2 (and g_2 its exponent) the integral is
    (g_1 + 1) (g_2 + 1) / (g_1 + g_2 + 1) * (T_1 / T_2)**g_2 / T_2 (Karras et al. 2024, appendix C).

    Args:
        times, exponents: [A] of the first profiles.
        other_times, other_exponents: [B] of the second ones.
    """
    a, b = np.asarray(times, np.float64)[:, None], np.asarray(other_times, np.float64)[None, :]
    g, h = np.asarray(exponents, np.float64)[:, None], np.asarray(other_exponents, np.float64)[None, :]
    of_later = np.where(a < b, h, g)
    later, earlier = np.maximum(a, b), np.minimum(a, b)
    return (g + 1) * (h + 1) / (g + h + 1) * (earlier / later) ** of_later / later


@dataclass(frozen=True)
class Fit:
    """Coefficients [N] float64 of the stored averages, and the relative error of the profile that they make: the norm
    of its difference from the one asked for, over the norm of that one.
    """

    coefficients: np.ndarray
    residual: float


def solve_coefficients(
    times: np.ndarray | list[float], lengths: np.ndarray | list[float], target_time: float, target_length: float
) -> Fit:
    """Least-squares fit of a profile by stored ones, with coefficients that sum to 1.

    The paper leaves the sum free, because its networks normalise their weights; here the average of weights that stand
    still must be those weights. Profiles that nearly coincide make the equations singular to rounding; directions that
    only rounding resolves are left out, so that the coefficients stay small.

    Args:
        times: [N] updates after which the averages were stored, positive.
        lengths: [N] their relative standard deviations.
        target_time: updates of the run at which the average asked for ends.
        target_length: its relative standard deviation.
    """
    # Times as shares of the target: the profiles then have norms near 1.
    at = np.asarray(times, np.float64) / target_time
    exponents = np.array([profile_exponent(length) for length in lengths])
    one, exponent = np.ones(1), np.array([profile_exponent(target_length)])
    gram = inner_products(at, exponents, at, exponents)
    against = inner_products(at, exponents, one, exponent)[:, 0]
    whole = float(inner_products(one, exponent, one, exponent)[0, 0])
    scale = 1 / np.sqrt(np.diag(gram))
    sides = np.stack([against * scale, scale], axis=1)
    free, ones = (np.linalg.lstsq(gram * scale[:, None] * scale, sides, rcond=1e-13)[0] * scale[:, None]).T
    coefficients = free + ones * (1 - free.sum()) / ones.sum()
    squared = whole - 2 * coefficients @ against + coefficients @ gram @ coefficients
    return Fit(coefficients, float(np.sqrt(max(0.0, squared) / whole)))


def stored_averages(run_dir: Path) -> list[tuple[int, float]]:
    """Step and length of every average with a profile that the checkpoints of a run hold, by step."""
    found = []
    for step in checkpoint_steps(run_dir / "checkpoints"):
        try:
            state = from_json((run_dir / "checkpoints" / f"{step:08d}" / "state.json").read_bytes())
            names = [name.removesuffix(".safetensors") for name in state["files"] if name.startswith("ema_")]
            lengths = [float(name.removeprefix("ema_")) for name in sorted(names)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged checkpoint gives nothing
        found += [(step, length) for length in lengths]
    return found


def synthesize(run_dir: Path, length: float, step: int) -> dict[str, Tensor]:
    """Weights of the average with relative standard deviation `length`, as if the run had kept it.

    Args:
        run_dir: of a run with training.ema.lengths, and checkpoints of several steps.
        length: wanted.
        step: where the average ends, one at which averages are stored.

    Returns:
        The state of a model, float32 tensors by name (buffers, which are not averaged, are those of the last
        checkpoint).

    Raises:
        UserError: no stored averages, another length than can be, or one that those stored cannot make.
    """
    check_length("the length of the average", length)
    stored = stored_averages(run_dir)
    if not stored:
        raise UserError(
            f"{run_dir} holds no averages to make others from; train with training.ema.lengths=[0.05,0.1] and "
            "training.checkpoint.keep_every."
        )
    steps = sorted({at for at, _ in stored})
    if step not in steps:
        raise UserError(f"{run_dir} holds no averages of step {step}; there are those of the steps {steps}.")
    stored = [(at, profile) for at, profile in stored if at <= step]
    fit = solve_coefficients([at for at, _ in stored], [profile for _, profile in stored], step, length)
    if fit.residual > WORST_FIT:
        raise UserError(
            f"The average of length {length} cannot be made from the {len(stored)} stored in {run_dir} (lengths "
            f"{sorted({profile for _, profile in stored})}, error {fit.residual:.2f} of its profile); keep more "
            "checkpoints (training.checkpoint.keep_every), or ask for a length between the stored ones."
        )
    return _combine(run_dir, stored, fit.coefficients)


def _combine(run_dir: Path, stored: list[tuple[int, float]], coefficients: np.ndarray) -> dict[str, Tensor]:
    """Sum of the stored averages, in float64.

    Where the last average equals the live model it is a copy and no average (buffers, frozen weights), and is kept.
    """
    folder = run_dir / "checkpoints"
    name = average_name(stored[-1][1])
    last = load_checkpoint(folder / f"{stored[-1][0]:08d}", (name, "model")).tensors
    moving = [key for key, value in last[name].items() if not torch.equal(value, last["model"][key])]
    total = {key: torch.zeros(last[name][key].shape, dtype=torch.float64) for key in moving}
    for (at, profile), coefficient in zip(stored, coefficients, strict=True):
        name_at = average_name(profile)
        average = load_checkpoint(folder / f"{at:08d}", (name_at,)).tensors[name_at]
        for key in moving:
            total[key] += float(coefficient) * average[key].double()
    return {key: total[key].to(value.dtype) if key in total else value for key, value in last[name].items()}
