"""Statistics of Inception features that others computed, from a file: EDM's `fid-refs`, and the NPZ of pytorch-fid,
clean-fid and guided-diffusion (ADM)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from policy_accel.data.formats.base import decoding
from policy_accel.errors import UserError
from policy_accel.files import open_regular
from policy_accel.images.metrics.features import FeatureExtractor
from policy_accel.images.metrics.frechet import Moments

ASYMMETRY = 1e-3
"""Largest difference of mirrored entries of a covariance, as a share of its largest entry: files are rounded."""


def given_moments(path: str | None, extractors: Sequence[FeatureExtractor]) -> dict[str, Moments]:
    """The statistics of the file evaluation.metrics.reference under the name of their extractor, which has to be among
    those in use; nothing without a file.

    Raises:
        UserError: there is no Inception; as `read_statistics`.
    """
    if path is None:
        return {}
    for extractor in extractors:
        if extractor.name == "inception":
            return {extractor.name: read_statistics(path, extractor.dimension)}
    raise UserError(
        f"evaluation.metrics.reference={path}: is for the FID, whose network has to be given too, as "
        "evaluation.metrics.inception=PATH; else leave it at null."
    )


def read_statistics(path: str | Path, size: int) -> Moments:
    """Mean and covariance of `size` features from an NPZ with `mu` [size] and `sigma` [size, size]. Other arrays in
    it, as ADM's `mu_s` and `arr_0`, are not read; of how many images the statistics are is not known.

    Raises:
        UserError: no such file, another kind of file, shapes that do not fit, values that are no covariance.
    """
    path, setting = Path(path).expanduser(), f"evaluation.metrics.reference={path}"
    with open_regular(path) as file:
        start = file.read(2)
    if start[:1] == b"\x80":
        raise UserError(
            f"{setting}: is a pickle, which is not read since it can run code; write its mu and sigma to an NPZ with "
            "numpy.savez(PATH, mu=..., sigma=...)."
        )
    if start != b"PK":
        raise UserError(f"{setting}: is no NPZ; give a file with mu and sigma, such as EDM's fid-refs.")
    with decoding(path, "the NPZ"), np.load(path, allow_pickle=False) as archive:
        listed = ", ".join(archive.files[:5]) or "nothing"
        found = [archive[name] for name in ("mu", "sigma") if name in archive.files]
    if len(found) < 2:
        raise UserError(
            f"{setting}: holds {listed}, and statistics are mu and sigma; images themselves are given as task.data."
        )
    mean, covariance = found
    wrong = _fault(mean, covariance, size)
    if wrong:
        raise UserError(f"{setting}: {wrong}; get the file again, or leave it at null.")
    covariance = covariance.astype(np.float64)
    return Moments(None, torch.from_numpy(mean.astype(np.float64)), torch.from_numpy((covariance + covariance.T) / 2))


def _fault(mean: np.ndarray, covariance: np.ndarray, size: int) -> str | None:
    """What keeps these from being mean and covariance of `size` features, or None."""
    for name, array, shape in (("mu", mean, (size,)), ("sigma", covariance, (size, size))):
        if array.shape != shape:
            return f"{name} has shape {list(array.shape)} and is of {list(shape)} for {size} features"
        if array.dtype.kind != "f":
            return f"{name} holds {array.dtype} values instead of floats"
        if not np.isfinite(array).all():
            return f"{name} has values that are not finite"
    if np.abs(covariance - covariance.T).max() > ASYMMETRY * np.abs(covariance).max():
        return "sigma is not symmetric, so it is no covariance"
    if covariance.diagonal().min() < 0:
        return "sigma has a negative variance"
    return None
