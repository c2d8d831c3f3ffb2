from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.moments import moments_of
from torch import Tensor

from policy_accel.images.metrics.frechet import Moments
from policy_accel.images.metrics.image_batches import chosen_indices, image_batch
from policy_accel.images.metrics.reference import Reference, Statistics, cached_arrays, statistics_of


class Flat:
    """Pixels as features; counts the images it is given."""

    name, fingerprint, dimension = "flat", "flat-1", 12

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1).float()


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 2, 2), dtype=np.uint8)


def _cached(images: np.ndarray, extractor: Flat, cache_dir: Path, **changes: Any) -> Statistics:
    settings: dict[str, Any] = {
        "given": {},
        "mirrored": False,
        "batch_size": 4,
        "device": "cpu",
        "data_fingerprint": "a",
    }
    keep = changes.pop("keep", 6)
    return Reference(images, cache_dir=cache_dir, **{**settings, **changes})(extractor, keep)


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_moments_are_of_all_images_and_features_of_a_choice(batch_size: int) -> None:
    images = _images(21)
    found = statistics_of(images, Flat(), keep=6, batch_size=batch_size, device="cpu")
    flat = torch.from_numpy(images).flatten(1).float()
    torch.testing.assert_close(found.moments.mean, flat.double().mean(0))
    torch.testing.assert_close(found.moments.covariance, moments_of(flat).covariance)
    assert found.features.shape == (6, 12)
    places = [int((flat == row).all(1).nonzero()[0, 0]) for row in found.features]
    assert places == sorted(set(places))
    assert places != list(range(6))


def test_a_second_run_reads_the_file_and_another_set_does_not(tmp_path: Path) -> None:
    images, extractor = _images(21), Flat()
    first, second = (_cached(images, extractor, tmp_path) for _ in range(2))
    assert extractor.seen == 21
    assert first.moments.count == second.moments.count == 21
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.moments.covariance, second.moments.covariance)
    other = Flat()
    other.fingerprint = "flat-2"
    _cached(images, other, tmp_path)
    assert other.seen == 21
    for changes in ({"data_fingerprint": "b"}, {"keep": 7}):
        before = extractor.seen
        _cached(images, extractor, tmp_path, **changes)
        assert extractor.seen > before
    _cached(images[:20], extractor, tmp_path)
    assert extractor.seen > before + 21
    assert len(list(tmp_path.iterdir())) == 5


def test_mirror_images_count_in_the_moments_alone(tmp_path: Path) -> None:
    images, extractor = _images(21), Flat()
    plain, both = (_cached(images, extractor, tmp_path, mirrored=mirrored) for mirrored in (False, True))
    expected = moments_of(torch.from_numpy(np.concatenate([images, images[..., ::-1]])).flatten(1).float())
    assert both.moments.count == 42
    torch.testing.assert_close(both.moments.covariance, expected.covariance)
    assert torch.equal(both.features, plain.features)


def test_given_moments_are_taken_and_few_images_are_looked_at(tmp_path: Path) -> None:
    images, extractor = _images(21), Flat()
    given = Moments(None, torch.zeros(12).double(), torch.eye(12).double())
    found = _cached(images, extractor, tmp_path, given={"flat": given}, mirrored=True)
    assert extractor.seen == 6
    assert torch.equal(found.moments.covariance, given.covariance)
    assert torch.equal(found.features, _cached(images, extractor, tmp_path).features)


def test_a_damaged_file_is_made_anew_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = _images(21)
    expected = _cached(images, Flat(), tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    half = len(content) // 2  # within the covariance
    for damage in (b"", content[:half], content[:half] + b"\0\1\2\3" + content[half + 4 :], b"PK" + bytes(50)):
        path.write_bytes(damage)
        capsys.readouterr()
        extractor = Flat()
        found = _cached(images, extractor, tmp_path)
        assert extractor.seen == 21
        assert torch.equal(found.features, expected.features)
        assert f"{path}: damaged" in capsys.readouterr().err
        assert path.read_bytes() == content


def test_arrays_that_are_not_what_was_asked_for_count_as_damaged(tmp_path: Path) -> None:
    def arrays(value: float, size: int) -> dict[str, np.ndarray]:
        return {"a": np.full(size, value)}

    cached_arrays(tmp_path, ("k",), {"a": (3,)}, lambda: arrays(np.nan, 3))
    assert cached_arrays(tmp_path, ("k",), {"a": (3,)}, lambda: arrays(2.0, 3))["a"].tolist() == [2, 2, 2]
    assert cached_arrays(tmp_path, ("k",), {"a": (4,)}, lambda: arrays(3.0, 4))["a"].tolist() == [3, 3, 3, 3]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    found = _cached(_images(21), Flat(), tmp_path / "file" / "cache")
    assert found.moments.count == 21
    assert "Going on without the cache." in capsys.readouterr().err


def test_the_choice_of_images_is_spread_seeded_and_sorted() -> None:
    chosen = chosen_indices(1000, 100, "a")
    assert len(set(chosen.tolist())) == 100
    assert (np.diff(chosen) > 0).all()
    assert 400 < chosen.mean() < 600
    assert np.array_equal(chosen, chosen_indices(1000, 100, "a"))
    assert not np.array_equal(chosen, chosen_indices(1000, 100, "b"))
    assert chosen_indices(5, 9, "a").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("indices", [slice(None), slice(2, 5), np.array([4, 0, 4])])
def test_a_batch_is_a_copy(indices: np.ndarray | slice) -> None:
    images = _images(7)
    images.flags.writeable = False
    batch = image_batch(images, indices, "cpu")
    assert np.array_equal(batch, images[indices])
    batch.zero_()
    assert images.any()
