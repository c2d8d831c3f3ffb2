from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.moments import moments_of

from policy_accel.errors import UserError
from policy_accel.images.metrics.frechet import frechet_distance
from policy_accel.images.metrics.statistics_file import given_moments, read_statistics

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    features = np.random.default_rng(0).normal(size=(50, 6))
    return {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_npz_of_edm_and_of_adm_are_read(dtype: type, arrays: Arrays, tmp_path: Path) -> None:
    """ADM's has the images and the spatial statistics too, which are left alone."""
    stored = {name: array.astype(dtype) for name, array in arrays.items()}
    more = {"mu_s": np.zeros(9), "sigma_s": np.zeros((9, 9)), "arr_0": np.zeros((3, 8, 8, 3), np.uint8)}
    np.savez(tmp_path / "adm.npz", **more, **stored)
    found = read_statistics(tmp_path / "adm.npz", 6)
    torch.testing.assert_close(found.covariance, torch.from_numpy(arrays["sigma"]), rtol=1e-6, atol=1e-6)
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    other = moments_of(features)
    shift = float(((found.mean - other.mean) ** 2).sum())
    eigenvalues = torch.linalg.eigvals(found.covariance @ other.covariance).real.clamp_min(0)
    expected = shift + float(found.covariance.trace() + other.covariance.trace() - 2 * eigenvalues.sqrt().sum())
    assert frechet_distance(other, found) == pytest.approx(expected, rel=1e-9)


def _changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: change(arrays[name])}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda arrays: {"mu": arrays["mu"]}, "holds mu, and statistics are mu and sigma"),
        (lambda arrays: {"arr_0": arrays["mu"]}, r"holds arr_0, .* are given as task\.data"),
        (_changed("mu", lambda mu: mu[:5]), r"mu has shape \[5\] and is of \[6\] for 6 features"),
        (_changed("sigma", lambda sigma: sigma[0]), r"sigma has shape \[6\] and is of \[6, 6\]"),
        (_changed("sigma", lambda sigma: np.triu(sigma)), "sigma is not symmetric"),
        (_changed("sigma", lambda sigma: -sigma), "sigma has a negative variance"),
        (_changed("mu", lambda mu: mu * np.nan), "mu has values that are not finite"),
        (_changed("mu", lambda mu: mu.astype("i8")), "mu holds int64 values instead of floats"),
    ],
)
def test_what_is_no_statistics_is_refused(
    change: Callable[[Arrays], Arrays], sentence: str, arrays: Arrays, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **change(arrays))
    with pytest.raises(UserError, match=rf"metrics\.reference=.*a\.npz: {sentence}"):
        read_statistics(tmp_path / "a.npz", 6)


def test_other_files_are_refused_and_pickles_are_not_loaded(arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "refs.pkl"
    for content, sentence in (
        (pickle.dumps({"fid": arrays}), "is a pickle, which is not read .* numpy.savez"),
        (b"mu, sigma", "is no NPZ"),
        (b"PK" + bytes(90), "the NPZ is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            read_statistics(path, 6)
    with pytest.raises(UserError, match=r"gone\.npz: does not exist"):
        read_statistics(tmp_path / "gone.npz", 6)
    with pytest.raises(UserError, match=r"reference=x\.npz: is for the FID.*metrics\.inception=PATH"):
        given_moments("x.npz", [])
