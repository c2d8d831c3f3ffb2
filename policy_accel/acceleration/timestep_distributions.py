"""Distributions of the timestep: which discrete times a batch is trained on, and the loss weight that goes with them.

Each is a `policy_accel.diffusion.timesteps.TimestepDistribution`. It draws times of a shape (B,), or (B, M) for M times
of each sample, as int64 on the generator's device, where its tables must live (`to`); its `loss_weight` of such times
is float64 or None. A draw has two parts: variates from the generator, then a pure map to times that torch.compile can
take whole. Nothing in either waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policy_accel.diffusion.continuous import LOG_SIGMA_DEVIATION, LOG_SIGMA_MEAN
from policy_accel.diffusion.timesteps import Number, TimestepDistribution

UNIFORM_SHARE = 0.001  # of `LossSecondMoment`
SPEED_RATIO, SPEED_TAU = 5.0, 0.7  # k and tau of SpeeD


def variates(shape: tuple[int, ...], generator: torch.Generator, stratified: bool = False) -> Tensor:
    """Uniform variates in [0, 1], float64 of `shape` (B,) or (B, M), on the generator's device.

    Stratified: each is uniform by itself and one falls into each n-th of [0, 1]: over the batch, in random order, for
    (B,); over the M of each sample, ascending, for (B, M).
    """
    device = generator.device
    u = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
    if not stratified:
        return u
    n = shape[-1]
    stratum = (
        torch.randperm(n, generator=generator, device=device) if len(shape) == 1 else torch.arange(n, device=device)
    )
    return (stratum + u) / n


def cumulative(probabilities: Tensor) -> Tensor:
    """Cumulative distribution of probabilities [T], [T] float64, last entry exactly 1.

    Summed in fixed point, because floating-point cumulative sums on a GPU depend on the order of its threads.
    """
    counts = (probabilities.double() * 2.0**52).round().long().cumsum(0)
    return counts.double() / counts[-1]


def invert(cdf: Tensor, u: Tensor) -> Tensor:
    """First time whose cumulative probability [T] exceeds u: int64 of u's shape."""
    return torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[0] - 1)


