"""Weights of the squared error by time, as float64 tables [T]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policy_accel.errors import check_choice


def min_snr(log_snr: Tensor, target: str, *, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) on the error of x_0, and what equals it for the other targets of a variance-preserving process.

    epsilon (either sign): min(SNR, gamma) / SNR. v: min(SNR, gamma) / (SNR + 1). sample: min(SNR, gamma).
    Hang et al. 2023 (arXiv 2303.09556), as in its code.

    Raises:
        ValueError: another target.
    """
    snr = log_snr.double().exp()
    capped = snr.clamp(max=gamma)
    if target in ("epsilon", "negative_epsilon"):
        return (gamma / snr).clamp(max=1.0)
    if target == "v":
        return capped / (snr + 1.0)
    if target == "sample":
        return capped
    raise ValueError(f"target={target} has no min_snr weight; choose epsilon, v or sample, or another weight.")


def p2(log_snr: Tensor, target: str, *, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """1 / (k + SNR)^gamma on the error of whatever is predicted: Choi et al. 2022 (arXiv 2204.00227).

    Published for epsilon. Its code multiplies the error of any target by the same number, and so does this.
    """
    return (k + log_snr.double().exp()).pow(-gamma)


def speed(log_snr: Tensor, target: str, *, lam: float = 0.6, tau: float = 0.7) -> Tensor:
    """Heavier where the noise grows faster: Wang et al. 2024, SpeeD (arXiv 2405.17403), as in its code.

    (1 - lam) + (2 lam - 1) r_t below tau T, with the slope of 1 - alpha_bar scaled to r_t in [0, 1] over all times; 1
    from tau T on. On the error of whatever is predicted; published for epsilon.

    Raises:
        ValueError: fewer than 3 times, of which the slope is everywhere the same.
    """
    if len(log_snr) < 3:
        raise ValueError(f"log_snr: slopes to compare need at least 3 times, not {len(log_snr)}.")
    slope = torch.gradient(torch.sigmoid(-log_snr.double()))[0]
    relative = (slope - slope.min()) / (slope.max() - slope.min())
    late = torch.arange(len(slope), device=slope.device) >= round(tau * len(slope))
    return torch.where(late, 1.0, (1.0 - lam) + (2.0 * lam - 1.0) * relative)


WEIGHTS: dict[str, Callable[[Tensor, str], Tensor]] = {"min_snr": min_snr, "p2": p2, "speed": speed}


def loss_weights(weight: str, log_snr: Tensor, target: str) -> Tensor | None:
    """Weight of each time on the squared error of `target`, [T] float64 on log_snr's device; None for "none".

    Args:
        weight: none, min_snr, p2 or speed.
        log_snr: log(alpha_t^2 / sigma_t^2) of a variance-preserving process, [T], decreasing.
        target: what the network predicts (epsilon, v, sample).

    Raises:
        ValueError: unknown weight, or a target that the weight is not defined for.
    """
    check_choice("weight", weight, ("none", *WEIGHTS))
    return None if weight == "none" else WEIGHTS[weight](log_snr, target)
