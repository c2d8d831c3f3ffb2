"""Truncated Karhunen-Loeve forward process: one noise path per sample, built from K modes, for several times at once.

The idea is that of Ren et al. 2025 (arXiv 2503.17657): the Brownian motion that drives the forward process is cut
after K terms of its Karhunen-Loeve series, so that all randomness sits in K Gaussian coefficients Z_k. What follows is
derived from the paper's abstract, not taken from its equations, and must not be called the paper's loss. At one time
the path noise is a unit Gaussian, so the ordinary epsilon loss keeps its minimiser E[epsilon | x_t] and any sampler
stays valid; only times of one sample that share a path are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.errors import check_choice

MARGINALS = ("matched", "vp_equivalent", "raw")
CLOCKS = ("time", "variance")
# Rows of a path covariance may coincide (one time drawn twice), then it is singular; float64 needs no more than this.
COVARIANCE_JITTER = 1e-10


def white_noise_modes(timesteps: int, modes: int) -> Tensor:
    """Orthonormal increments of the Karhunen-Loeve modes of a random walk of T `timesteps`, [modes, T] float64.

    U[k, j] = 2 / sqrt(2T + 1) cos((2k - 1) pi (j - 1/2) / (2T + 1)), k and j from 1: the right singular vectors of the
    cumulative sum (textbook; the discrete counterpart of sqrt(2) cos((k - 1/2) pi t)).
    """
    k = torch.arange(1, modes + 1, dtype=torch.float64)
    j = torch.arange(1, timesteps + 1, dtype=torch.float64)
    length = 2 * timesteps + 1
    return 2.0 / math.sqrt(length) * torch.cos(torch.outer(2.0 * k - 1.0, j - 0.5) * (math.pi / length))


def mode_table(betas: Tensor, modes: int) -> Tensor:
    """Coefficient c_k(i) of Z_k in x_i for a chain with `betas` [T] in (0, 1), [modes, T] float64 on the CPU.

    Column i follows from c <- sqrt(1 - beta_i) c + sqrt(beta_i) U[:, i] (derived: the chain x_i = sqrt(1 - beta_i)
    x_{i-1} + sqrt(beta_i) w_i with its white noise w cut after K modes). modes = T gives the covariance of the chain of
    Ho et al. 2020 exactly.
    """
    betas = betas.detach().to("cpu", torch.float64)
    increments = betas.sqrt() * white_noise_modes(len(betas), modes)
    decay = (1.0 - betas).sqrt()
    table = torch.empty_like(increments)
    c = torch.zeros(modes, dtype=torch.float64)
    for i in range(len(betas)):
        c = decay[i] * c + increments[:, i]
        table[:, i] = c
    return table


def brownian_modes(v: Tensor, modes: int) -> Tensor:
    """phi_k(v) = sqrt(2) sin((k - 1/2) pi v) / ((k - 1/2) pi) for v [T] in [0, 1], [modes, T] float64.

    The Karhunen-Loeve basis of Brownian motion on [0, 1]: sum_k phi_k(s) phi_k(t) = min(s, t).
    """
    frequency = (torch.arange(1, modes + 1, dtype=torch.float64, device=v.device) - 0.5) * math.pi
    return math.sqrt(2.0) * torch.sin(torch.outer(frequency, v.double())) / frequency[:, None]


@dataclass(frozen=True, kw_only=True)
class KarhunenLoeveProcess(DiscreteProcess):
    """A discrete process whose noise at several times of one sample comes from one path of K modes.

    mode_table [K, T]: c_k(t), coefficient of Z_k before any rescaling. noise_table [K, T]: its columns at unit norm, so
    that epsilon(t) = sum_k noise_table[k, t] Z_k is N(0, 1) at every t. alphas and sigmas are those of `marginal`.
    """

    mode_table: Tensor
    noise_table: Tensor
    marginal: str = "matched"

    @property
    def modes(self) -> int:
        """Number of Karhunen-Loeve modes K."""
        return self.mode_table.shape[0]

    @property
    def betas(self) -> Tensor:
        """Betas [T] float64 of this process, for `trained_betas` of the diffusers schedulers.

        Raises:
            ValueError: for the raw marginal, which no variance-preserving table describes.
        """
        if self.marginal == "raw":
            raise ValueError(
                "marginal=raw has no betas, because alpha^2 + sigma^2 is not 1; use vp_equivalent, the same paths "
                "rescaled."
            )
        return _betas(self.alphas)

    def path_noise(self, path: Tensor, t: Tensor) -> Tensor:
        """epsilon [B, M, *S] at times t [B, M] int64 of paths [B, min(K, M), *S] of independent N(0, 1).

        With K <= M the rows of a path are Z_1 .. Z_K. With K > M they are M Gaussians that the Cholesky factor of the
        M x M covariance turns into a draw from the same distribution. With M = 1 every variance is 1, and the one
        Gaussian of the path is returned unchanged.
        """
        if t.shape[1] == 1:
            return path
        weights = self.noise_table[:, t].movedim(0, -1)
        count = t.shape[1]
        if self.modes > count:
            jitter = COVARIANCE_JITTER * torch.eye(count, dtype=weights.dtype, device=weights.device)
            weights = torch.linalg.cholesky_ex(weights @ weights.mT + jitter).L
        weights = weights.to(path.dtype).reshape(*weights.shape, *([1] * (path.ndim - 2)))
        # A sum of products, not einsum: no TF32 and no autocast may round the noise, and one mode is exact.
        noise = weights[:, :, 0] * path[:, None, 0]
        for k in range(1, path.shape[1]):
            noise = torch.addcmul(noise, weights[:, :, k], path[:, None, k])
        return noise

    def draw_path_noise(
        self,
        shape: Sequence[int],
        t: Tensor,
        generator: torch.Generator | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw one path per sample of `shape` (B, *S) and return its noise at times t [B, M] int64, [B, M, *S].

        Each entry is N(0, 1); the M times of a sample have covariance n n^T, n = noise_table[:, t]. With M = 1 the
        result equals `torch.randn((B, *S))` of the same generator bit for bit. Rows are independent, so a noise
        assignment may permute them: a whole path goes with its row.
        """
        batch, *rest = shape
        size = (batch, min(self.modes, t.shape[1]), *rest)
        path = torch.randn(size, generator=generator, device=self.noise_table.device, dtype=dtype)
        return self.path_noise(path, t)


