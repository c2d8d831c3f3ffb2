from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from support.tensors import generator, normal
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from policy_accel.acceleration.nearest_noise import nearest_noise

# k: mean and variance of the largest of k standard normals.
LARGEST = {2: (0.5642, 0.6817), 4: (1.0294, 0.4917), 8: (1.4236, 0.3729), 16: (1.7660, 0.2950), 64: (2.3437, 0.2035)}
DIVERGENCE = {2: 0.1931, 4: 0.6363, 8: 1.2044, 16: 1.8351, 64: 3.1745}
# (metric, k): mean n^2, x.n / D and relative drop of the mean distance in percent for N(0, I) data at each D.
MOMENTS = {
    ("l2", 2): {32: (0.918, 0.081, 6.2), 112: (0.957, 0.043, 3.2), 3072: (0.992, 0.0084, 0.62)},
    ("l2", 4): {32: (0.867, 0.147, 11.1), 112: (0.924, 0.079, 5.9), 3072: (0.985, 0.0152, 1.13)},
    ("l2", 8): {32: (0.827, 0.200, 15.3), 112: (0.900, 0.109, 8.3), 3072: (0.979, 0.0208, 1.56)},
    ("l2", 16): {32: (0.801, 0.247, 19.0), 112: (0.880, 0.134, 10.2), 3072: (0.975, 0.0261, 1.94)},
    ("l2", 64): {32: (0.767, 0.323, 24.9), 112: (0.850, 0.177, 13.4), 3072: (0.967, 0.0349, 2.65)},
    ("dot", 4): {32: (1.017, 0.182, 9.0), 112: (1.004, 0.097, 4.8), 3072: (1.000, 0.0185, 0.92)},
    ("dot", 8): {32: (1.046, 0.250, 12.0), 112: (1.013, 0.134, 6.6), 3072: (1.000, 0.0258, 1.30)},
}
TABLE_ERROR = 0.002  # of the tabulated simulation, besides its printed digits


def mean_and_error(values: Tensor) -> tuple[float, float]:
    values = values.double()
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def assert_mean(values: Tensor, expected: float, slack: float = 0.0) -> None:
    mean, error = mean_and_error(values)
    assert abs(mean - expected) < 3 * error + slack, (mean, expected, error)


