import numpy as np
import pytest
import torch

from policy_accel.data.normalization import Normalizer, fit_normalizer
from policy_accel.errors import UserError


def test_limits_by_hand():
    data = np.array([[0.0, 10.0, 5.0], [4.0, 20.0, 5.00005], [1.0, 12.5, 5.0]])
    normalizer = fit_normalizer(data, "limits")
    assert normalizer.scale.tolist() == pytest.approx([0.5, 0.2, 1.0])
    assert normalizer.offset.tolist() == pytest.approx([-1.0, -3.0, -5.0])
    result = normalizer(torch.tensor(data, dtype=torch.float32))
    assert result[:, :2].amin(0).tolist() == pytest.approx([-1, -1])
    assert result[:, :2].amax(0).tolist() == pytest.approx([1, 1])
    assert result[:, 2].abs().max() < 1e-4


def test_gaussian_by_hand():
    data = torch.tensor([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])
    normalizer = fit_normalizer(data, "gaussian")
    assert normalizer.scale.tolist() == pytest.approx([0.5, 1.0])  # unbiased deviation of 1, 3, 5 is 2
    assert normalizer.offset.tolist() == pytest.approx([-1.5, -7.0])
    assert normalizer(data).tolist() == [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


def test_identity():
    x = torch.randn(5, 3)
    normalizer = fit_normalizer(x, "identity")
    assert torch.equal(normalizer(x), x)
    assert torch.equal(normalizer.inverse(x), x)


@pytest.mark.parametrize("mode", ["limits", "gaussian"])
def test_inverse_keeps_leading_dimensions(mode):
    data = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * 100 + 300
    normalizer = fit_normalizer(data, mode)
    x = data[:60].reshape(5, 12, 4)
    assert normalizer(x).shape == x.shape
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=1e-5, atol=1e-3)


def test_fitted_in_float64():
    """The buffers are the float32 nearest to the exact values, in every one of 200 dimensions."""
    data = np.random.default_rng(0).uniform(1000, 1001, size=(50, 200)).astype(np.float32)
    exact = data.astype(np.float64)
    low, high, mean, deviation = exact.min(0), exact.max(0), exact.mean(0), exact.std(0, ddof=1)
    for mode, scale, offset in (
        ("limits", 2 / (high - low), -1 - 2 / (high - low) * low),
        ("gaussian", 1 / deviation, -mean / deviation),
    ):
        normalizer = fit_normalizer(data, mode)
        np.testing.assert_allclose(normalizer.scale.numpy(), scale.astype(np.float32), rtol=1.2e-7)
        np.testing.assert_allclose(normalizer.offset.numpy(), offset.astype(np.float32), rtol=1.2e-7)
        assert normalizer.scale.dtype == normalizer.offset.dtype == torch.float32


def test_one_step_counts_as_constant():
    normalizer = fit_normalizer(np.array([[3.0]]), "gaussian")
    assert normalizer(torch.tensor([[3.0]])).item() == 0


def test_real_actions_span_the_limits(shared_data):
    data = np.load(shared_data / "pusht_lowdim.npz")["action"]
    normalizer = fit_normalizer(data)
    assert normalizer.scale.tolist() == pytest.approx([2 / 499, 2 / 486])  # 12..511 and 25..511 px
    result = normalizer(torch.from_numpy(data))
    assert result.amin().item() == pytest.approx(-1, abs=1e-6)
    assert result.amax().item() == pytest.approx(1, abs=1e-6)


def test_state_dict_restores_everything():
    fitted = fit_normalizer(torch.randn(50, 7), "gaussian")
    loaded = Normalizer(7)
    loaded.load_state_dict(fitted.state_dict())
    x = torch.randn(3, 7)
    assert torch.equal(loaded(x), fitted(x))
    assert not list(loaded.parameters())
    assert set(fitted.state_dict()) == {"scale", "offset"}


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (np.zeros((3, 2)), "limit", "no normaliser 'limit'; did you mean 'limits'"),
        (np.zeros((3, 2, 2)), "limits", r"not on shape \(3, 2, 2\)"),
        (np.zeros((0, 2)), "limits", r"not on shape \(0, 2\)"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), "limits", "step 1, dimension 1 is not a finite number"),
    ],
)
def test_bad_input(data, mode, words):
    with pytest.raises(UserError, match=words):
        fit_normalizer(data, mode)
