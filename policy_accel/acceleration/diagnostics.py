"""What a choice of noise does to the training problem, measured on tensors; for anyone's loop, not for every step.

Functions return Python numbers or small float64 tensors and wait for the device. Their cost grows with the square of
the rows, so give a few thousand. Masked or known entries are to be left out by the caller: give only the columns that
count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from policy_accel.diffusion.processes import Level
from policy_accel.errors import check_choice

LEAK_ROWS = 4096
LEAK_SHUFFLES = 8
LEAK_COMPONENTS = 8
LEAK_NEIGHBOURHOOD = 0.25  # of the median distance of two conditions
USEFUL_LOG_SNR = (-6.0, 9.0)  # signal at 5 % of the noise; noise at 1 % of the signal
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Leak:
    """How well the condition is predicted from the noise of its sample.

    Attributes:
        score: share of the condition's variance that is predicted (squared correlation, with the sign of the
            correlation).
        permuted: the mean score of shuffled conditions: chance at this number of rows, of the order 1/N.
        local: alignment of the noise with the neighbourhoods of the condition, 0 for independent noise and at most 1.
            What the whole condition does not show, a neighbourhood may.
        p_value: probability of a dependence at least as strong, of either kind, if noise and condition are
            independent.
    """

    score: float
    permuted: float
    local: float
    p_value: float


@torch.no_grad()
def condition_leak(conditions: Tensor, noise: Tensor, seed: int, *, rows: int = LEAK_ROWS) -> Leak:
    """Predict the condition of a sample from the noise it received; independent noise gives chance (the probe of C2OT,
    arXiv 2503.10636, with another predictor).

    conditions: vectors [N, *C] (labels one-hot), of which the 8 leading principal components of the standardised
        columns are looked at: the components themselves, and neighbourhoods in them, a Gaussian kernel of a quarter of
        the median distance. noise [N, *S].
    rows: a random subset of at most this many, chosen by `seed`.

    The prediction for a row is sum_j k(n_i, n_j) y_j over all other rows j: the regression on white features, left one
    out, without a solver and for any dimension. Two kernels: n_i.n_j finds noise whose mean depends on the condition
    (assignment, nearest noise); its centred square finds noise whose second moments do while its mean does not (a
    choice between x and -x, a change of norm). The test is that of their covariance with kernels of the condition
    (Gretton et al. 2007, a kernel statistical test of independence): moments over all permutations of the rows, gamma
    approximation, the smallest p-value times the number of pairs of kernels.

    Raises:
        ValueError: different numbers of conditions and noises, fewer than 3 rows, conditions that are all equal.
    """
    if len(conditions) != len(noise) or len(noise) < 3:
        raise ValueError(
            f"conditions: there are {len(conditions)}, and noises {len(noise)}; give as many of each, 3 or more."
        )
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(len(noise), generator=generator)[:rows].to(noise.device)
    flat = _rows(noise[picked]).float()
    encoded = _components(_rows(conditions.to(noise.device)[picked]), LEAK_COMPONENTS)
    y = (encoded - encoded.mean(0)).float()
    centred = flat - flat.mean(0)
    product = centred @ centred.T / flat.shape[1] ** 0.5
    kernels = [_Kernel.of(_centred(product.square())), _Kernel.of(product)]
    whole, near = _Kernel.of(y @ y.T), _Kernel.of(_neighbourhoods(y))

    def score(y: Tensor) -> float:
        return max(_explained(kernel.rest @ y, y) for kernel in kernels)

    p_values = [kernel.p_value(of_condition) for of_condition in (whole, near) for kernel in kernels]
    local = max(kernel.alignment(near) for kernel in kernels)
    shuffles = (torch.randperm(len(y), generator=generator).to(y.device) for _ in range(LEAK_SHUFFLES))
    permuted = sum(score(y[order]) for order in shuffles) / LEAK_SHUFFLES
    return Leak(score(y), permuted, local, min(1.0, len(p_values) * min(p_values)))


@dataclass(frozen=True)
class _Kernel:
    """A centred kernel [N, N]: its trace, what is off its diagonal, and the sum of the squares of that."""

    trace: float
    rest: Tensor
    square_sum: float

    @staticmethod
    def of(kernel: Tensor) -> _Kernel:
        """Take `kernel` apart; its diagonal is set to 0."""
        trace = float(kernel.diagonal().double().sum())
        rest = kernel.fill_diagonal_(0.0)
        return _Kernel(trace, rest, _sum(rest.square()))

    def covariance(self, other: _Kernel) -> float:
        return _sum(self.rest * other.rest)

    def alignment(self, other: _Kernel) -> float:
        """Centred kernel alignment (Cortes et al. 2012) off the diagonal."""
        return self.covariance(other) / math.sqrt(self.square_sum * other.square_sum)

    def p_value(self, other: _Kernel) -> float:
        """Of the covariance, over the permutations of the rows of `other`."""
        pairs = len(self.rest) * (len(self.rest) - 1)
        # The gamma distribution is that of the sum with the diagonal, put back as its mean: itself it only adds noise.
        diagonal = self.trace * other.trace / len(self.rest)
        mean = diagonal + self.trace * other.trace / pairs
        variance = 2.0 * self.square_sum * other.square_sum / pairs
        return float(stats.gamma.sf(self.covariance(other) + diagonal, mean**2 / variance, scale=variance / mean))


def _sum(kernel: Tensor) -> float:
    """Of all entries, in float64 from row to row, which takes less than half the time of float64 throughout."""
    return float(kernel.sum(1).sum(dtype=torch.float64))


def _centred(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()


def _neighbourhoods(points: Tensor) -> Tensor:
    distance = torch.cdist(points, points)
    width = LEAK_NEIGHBOURHOOD * distance[:_QUERIES_AT_ONCE, :].median().clamp(min=1e-12)
    return _centred((-0.5 * (distance / width).square()).exp())


def _explained(prediction: Tensor, y: Tensor) -> float:
    product = (prediction * y).sum()
    return float(product * product.abs() / (prediction.square().sum() * y.square().sum()).clamp(min=1e-30))


def _components(conditions: Tensor, most: int) -> Tensor:
    deviation, mean = torch.std_mean(conditions, dim=0, correction=0)
    varying = deviation > 1e-6
    if not varying.any():
        raise ValueError("conditions: all are equal, so nothing can leak; give some that differ.")
    standard = ((conditions - mean) / deviation)[:, varying]
    directions: Tensor = torch.linalg.eigh(standard.T @ standard).eigenvectors
    return standard @ directions.flip(1)[:, :most]


@dataclass(frozen=True)
class NoiseShrink:
    """mean_square: E[n^2], 1 for N(0, I). divergence: KL from N(0, I) of the Gaussian that has the noise's mean and
    variance in each entry, in nats, all entries together."""

    mean_square: float
    divergence: float


@torch.no_grad()
def noise_shrink(noise: Tensor) -> NoiseShrink:
    """How far noise [N, *S], taken over all samples together, is from N(0, I).

    Assignments only permute and leave it there; keeping the nearest of k noises shortens it and moves its mean where
    the data's is not 0. The estimate of the divergence is freed of its bias D / N (derived, for noise near N(0, I));
    its standard error there is about sqrt(D) / N. It sees means and variances of entries, not what depends on the
    condition.

    Raises:
        ValueError: fewer than 2 rows.
    """
    if len(noise) < 2:
        raise ValueError(f"noise: the number of rows is {len(noise)}; give 2 or more.")
    flat = _rows(noise)
    variance, mean = torch.var_mean(flat, dim=0)
    divergence = 0.5 * (variance + mean.square() - 1.0 - variance.log()).sum() - flat.shape[1] / len(flat)
    return NoiseShrink(float(flat.square().mean(0).mean()), float(divergence))


def transport_distance(data: Tensor, noise: Tensor) -> float:
    """Mean L2 distance of samples [N, *S] from their noise [N, *S]: what an assignment lowers."""
    return float(torch.linalg.vector_norm(_rows(data) - _rows(noise), dim=1).mean())


@torch.no_grad()
def miscibility(data: Tensor, noise: Tensor, levels: Sequence[Level]) -> Tensor:
    """At which noise levels the paths of different samples meet: [L] float64, 1 where they are apart, 1/N where they
    have met.

    Each sample is noised with its own row, x = alpha x_i + sigma n_i, and the posterior over which of the N samples x
    came from is taken as if noise were independent, p(j | x) ~ exp(-||x - alpha x_j||^2 / 2 sigma^2): the weights of
    the denoiser of the empirical distribution. The mean posterior of the sample itself is returned; a choice of noise
    that keeps paths apart raises it.

    data, noise [N, *S]; levels: `process.level(t)` of any process.

    Raises:
        ValueError: data and noise of different shapes, or a level without noise.
    """
    own = [
        torch.cat([posterior[:, rows].diagonal() for rows, posterior, _ in _posteriors(data, noise, level)]).mean()
        for level in levels
    ]
    return torch.stack(own).cpu()


@torch.no_grad()
def target_variance(data: Tensor, noise: Tensor, levels: Sequence[Level], target: str) -> Tensor:
    """The loss that no network can go below, by noise level: E Var(target | x_t) per entry, [L] float64.

    Exact, but for the draw of `noise`, for the empirical distribution of data [N, *S] under independent noise, of which
    noise [N, *S] is to be a draw: Var(x_0 | x_t) = sum_j w_j ||x_j||^2 - ||sum_j w_j x_j||^2 with the posterior weights
    of `miscibility`. All targets are linear in x_0 given x_t, so their variances are multiples of it. The gradient of
    one example at the optimum varies in proportion: levels with a high floor are the ones that make gradients noisy.
    The data's true distribution, being smoother, has a higher floor at low noise; a network that is given a condition
    has a lower one.

    target: epsilon, negative_epsilon, sample, v, flow or edm.

    Raises:
        ValueError: unknown target, data and noise of different shapes, or a level without noise.
    """
    floors = []
    for level in levels:
        factor = _sample_coefficient(target, level) ** 2
        variances = []
        for _, posterior, x in _posteriors(data, noise, level):
            variances.append((posterior @ x.square().sum(1) - (posterior @ x).square().sum(1)).clamp(min=0.0))
        floors.append(factor * torch.cat(variances).mean() / data[0].numel())
    return torch.stack(floors).cpu()


def _sample_coefficient(target: str, level: Level) -> float:
    """The factor of x_0 in the target once x_t is given."""
    alpha, sigma = level.alpha, level.sigma
    factors = {
        "sample": 1.0,
        "epsilon": -alpha / sigma,
        "negative_epsilon": alpha / sigma,
        "v": -(alpha**2 + sigma**2) / sigma,
        "flow": -(alpha + sigma) / sigma,
        "edm": math.sqrt(sigma**2 + level.sigma_data**2) / (sigma * level.sigma_data),
    }
    return factors[check_choice("target", target, factors)]


def _posteriors(data: Tensor, noise: Tensor, level: Level) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pieces of (rows [Q], posterior [Q, N] over the samples they may stem from, centred samples [N, D])."""
    if data.shape != noise.shape:
        raise ValueError(f"data: {list(data.shape)} and noise {list(noise.shape)} must have the same shape.")
    if not level.sigma > 0.0:
        raise ValueError(f"levels: that of time {level.time} holds no noise; give noised ones.")
    x = _rows(data)
    x = x - x.mean(0)
    noised = level.alpha * x + level.sigma * _rows(noise)
    square = 0.5 * level.alpha * x.square().sum(1)
    for index in torch.split(torch.arange(len(x), device=x.device), _QUERIES_AT_ONCE):
        logits = (noised[index] @ x.T - square) * (level.alpha / level.sigma**2)
        yield index, logits.softmax(1), x


