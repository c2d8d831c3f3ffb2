"""Fast Diffusion Model (FDM; Wu et al. 2023, arXiv 2306.06991): the critically damped kernel s = (1 + m B) exp(-m B).

The mean of heavy-ball descent with critical damping solves x'' + 2 b x' + b^2 x = 0 with x(0) = 1, x'(0) = 0, whose
solution is s(b t). For a rate b that varies, b t is replaced by its integral, the clock B: the same oscillator in the
warped time B. Both the signal and the noise are multiplied by s, so the signal-to-noise ratio is that of the base
process; the authors' released code therefore keeps the unscaled state everywhere and multiplies only the network's
input by s. So does this module, for discrete processes (`momentum_process`) and for continuous ones
(`momentum_input_scale`, used by `continuous.SigmaProcess`). Formulas and constants follow the released code; the forms
for discrete schedules are derived from them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import check_choice

BETA_MIN = 0.1
BETA_RANGE = 19.9
VP_EPSILON = 1e-5
CAP_START, CAP_END = 5.0, 500.0
KINDS = ("natural", "sigma", "schedule", "one")


def momentum_clock(position: Tensor) -> Tensor:
    """B = integral of beta_min + beta_range t from 0 to `position`; any shape, position 1 is the noisy end."""
    return BETA_MIN * position + 0.5 * BETA_RANGE * position.square()


def vp_sigma(t: Tensor) -> Tensor:
    """Noise-to-signal ratio sqrt(exp(B(t)) - 1) of the continuous variance-preserving process (Song et al. 2021b)."""
    return torch.expm1(momentum_clock(t)).sqrt()


def _vp_sigma_range() -> tuple[float, float]:
    low, high = vp_sigma(torch.tensor([VP_EPSILON, 1.0], dtype=torch.float64)).tolist()
    return low, high


# (sigma_min, sigma_max): Karras et al. 2022, table 1, and the ends of its VP and VE columns.
SIGMA_RANGES: dict[str, tuple[float, float]] = {"edm": (0.002, 80.0), "vp": _vp_sigma_range(), "ve": (0.02, 100.0)}


def check_multiplier(multiplier: float, argument: str = "multiplier") -> float:
    """Return `multiplier` when it is a number from 0 up, else raise ValueError that names the `argument`."""
    if not 0.0 <= multiplier < math.inf:
        raise ValueError(f"{argument}={multiplier} must be finite and at least 0 (the papers take 1 and 2).")
    return multiplier


def momentum_scale(clock: Tensor, multiplier: float = 1.0) -> Tensor:
    """s = (1 + m B) exp(-m B) of a clock B (any shape): 1 at B = 0, falling as 1 - (m B)^2 / 2."""
    u = multiplier * clock
    return torch.exp(-u) * (1.0 + u)


def momentum_complement(clock: Tensor, multiplier: float = 1.0) -> Tensor:
    """1 - s^2 without the cancellation at small B."""
    u = multiplier * clock
    return -torch.expm1(2.0 * (torch.log1p(u) - u))


def momentum_input_scale(sigma: Tensor, *, family: str = "edm", multiplier: float) -> Tensor:
    """c_in of the released preconditioners: s at the clock position (sigma - sigma_min) / (sigma_max - sigma_min).

    The clock is linear in sigma for every family, also for vp. Sigmas beyond the range are not clamped, as in the
    released code. `ve` ignores the multiplier (always 1), as there.

    Args:
        sigma: noise-to-signal ratios, float64, any shape.
        family: edm, vp or ve; fixes sigma_min and sigma_max.
        multiplier: m. The released recipes use 1 for FFHQ and 2 otherwise.

    Raises:
        ValueError: unknown family or a negative multiplier.
    """
    low, high = SIGMA_RANGES[check_choice("family", family, SIGMA_RANGES)]
    m = 1.0 if family == "ve" else check_multiplier(multiplier)
    return momentum_scale(momentum_clock((sigma - low) / (high - low)), m)


def momentum_process(base: DiscreteProcess, kind: str = "natural", strength: float = 1.0) -> DiscreteProcess:
    """A discrete variance-preserving process with momentum; with L = -ln alpha_bar and sh = sigma / alpha:

    - `natural`: the clock is L, so the network's input is multiplied by (1 + m L) exp(-m L) / sqrt(alpha_bar), which
      for m = 1 is exp(-L / 2)(1 + L): 0.15 to 1.21 on the squared-cosine schedule (0.008 at its last time).
      `strength` is m; it multiplies L in the kernel only, the division by sqrt(alpha_bar) is not changed.
    - `sigma`: the released definition taken literally: clock position (sh - sh_0) / (sh_last - sh_0), input multiplied
      by s / alpha; `strength` is m. Beware: with the squared-cosine schedule the cap on beta makes sh jump from 64 to
      2029 at the last time, so s is practically 1 before it and the network is fed inputs of root mean square 4 to
      64 from t = 84 of 100 on, which trains worse. It is here for comparison.
    - `schedule`: ours, not FDM: s becomes the noise schedule, alpha = (1 + u) exp(-u), sigma = sqrt(1 - alpha^2),
      u = c L, which does change the signal-to-noise ratio. `strength` is c. Returns a plain process with input scale 1.
    - `one`: control: the unscaled state x / alpha goes to the network. Takes no strength.

    All but `schedule` keep alpha and sigma, and so leave an exact denoiser's samples as they were.

    Raises:
        ValueError: unknown kind, a strength out of range, a base that is not variance preserving, or `sigma` with a
            single time.
    """
    check_choice("kind", kind, KINDS)
    check_multiplier(strength, "strength")
    if bool(((base.alphas.square() + base.sigmas.square() - 1.0).abs() > 1e-6).any()):
        raise ValueError("base: it must be a variance-preserving process (alpha^2 + sigma^2 = 1).")
    log_decay = -2.0 * base.alphas.log()
    if kind == "natural":
        return replace(base, input_scales=momentum_scale(log_decay, strength) / base.alphas)
    if kind == "sigma":
        if base.timesteps < 2:
            raise ValueError("kind=sigma needs a base of at least 2 timesteps, not 1.")
        ratio = base.sigmas / base.alphas
        position = (ratio - ratio[0]) / (ratio[-1] - ratio[0])
        return replace(base, input_scales=momentum_scale(momentum_clock(position), strength) / base.alphas)
    if kind == "schedule":
        if strength == 0.0:
            raise ValueError("strength=0 leaves no noise with kind=schedule; choose 1, for instance.")
        variance = momentum_complement(log_decay, strength)
        return DiscreteProcess(alphas=momentum_scale(log_decay, strength), sigmas=variance.sqrt())
    if strength != 1.0:
        raise ValueError(f"strength={strength} does nothing with kind=one; leave it at 1.")
    return replace(base, input_scales=1.0 / base.alphas)


def weight_cap(step: int, warmup: float) -> float | None:
    """FDM's cap on the loss weight (of the error of the clean sample) at an update: 5 (500 / 5)^(step / warmup).

    None from `warmup` on: the cap is then gone for good. Keyed to the global step, unlike the released code, whose
    counter also advances at every micro-batch and starts again on resuming.
    """
    return CAP_START * (CAP_END / CAP_START) ** (step / warmup) if step < warmup else None
