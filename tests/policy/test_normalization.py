import numpy as np
import pytest
import torch
from torch import nn

from policy_accel.errors import UserError
from policy_accel.policy.normalization import Normalizer, fit_normalizer

WAVE = np.sin(np.arange(60))


def test_limits_by_hand():
    data = np.array([[0.0, 10.0, 5.0], [4.0, 20.0, 5.0], [1.0, 12.5, 5.0]])
    normalizer = fit_normalizer(data, "limits")
    assert normalizer.scale.tolist() == pytest.approx([0.5, 0.2, 1.0])
    assert normalizer.offset.tolist() == pytest.approx([-1.0, -3.0, -5.0])
    result = normalizer(torch.tensor(data, dtype=torch.float32))
    assert result[:, :2].amin(0).tolist() == pytest.approx([-1, -1])
    assert result[:, :2].amax(0).tolist() == pytest.approx([1, 1])
    assert result[:, 2].tolist() == [0.0, 0.0, 0.0]


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
    assert set(fitted.state_dict()) == {"scale", "offset", "center", "varies", "constant"}


def test_a_state_of_an_earlier_version_acts_as_it_did():
    scale, offset, x = torch.tensor([1.0, 0.5]), torch.tensor([-0.04, 3.0]), torch.randn(3, 2)
    loaded = nn.Sequential(Normalizer(2))
    loaded.load_state_dict({"0.scale": scale, "0.offset": offset})
    assert torch.equal(loaded(x), x * scale + offset)
    assert torch.equal(loaded[0].inverse(x), (x - offset) / scale)


UNITS = {
    "delta poses in m": (4e-5 * WAVE).astype(np.float32),
    "nA": 1e-9 * WAVE,
    "encoder counts": (10**9 + 100 * WAVE).astype(np.int64),
    "northing in float32": (5e6 + 20 * WAVE).astype(np.float32),
    "northing": 5e6 + WAVE,
    "seconds since 1970": 1.7e9 + WAVE,
    "truth values": WAVE > 0,
    "half precision": WAVE.astype(np.float16),
}


@pytest.mark.parametrize("mode", ["limits", "gaussian"])
@pytest.mark.parametrize("unit", UNITS)
def test_what_varies_is_scaled_whatever_its_unit(unit, mode):
    data = UNITS[unit][:, None]
    normalizer = fit_normalizer(data, mode)
    normalized = normalizer(torch.from_numpy(data)).double()
    exact = data.astype(float)
    low, high = exact.min(), exact.max()
    limits, gaussian = 2 * (exact - low) / (high - low) - 1, (exact - exact.mean()) / exact.std(ddof=1)
    np.testing.assert_allclose(normalized, limits if mode == "limits" else gaussian, atol=3e-4)
    back = normalizer.inverse(normalizer(torch.from_numpy(data))).double()
    np.testing.assert_allclose(back, exact, rtol=0, atol=3e-4 * (high - low))


@pytest.mark.parametrize("mode", ["limits", "gaussian", "max_abs", "identity"])
@pytest.mark.parametrize("value", [0.0, 0.04, -3.0, 1_700_000_000.25])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_never_changes_comes_back_exactly(mode, value, dtype):
    data = np.stack([WAVE, np.full(len(WAVE), value)], axis=1).astype(dtype)
    normalizer = fit_normalizer(data, mode)
    back = normalizer.inverse(torch.randn(50, 2)).numpy()
    assert (back[:, 1] == data[0, 1]).all()
    assert (back[:, 0] != data[0, 1]).all()


def test_rounding_is_no_change():
    """Equal but for the last bits of the type; the next smallest difference is one."""
    data = np.array([[0.3, 0.0, 7.0], [0.1 + 0.2, 1e-17, 7.0]])
    assert fit_normalizer(data).varies.tolist() == [False, False, False]
    assert fit_normalizer(np.array([[0.3], [0.3 + 1e-9]])).varies.tolist() == [True]
    near = np.array([[0.04], [np.nextafter(np.float32(0.04), np.float32(1))]], dtype=np.float32)
    assert fit_normalizer(near).varies.tolist() == [False]
    # What was recorded in whole numbers has no rounding.
    assert fit_normalizer(np.array([[1.0], [1.0 + 1e-7]]), precision=np.zeros(1)).varies.tolist() == [True]


@pytest.mark.parametrize("mode", ["identity", "max_abs"])
def test_far_numbers_that_are_not_shifted_are_refused(mode):
    with pytest.raises(UserError, match=r"dimension 0 goes from 1699999999.* in float32, .*choose .* limits"):
        fit_normalizer(1.7e9 + WAVE[:, None], mode)


def test_an_unknown_mode():
    with pytest.raises(UserError, match="normaliser 'limit' is unknown; did you mean 'limits'"):
        fit_normalizer(np.zeros((3, 2)), "limit")
