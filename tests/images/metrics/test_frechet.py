from __future__ import annotations

import numpy as np
import pytest
import torch
from support.moments import moments_of
from torch import Tensor, nn

from policy_accel.images.metrics.frechet import Moments, MomentsAccumulator, frechet_distance


def _features(count: int, seed: int, size: int = 24, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, size, generator=generator) @ (mixing + 0.1 * seed * torch.eye(size)) + shift


def test_the_accumulator_gives_numpys_mean_and_covariance_for_any_batches_and_offset() -> None:
    features = _features(501, 1).double() + 1e6
    accumulator = MomentsAccumulator()
    for batch in features.split([1, 0, 17, 400, 83]):
        accumulator.add(batch)
    found = accumulator.moments()
    assert found.count == 501
    np.testing.assert_allclose(found.mean, features.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features.numpy().T), rtol=1e-7, atol=1e-8)


def test_commuting_gaussians_have_the_closed_form() -> None:
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    first, second = torch.linspace(0.1, 3, 6).double(), torch.linspace(2, 0, 6).double()
    a = Moments(100, torch.zeros(6).double(), rotation @ first.diag() @ rotation.T)
    b = Moments(100, torch.full((6,), 2.0).double(), rotation @ second.diag() @ rotation.T)
    expected = 6 * 4.0 + float((first.sqrt() - second.sqrt()).square().sum())
    # One eigenvalue is 0 up to the rounding of the matrix itself, 1e-16, whose root is 1e-8.
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_two_by_two_gaussians_that_do_not_commute_have_the_closed_form() -> None:
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    # tr sqrt(M) of a 2x2 matrix with positive eigenvalues is sqrt(tr M + 2 sqrt(det M)).
    product = a @ b
    root = torch.sqrt(product.trace() + 2 * torch.sqrt(torch.linalg.det(product)))
    expected = float(a.trace() + b.trace() - 2 * root)
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet_distance(Moments(9, zero, a), Moments(9, zero, b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [(400, 300), (12, 400), (10, 14)])
def test_it_equals_torch_fidelity_and_torchmetrics(first: int, second: int) -> None:
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = _features(first, 1), _features(second, 2, shift=0.3)
    found = frechet_distance(moments_of(a), moments_of(b))

    def statistics(features: Tensor) -> dict[str, np.ndarray]:
        rows = features.double().numpy()
        return {"mu": rows.mean(0), "sigma": np.cov(rows, rowvar=False)}

    theirs = fid_statistics_to_metric(statistics(a), statistics(b), False)["frechet_inception_distance"]
    assert found == pytest.approx(theirs, rel=1e-3)

    class Given(nn.Module):
        num_features = a.shape[1]

        def forward(self, features: Tensor) -> Tensor:
            return features

    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(a.double(), real=True)
    metric.update(b.double(), real=False)
    assert found == pytest.approx(float(metric.compute()), rel=1e-3)


@pytest.mark.parametrize("count", [3, 24, 1000])
def test_equal_sets_are_at_distance_zero_even_with_fewer_vectors_than_features(count: int) -> None:
    moments = moments_of(_features(count, 1))
    assert 0 <= frechet_distance(moments, moments) < 1e-10 * float(moments.covariance.trace())