@dataclass(frozen=True)
class SnrCoverage:
    """quantiles: log-SNR at the shares `QUANTILES` of training. terminal_snr: alpha / sigma at the noisiest time, the
    part of the signal left where sampling starts from pure noise. below, above: shares outside the useful range."""

    quantiles: tuple[float, ...]
    terminal_snr: float
    below: float
    above: float


def snr_coverage(log_snr: Tensor, probabilities: Tensor | None = None) -> SnrCoverage:
    """Which noise levels a training run visits.

    log_snr [K]: log(alpha^2 / sigma^2) of a process' times (`process.log_snr`), or of times drawn in training.
    probabilities [K]: how often each is trained on, None for equally often. Below the useful range the signal is under
    5 % of the noise, above it the noise under 1 % of the signal (for data of unit scale; ours).

    Raises:
        ValueError: probabilities of another length, negative, or all zero.
    """
    values = log_snr.double().flatten().cpu()
    weights = torch.ones_like(values) if probabilities is None else probabilities.double().flatten().cpu()
    if weights.shape != values.shape or bool((weights < 0).any()) or not bool(weights.sum() > 0):
        raise ValueError(
            f"probabilities: the shape is {list(weights.shape)}; give {len(values)} numbers of at least 0, not all 0."
        )
    weights = weights / weights.sum()
    ordered, order = values.sort()
    reached = weights[order].cumsum(0)
    at = torch.searchsorted(reached, torch.tensor(QUANTILES, dtype=torch.float64) - 1e-12).clamp(max=len(values) - 1)
    visited = values[weights > 0]
    return SnrCoverage(
        tuple(ordered[at].tolist()),
        float((0.5 * visited.min()).exp()),
        float(weights[values < USEFUL_LOG_SNR[0]].sum()),
        float(weights[values > USEFUL_LOG_SNR[1]].sum()),
    )


def _rows(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).double()