def drawn(rows: int, dimension: int, k: int, metric: str, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """N(0, scale^2 I) data and its noise."""
    data = scale * normal(rows, dimension, seed=1000 + seed)
    return data, nearest_noise(data, candidates=k, metric=metric, generator=generator(seed)).noise


def along(data: Tensor, noise: Tensor) -> Tensor:
    return (data * noise).sum(1) / data.norm(dim=1)


@pytest.mark.parametrize(("k", "mean", "variance"), [(k, *moments) for k, moments in LARGEST.items()])
def test_dot_keeps_the_largest_of_k_normals_along_the_sample(k: int, mean: float, variance: float) -> None:
    def moment(power: int) -> float:
        def integrand(z: float) -> float:
            return z**power * k * float(stats.norm.cdf(z)) ** (k - 1) * float(stats.norm.pdf(z))

        return float(integrate.quad(integrand, -12, 12)[0])

    assert moment(1) == pytest.approx(mean, abs=6e-5)
    assert moment(2) - moment(1) ** 2 == pytest.approx(variance, abs=6e-5)

    dimension = 8
    data, noise = drawn(40_000, dimension, k, "dot")
    aligned = along(data, noise)
    assert_mean(aligned, mean, 5e-5)
    assert_mean((aligned - mean).square(), variance, 5e-5)
    rest = noise - aligned[:, None] * data / data.norm(dim=1, keepdim=True)
    assert_mean(rest.square().sum(1), dimension - 1)
    assert_mean(noise.square().mean(1), 1 + (mean**2 + variance - 1) / dimension, 1e-4)
    # One direction across the sample, in the plane of the first two coordinates; the sample's other coordinates do not
    # touch it.
    swapped = torch.stack([data[:, 1], -data[:, 0]], dim=1) / data[:, :2].norm(dim=1, keepdim=True)
    assert stats.kstest((swapped * noise[:, :2]).sum(1).numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize(("k", "divergence"), DIVERGENCE.items())
@pytest.mark.parametrize(("metric", "dimension"), [("dot", 3), ("l2", 2), ("l2", 32)])
def test_the_divergence_from_the_normal_is_exact(metric: str, dimension: int, k: int, divergence: float) -> None:
    assert math.log(k) - 1 + 1 / k == pytest.approx(divergence, abs=5.1e-5)
    data, noise = (v.double() for v in drawn(8_000, dimension, k, metric, scale=0.7))
    if metric == "dot":
        beaten = stats.norm.cdf(along(data, noise).numpy())
    else:
        square = (data - noise).square().sum(1).numpy()
        beaten = stats.ncx2.sf(square, dimension, data.square().sum(1).numpy())
    assert_mean(torch.from_numpy(math.log(k) + (k - 1) * np.log(beaten)), divergence, 5e-5)
    # The chance that a fresh noise loses to the kept one is the largest of k uniforms.
    assert stats.kstest(beaten**k, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("k", "printed"), [(2, 0.05), (4, 0.29), (8, 0.53), (16, 0.71), (64, 0.90)])
def test_test_noise_that_training_hardly_sees(k: int, printed: float) -> None:
    share = (0.1 / k) ** (1 / (k - 1))
    assert share == pytest.approx(printed, abs=5e-3)
    data, noise = drawn(20_000, 4, k, "dot")
    rare = torch.special.ndtr(along(data, noise)) < share
    assert_mean(rare, share**k, 1e-9)


@pytest.mark.parametrize("dimension", [32, 112, 3072])
@pytest.mark.parametrize(("metric", "k"), MOMENTS)
def test_moments(metric: str, k: int, dimension: int) -> None:
    square, alignment, drop = MOMENTS[metric, k][dimension]
    rows = {32: 8000, 112: 4000, 3072: 256}[dimension] if k < 64 else {32: 4000, 112: 1200, 3072: 96}[dimension]
    data, noise = drawn(rows, dimension, k, metric, seed=k)
    digits = 5e-5 if dimension == 3072 else 5e-4
    assert_mean(noise.square().mean(1), square, 5e-4 + TABLE_ERROR)
    assert_mean((data * noise).mean(1), alignment, digits + TABLE_ERROR * 32 / dimension)
    independent = 2 * math.exp(math.lgamma((dimension + 1) / 2) - math.lgamma(dimension / 2))
    slack = (5e-3 if dimension == 3072 else 5e-2) + 100 * TABLE_ERROR * math.sqrt(32 / dimension) / 2
    assert_mean(100 * (1 - (data - noise).norm(dim=1) / independent), drop, slack)
    if metric == "l2":
        # First order in 1 / sqrt(D): the terms left out are of order m^2 / D.
        mean = LARGEST[k][0]
        rest = 2 * mean**2 / dimension
        assert_mean(noise.square().mean(1), 1 - 2 * mean / math.sqrt(6 * dimension), rest)
        assert_mean(along(data, noise), 2 * mean / math.sqrt(6), rest * math.sqrt(dimension))
    assert_mean(noise.mean(1), 0.0)


@pytest.mark.parametrize(("scale", "square", "share"), [(0.3, 0.70, 0.52), (4.0, 0.98, 1.40)])
def test_l2_prefers_short_noise_when_the_data_is_small(scale: float, square: float, share: float) -> None:
    data, noise = drawn(8000, 32, 8, "l2", scale)
    assert_mean(noise.square().mean(1), square, 5e-3)
    assert_mean(along(data, noise), share, 1e-2)


def test_data_off_centre_shifts_the_noise() -> None:
    dimension, k, offset = 512, 4, 0.5
    data = torch.full((1500, dimension), offset)
    noise = nearest_noise(data, candidates=k, metric="l2", generator=generator()).noise
    norm = offset**2 * dimension
    assert_mean(noise.mean(1), offset * 2 * LARGEST[k][0] / math.sqrt(2 * dimension + 4 * norm), 5e-4)


def test_two_candidates_by_dot_keep_the_marginal_of_symmetric_data() -> None:
    direction = torch.tensor([3.0, -4.0, 0.0])
    data = direction * (2 * torch.randint(2, (40_000, 1), generator=generator(3)) - 1)
    noise = nearest_noise(data, candidates=2, metric="dot", generator=generator()).noise
    assert_mean(along(data, noise), LARGEST[2][0])
    for axis in (direction / 5, torch.tensor([0.8, 0.6, 0.0]), torch.tensor([0.0, 0.0, 1.0])):
        assert stats.kstest((noise @ axis).numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("shape", [(64, 16, 2), (5, 3, 8, 8), (1, 7), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_candidate_is_the_independent_draw(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    data = normal(*shape, seed=2).to(dtype)
    ours, theirs = generator(9), generator(9)
    noise = nearest_noise(data, candidates=1, metric="l2", generator=ours).noise
    assert torch.equal(noise, torch.randn(shape, generator=theirs, dtype=dtype))
    assert torch.equal(ours.get_state(), theirs.get_state())


def literal(data: Tensor, k: int, metric: str, seed: int, mask: Tensor | None = None) -> Tensor:
    """The published algorithm: draw k whole noises for every sample, keep one."""
    candidates = normal(data.shape[0], k, *data.shape[1:], seed=seed, dtype=data.dtype)
    counted = torch.ones_like(data) if mask is None else mask.expand(data.shape).to(data.dtype)
    x, z = data.unsqueeze(1), candidates
    cost = ((x - z) ** 2 if metric == "l2" else -x * z) * counted.unsqueeze(1)
    return candidates[torch.arange(len(data)), cost.flatten(2).sum(-1).argmin(1)]


def assert_same_law(ours: Tensor, theirs: Tensor, label: str) -> None:
    """Two samples [N] of one quantity: same mean and mean square within 3.5 errors, same distribution."""
    ours, theirs = ours.round(decimals=5), theirs.round(decimals=5)  # what rounding leaves of an exact zero
    for power in (1, 2):
        mean, error = mean_and_error(ours.double() ** power)
        other, other_error = mean_and_error(theirs.double() ** power)
        assert abs(mean - other) <= 3.5 * math.hypot(error, other_error), (label, power, mean, other)
    assert stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 5e-3, label


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("masked", ["", "one mask", "a mask for each sample"])
@pytest.mark.parametrize(("shape", "k"), [((12000, 4, 2), 3), ((5000, 2, 4, 4), 8), ((20000, 2), 5), ((20000, 1), 4)])
def test_the_law_is_that_of_the_literal_draw(shape: tuple[int, ...], k: int, masked: str, metric: str) -> None:
    data = 0.8 * normal(*shape, seed=20) + 0.3
    mask = None
    if masked:
        rows = 1 if masked == "one mask" else shape[0]
        mask = torch.rand((rows, *shape[1:]), generator=generator(21)) < 0.6
        mask[:, ..., 0] = True
    ours = nearest_noise(data, candidates=k, metric=metric, generator=generator(22), mask=mask).noise
    theirs = literal(data, k, metric, 23, mask)
    assert ours.shape == shape
    counted = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    counted, x = counted.flatten(1), data.flatten(1) * counted.flatten(1)
    ours, theirs = ours.flatten(1), theirs.flatten(1)
    direction = x / x.norm(dim=1, keepdim=True)

    def across(noise: Tensor) -> Tensor:
        inside = noise * counted
        return (inside - (inside * direction).sum(1, keepdim=True) * direction).norm(dim=1)

    fixed = normal(1, x.shape[1], seed=24)
    for label, quantity in {
        "along": lambda n: (n * direction).sum(1),
        "across": across,
        "length": lambda n: (n * counted).norm(dim=1),
        "length of all": lambda n: n.norm(dim=1),
        "distance": lambda n: (x - n * counted).norm(dim=1),
        "one way": lambda n: (n * fixed).sum(1),
        "first entry": lambda n: n[:, 0],
        "two entries": lambda n: n[:, 0] * n[:, -1],
    }.items():
        assert_same_law(quantity(ours), quantity(theirs), label)
    free = ours[~counted]
    if len(free):
        assert stats.kstest(free.numpy(), "norm").pvalue > 5e-3
        assert abs(float((ours * ~counted).sum(1) @ (ours * direction).sum(1))) < 4 * len(free) ** 0.5 * k**0.5


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_the_noise_of_one_sample_has_the_literal_covariance(metric: str) -> None:
    data = torch.tensor([0.5, -1.0, 0.0, 2.0]).expand(60_000, 4)
    ours = nearest_noise(data, candidates=6, metric=metric, generator=generator(30)).noise.double()
    theirs = literal(data, 6, metric, 31).double()
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 4 * math.sqrt(2 / 60_000)
    assert (torch.cov(ours.T) - torch.cov(theirs.T)).abs().max() < 4 * math.sqrt(4 / 60_000)


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("dimension", [1, 2, 32])
def test_every_candidate_is_kept_alike_often(dimension: int, metric: str) -> None:
    # The first comes from the noise itself, the others are drawn as pairs.
    for data in (normal(12_000, dimension, seed=40), torch.zeros(12_000, dimension)):
        found = nearest_noise(data, candidates=5, metric=metric, generator=generator(41)).candidate
        if metric == "l2" or bool(data.any()):
            assert stats.chisquare(found.bincount(minlength=5).numpy()).pvalue > 5e-3
        else:
            assert not found.any()


def test_rows_that_keep_the_first_candidate_keep_the_plain_draw() -> None:
    data, plain = normal(64, 5, 3), normal(64, 5, 3, seed=7)
    for metric in ("l2", "dot"):
        found = nearest_noise(data, candidates=3, metric=metric, generator=generator(7))
        same = (found.noise == plain).flatten(1).all(1)
        assert torch.equal(same, found.candidate == 0)
        assert 0 < int(same.sum()) < 64


def test_entries_that_do_not_count_keep_the_plain_draw() -> None:
    data, plain = normal(64, 5, 3), normal(64, 5, 3, seed=7)
    mask = torch.rand(64, 5, 3, generator=generator(8)) < 0.5
    for metric in ("l2", "dot"):
        noise = nearest_noise(data, candidates=3, metric=metric, generator=generator(7), mask=mask).noise
        assert torch.equal(noise[~mask], plain[~mask])
        assert not torch.equal(noise[mask], plain[mask])


def test_a_sample_of_zeros_has_no_direction() -> None:
    data = torch.zeros(20_000, 6)
    noise = nearest_noise(data, candidates=4, metric="dot", generator=generator(50)).noise
    assert torch.equal(noise, normal(20_000, 6, seed=50))
    noise = nearest_noise(data, candidates=4, metric="l2", generator=generator(50)).noise
    shortest = noise.square().sum(1).numpy()
    assert stats.kstest(stats.chi2.sf(shortest, 6) ** 4, "uniform").pvalue > 0.01
    for entry in (noise[:, 0], noise[:, 5]):
        assert_mean(entry, 0.0)
        assert_mean(entry.square(), float(shortest.mean()) / 6)
    mixed = torch.cat([torch.zeros(3, 6), normal(3, 6), torch.full((2, 6), 1e-30), torch.full((2, 6), 1e12)])
    for metric in ("l2", "dot"):
        assert nearest_noise(mixed, candidates=4, metric=metric, generator=generator()).noise.isfinite().all()


def test_one_entry_keeps_the_nearest_number() -> None:
    data = normal(20_000, 1, seed=60, dtype=torch.float64)
    noise = nearest_noise(data, candidates=4, metric="l2", generator=generator(61)).noise
    nearer = stats.ncx2.sf((data - noise).square().squeeze(1).numpy(), 1, data.square().squeeze(1).numpy())
    assert stats.kstest(nearer**4, "uniform").pvalue > 0.01
    noise = nearest_noise(data, candidates=4, metric="dot", generator=generator(61)).noise
    assert stats.kstest(stats.norm.cdf((noise * data.sign()).squeeze(1).numpy()) ** 4, "uniform").pvalue > 0.01


class Watch(TorchDispatchMode):
    """The largest tensor made, and the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.names = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.untyped_storage().nbytes())
        self.names.add(func.__name__.split(".")[0])
        return made


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_many_candidates_take_no_more_memory_than_one_and_never_wait(metric: str) -> None:
    data, mask = normal(64, 3, 32, 32), torch.arange(32) < 30
    for counted in (None, mask):
        with Watch() as watch:
            nearest_noise(data, candidates=64, metric=metric, generator=generator(), mask=counted)
        assert watch.largest == 4 * data.numel()
        assert "randn" in watch.names
        assert not watch.names & {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_flattening_changes_nothing(metric: str) -> None:
    data = normal(32, 16, 2)
    shaped = nearest_noise(data, candidates=4, metric=metric, generator=generator(1))
    flat = nearest_noise(data.flatten(1), candidates=4, metric=metric, generator=generator(1))
    assert torch.equal(shaped.noise.flatten(1), flat.noise)
    assert torch.equal(shaped.candidate, flat.candidate)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_the_first_is_kept_where_nothing_counts(metric: str) -> None:
    uncounted = torch.zeros(8, dtype=torch.bool)
    nothing = nearest_noise(normal(16, 8), candidates=5, metric=metric, generator=generator(), mask=uncounted)
    assert nothing.candidate.tolist() == [0] * 16


def test_masked_entries_may_hold_anything() -> None:
    data, mask = normal(16, 8), torch.arange(8) < 5
    dirty = data.masked_fill(~mask, math.nan)
    for metric in ("l2", "dot"):
        clean = nearest_noise(data, candidates=4, metric=metric, generator=generator(), mask=mask)
        assert torch.equal(
            nearest_noise(dirty, candidates=4, metric=metric, generator=generator(), mask=mask).noise, clean.noise
        )


@pytest.mark.parametrize("candidates", [0, -2, 1.5, 4.0, True, "4"])
def test_impossible_counts(candidates: object) -> None:
    with pytest.raises(ValueError, match=r"^candidates="):
        nearest_noise(normal(4, 2), candidates=candidates, generator=generator())  # type: ignore[arg-type]


def test_bad_input_is_named() -> None:
    data = normal(4, 6)
    with pytest.raises(ValueError, match=r"^metric 'dott' is unknown; did you mean 'dot'"):
        nearest_noise(data, candidates=2, metric="dott", generator=generator())
    with pytest.raises(ValueError, match=r"^mask: torch\.bool of shape \[4\]"):
        nearest_noise(data, candidates=2, generator=generator(), mask=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^mask: torch\.float32"):
        nearest_noise(data, candidates=2, generator=generator(), mask=torch.ones(6))