@dataclass(frozen=True)
class TableTimes(TimestepDistribution):
    """Any fixed distribution, given by its probabilities [T] (any positive scale).

    Args:
        probabilities: [T], kept normalised in float64.
        stratified: see `variates`.
        mirror: when given, the second half of the batch (of the M times of each sample, for (B, M)) is the first half
            mirrored at this time, as in SpeeD (see `speed_mirror`); of an odd number the first half has one more.

    Raises:
        ValueError: probabilities that are negative, not finite or all 0, or a mirror outside [1, T].
    """

    probabilities: Tensor
    stratified: bool = False
    mirror: int | None = None
    timesteps: int = field(init=False)
    cdf: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        p = self.probabilities.double()
        if p.ndim != 1 or not bool((p >= 0.0).all() & p.isfinite().all() & (p.sum() > 0.0)):
            raise ValueError("probabilities: give one finite number of at least 0 for each time, not all 0.")
        if self.mirror is not None and not 1 <= self.mirror <= len(p):
            raise ValueError(f"mirror={self.mirror} must lie in [1, {len(p)}].")
        p = p / p.sum()
        object.__setattr__(self, "timesteps", len(p))
        object.__setattr__(self, "probabilities", p)
        object.__setattr__(self, "cdf", cumulative(p))

    def mirrored(self, t: Tensor) -> Tensor:
        """m - t below the mirror m, t - m from it on (the distance from m, at most T - 1)."""
        assert self.mirror is not None
        return (t - self.mirror).abs().clamp(max=self.timesteps - 1)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times of `shape`, int64 on the generator's device."""
        if self.mirror is None:
            return invert(self.cdf, variates(shape, generator, self.stratified))
        *rows, n = shape
        t = invert(self.cdf, variates((*rows, (n + 1) // 2), generator, self.stratified))
        return torch.cat([t, self.mirrored(t)[..., : n // 2]], dim=-1)


class LossSecondMoment(TimestepDistribution):
    """Times by how large their loss has lately been: Nichol & Dhariwal 2021 (arXiv 2102.09672), section 3.3.

    p_t is proportional to the root of the mean square of the last `history` losses of t, mixed with a uniform share of
    0.001; uniform until every t has `history` losses. The loss is weighted by 1 / (T p_t): the objective does not
    change. In data-parallel training gather t and losses over the ranks before `update`, or their distributions drift
    apart.

    Args:
        timesteps: number of times T.
        history: losses kept for each time.
        stratified: see `variates`.

    Raises:
        ValueError: a setting out of range.
    """

    timesteps: int
    learns = True

    def __init__(self, timesteps: int, *, history: int = 10, stratified: bool = False) -> None:
        if history < 1:
            raise ValueError(f"history={history} must be at least 1.")
        self.timesteps, self.history, self.stratified = timesteps, history, stratified
        # The last row takes what would be overwritten within one batch, so that shapes stay static.
        self.losses = torch.zeros(timesteps + 1, history, dtype=torch.float64)
        self.counts = torch.zeros(timesteps, dtype=torch.int64)

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the next draw, [T] float64."""
        moment = self.losses[:-1].square().mean(dim=1).sqrt()
        share = moment / moment.sum().clamp(min=torch.finfo(torch.float64).tiny)
        mixed = (1.0 - UNIFORM_SHARE) * share + UNIFORM_SHARE / self.timesteps
        return torch.where((self.counts >= self.history).all(), mixed, 1.0 / self.timesteps)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, progress: Number = 0.0) -> Tensor:
        """Times of `shape`, int64 on the generator's device."""
        return invert(cumulative(self.probabilities), variates(shape, generator, self.stratified))

    def loss_weight(self, t: Tensor, progress: Number = 0.0) -> Tensor:
        """1 / (T p_t), float64 of t's shape. Ask before `update`, which changes the distribution."""
        return 1.0 / (self.timesteps * self.probabilities[t])

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the unweighted losses [B] (or [B, M]) of times t of the same shape, in their order."""
        t, order = t.reshape(-1).sort(stable=True)
        values = losses.detach().reshape(-1)[order].double()
        every = torch.arange(self.timesteps, device=t.device)
        first = torch.searchsorted(t, every)
        number = torch.searchsorted(t, every, right=True) - first
        rank = torch.arange(t.shape[0], device=t.device) - first[t]
        kept = rank >= number[t] - self.history
        row = torch.where(kept, t, self.timesteps)
        self.losses[row, (self.counts[t] + rank) % self.history] = torch.where(kept, values, 0.0)
        self.counts += number

    def state_dict(self) -> dict[str, Tensor]:
        """losses [T, history] float64 and counts [T] int64, for a checkpoint."""
        return {"losses": self.losses[:-1].clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            ValueError: the state of another number of times or length of history.
        """
        if state["losses"].shape != (self.timesteps, self.history):
            raise ValueError(
                f"state: the saved losses have the shape {list(state['losses'].shape)}, not [{self.timesteps}, "
                f"{self.history}], times by history; use the settings of the run that saved them."
            )
        self.losses[:-1].copy_(state["losses"])
        self.counts.copy_(state["counts"])


def logit_normal_probabilities(timesteps: int) -> Tensor:
    """Logit-normal density at (t + 1/2) / T, normalised, [T] float64: Esser et al. 2024 (arXiv 2403.03206), 3.1.

    The middle times come most often. Mean 0 and standard deviation 1, as in the paper's best runs.
    """
    u = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
    return torch.softmax(-0.5 * torch.logit(u).square() - torch.log(u * (1.0 - u)), dim=0)


def edm_probabilities(log_snr: Tensor) -> Tensor:
    """ln(sigma / alpha) ~ N(-1.2, 1.2^2) on the times of a discrete process, [T] float64: Karras et al. 2022
    (arXiv 2206.00364), table 1.

    Each time gets the mass of its cell; cells are cut half-way between neighbours, and the first and last reach to
    infinity (derived).

    Raises:
        ValueError: a process that does not get noisier with t.
    """
    log_sigma = -0.5 * log_snr.double()
    if not bool((log_sigma.diff() >= 0.0).all()):
        raise ValueError("log_snr: it must not rise, so that the process gets noisier with t.")
    edges = torch.special.ndtr((0.5 * (log_sigma[1:] + log_sigma[:-1]) - LOG_SIGMA_MEAN) / LOG_SIGMA_DEVIATION)
    return torch.cat([edges.new_zeros(1), edges, edges.new_ones(1)]).diff()


def speed_probabilities(timesteps: int) -> Tensor:
    """5 times as often below 0.7 T as from there on, normalised, [T] float64: Wang et al. 2024 (arXiv 2405.17403)."""
    weights = torch.ones(timesteps, dtype=torch.float64)
    weights[: round(SPEED_TAU * timesteps)] = SPEED_RATIO
    return weights / weights.sum()


def speed_mirror(alpha_bar: Tensor) -> int:
    """SpeeD's mirror for its paired draws: 1 + the first time at which sqrt(1 - alpha_bar) has all but stopped growing.

    Its code asks for a slope below 1e-4 per step of 1000; here the threshold is scaled to the number of steps (derived:
    unscaled it is never met on short schedules). T when the slope stays above it.

    Raises:
        ValueError: fewer than 2 times.
    """
    timesteps = len(alpha_bar)
    if timesteps < 2:
        raise ValueError("alpha_bar: a slope needs at least 2 times.")
    slope = torch.gradient((1.0 - alpha_bar.double()).sqrt())[0]
    flat = (slope < 1e-4 * 1000 / timesteps).nonzero()
    return 1 + int(flat[0]) if len(flat) else timesteps