def karhunen_loeve_process(
    base: DiscreteProcess, modes: int, marginal: str = "matched", clock: str = "time"
) -> KarhunenLoeveProcess:
    """Truncate the noise of a variance-preserving `base` after `modes` Karhunen-Loeve modes. Derived, see the module.

    With s(t) = sqrt(sum_k c_k(t)^2), the standard deviation that the K modes keep:
    `matched`: alpha and sigma of the base; only the joint distribution over times differs. Samplers need no change.
    `vp_equivalent`: alpha_bar = alpha^2 / (alpha^2 + s^2), the truncated path rescaled to unit variance.
    `raw`: alpha and s as they are; a sampler must start from N(0, s^2) (`samplers.start_scale`).
    `clock`: the Brownian motion runs in the timestep (the increments of the chain) or, `variance`, in
    v = 1 - alpha_bar, where c_k = phi_k(v) and the covariance tends to min(v_s, v_t). The base's input scales are kept.

    Raises:
        ValueError: modes outside 1..T, an unknown marginal or clock, a base that is not variance preserving with
            falling alphas, or a truncated signal-to-noise ratio that does not fall at every step.
    """
    timesteps = base.timesteps
    if isinstance(modes, bool) or not isinstance(modes, int) or not 1 <= modes <= timesteps:
        raise ValueError(f"modes={modes!r} must be an integer from 1 to timesteps={timesteps}, a mode for each.")
    check_choice("marginal", marginal, MARGINALS)
    check_choice("clock", clock, CLOCKS)
    alphas, sigmas = base.alphas.detach().to("cpu", torch.float64), base.sigmas.detach().to("cpu", torch.float64)
    betas = _betas(alphas)
    preserving = bool(((alphas**2 + sigmas**2 - 1.0).abs() <= 1e-6).all())
    if not preserving or not bool(((betas > 0.0) & (betas <= 1.0)).all()):
        raise ValueError(
            "base: it must be a variance-preserving process (alpha^2 + sigma^2 = 1) whose alpha falls at every "
            "timestep and stays above 0 before the last."
        )
    table = mode_table(betas, modes) if clock == "time" else brownian_modes(1.0 - alphas**2, modes)
    # Never zero: the first mode adds a positive amount at every timestep.
    scale = table.square().sum(0).sqrt()
    if marginal != "matched":
        alpha_bar = alphas**2 / (alphas**2 + scale**2)
        rising = (alpha_bar.diff() >= 0.0).nonzero()
        if len(rising):
            raise ValueError(
                f"marginal={marginal} with modes={modes} needs a signal-to-noise ratio that falls at every timestep, "
                f"but it does not at {int(rising[0]) + 1}; use matched."
            )
        vp = marginal == "vp_equivalent"
        alphas, sigmas = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()) if vp else (alphas, scale)
    process = KarhunenLoeveProcess(
        alphas, sigmas, base.input_scales.cpu(), mode_table=table, noise_table=table / scale, marginal=marginal
    )
    return process.to(base.alphas.device)


def _betas(alphas: Tensor) -> Tensor:
    """beta_i = 1 - (alpha_i / alpha_{i-1})^2 with alpha = 1 before the first, [T] float64."""
    squared = alphas.double() ** 2
    return 1.0 - squared / torch.cat([squared.new_ones(1), squared[:-1]])
