from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from policy_accel.errors import UserError
from policy_accel.images.metrics.features import RandomConvFeatures, full_precision


def _images(count: int, channels: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 24), (1, 28), (3, 32), (4, 33), (3, 256)])
def test_every_size_gives_finite_features_that_differ_between_images(channels: int, size: int) -> None:
    extractor = RandomConvFeatures(channels, size)
    features = extractor(_images(2, channels, size))
    assert features.shape == (2, extractor.dimension)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert not torch.allclose(features[0], features[1], rtol=1e-3)


def test_the_net_is_the_same_on_every_machine() -> None:
    """The filters follow from SHA-256, PCG64's raw words and Box-Muller; here written out for the first filters."""
    seed = int.from_bytes(hashlib.sha256(b"policy_accel random convolutions").digest(), "little")
    words = np.random.PCG64(seed).random_raw(2 * 32 * 27) >> 11
    uniform = (words + 0.5) / 2**53
    normal = np.sqrt(-2 * np.log(uniform[: 32 * 27])) * np.cos(2 * np.pi * uniform[32 * 27 :])
    filters = normal.reshape(32, 3, 3, 3)
    assert abs(filters.mean()) < 0.1
    assert filters.std() == pytest.approx(1, abs=0.1)
    filters = filters - np.where(np.arange(32) % 4 != 3, filters.mean((1, 2, 3)), 0)[:, None, None, None]
    filters *= np.sqrt(2) / np.linalg.norm(filters.reshape(32, -1), axis=1)[:, None, None, None]

    images = _images(2, 3, 16)
    scaled = F.pad(images.double() / 127.5 - 1, (1, 1, 1, 1), mode="reflect")
    first = F.leaky_relu(F.conv2d(scaled, torch.from_numpy(filters)), 0.2)[:, :16]
    features = RandomConvFeatures(3, 16)(images)
    torch.testing.assert_close(features[:, :16], first.mean((2, 3)).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:, 16:32], first.std((2, 3), correction=0).float(), rtol=1e-4, atol=1e-5)
    assert float(features.double().sum()) == pytest.approx(SUM_OF_FEATURES, rel=1e-4)


SUM_OF_FEATURES = 87.447384


def test_three_of_four_filters_see_structure_but_not_brightness() -> None:
    extractor = RandomConvFeatures(1, 16)
    grey = torch.full((1, 1, 16, 16), 120, dtype=torch.uint8)
    blind = torch.arange(16) % 4 != 3
    change = (extractor(grey + 40) - extractor(grey))[0, :16].abs()
    assert change[blind].max() < 1e-5
    assert change[~blind].min() > 1e-3
    stripes = grey.clone()
    stripes[..., ::2] += 40
    assert (extractor(stripes) - extractor(grey))[0, :16].abs()[blind].min() > 1e-3


def test_latents_are_taken_as_they_are() -> None:
    images = _images(3, 4, 16)
    extractor = RandomConvFeatures(4, 16)
    torch.testing.assert_close(extractor(images.float() / 127.5 - 1), extractor(images))


def test_features_do_not_depend_on_the_batch_or_on_the_precision_that_a_run_has_set() -> None:
    images, extractor = _images(5, 3, 16), RandomConvFeatures(3, 16)
    alone = torch.cat([extractor(image[None]) for image in images])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(extractor(images), alone, rtol=1e-5, atol=1e-5)


def test_full_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        with full_precision("cpu"):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.is_grad_enabled()
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        assert torch.is_grad_enabled()
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_sizes_out_of_range_and_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(3, 4, 4\).*task.resolution"):
        RandomConvFeatures(3, 4)
    with pytest.raises(UserError, match="8 to 1024"):
        RandomConvFeatures(3, 2048)
    with pytest.raises(ValueError, match="shape"):
        RandomConvFeatures(3, 16)(_images(1, 1, 16))


def test_fingerprints_tell_sizes_apart() -> None:
    assert len({RandomConvFeatures(c, s).fingerprint for c in (1, 3) for s in (16, 32)}) == 4
