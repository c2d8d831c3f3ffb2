from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.images.metrics.resnet import ResNetFeatures, resnet_features

WeightsOf = Callable[[int], dict[str, np.ndarray]]


def _plain(weights: dict[str, np.ndarray], blocks: int, images: Tensor) -> Tensor:
    """The paper's net, layer by layer, with batch normalisation as such."""
    w = {name: torch.from_numpy(array).double() for name, array in weights.items()}

    def layer(x: Tensor, name: str, norm: str, stride: int) -> Tensor:
        x = F.conv2d(x, w[f"{name}.weight"], stride=stride, padding=1)
        scale, shift = w[f"{norm}.weight"], w[f"{norm}.bias"]
        return F.batch_norm(x, w[f"{norm}.running_mean"], w[f"{norm}.running_var"], scale, shift)

    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)).double()
    x = layer(x, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            prefix = f"layer{stage}.{block}"
            inner = layer(x, f"{prefix}.conv1", f"{prefix}.bn1", stride).relu()
            inner = layer(inner, f"{prefix}.conv2", f"{prefix}.bn2", 1)
            if stride == 2:
                zeros = x.new_zeros(len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3] // 2)
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = (inner + x).relu()
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def _images(count: int, channels: int = 3, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def test_features_are_those_of_the_plain_net(tmp_path: Path, resnet_weights: WeightsOf) -> None:
    weights, images = resnet_weights(2), _images(4)
    np.savez(tmp_path / "w.npz", **weights)
    extractor = resnet_features(tmp_path / "w.npz")
    expected = _plain(weights, 2, images)
    assert (extractor.name, extractor.depth, extractor.dimension) == ("resnet14", 14, 64)
    torch.testing.assert_close(extractor(images), expected.float(), rtol=1e-4, atol=1e-4)


def test_images_of_other_sizes_are_resized(resnet_weights: WeightsOf) -> None:
    """Twice as large by repeating pixels and made smaller again they are the same, by the mean of four each."""
    extractor, images = ResNetFeatures(resnet_weights(1), "x"), _images(2)
    large = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    near, plain = extractor(large), extractor(images)
    assert 0 < float((near - plain).abs().max()) < 0.5 * float(plain.abs().max())
    flat = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    torch.testing.assert_close(extractor(flat), extractor(flat.expand(1, 3, 16, 16).repeat(1, 1, 2, 2)))


def test_grey_images_are_repeated(resnet_weights: WeightsOf) -> None:
    extractor, grey = ResNetFeatures(resnet_weights(1), "x"), _images(2, channels=1)
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("file", "count", "accuracy"), [("20-12fca82f", 1000, 0.9173), ("56-4bfd9763", 300, 0.9339)])
def test_the_real_weights_reach_their_stated_accuracy_on_real_test_images(
    shared_data: Path, file: str, count: int, accuracy: float
) -> None:
    sheet = np.asarray(Image.open(shared_data / "cifar10" / "test_00.webp").convert("RGB"))
    images = sheet.reshape(50, 32, 50, 32, 3).transpose(0, 2, 4, 1, 3).reshape(2500, 3, 32, 32)
    with np.load(shared_data / "cifar10" / "labels.npz") as arrays:
        labels, inexact = arrays["y_test"][:2500], arrays["inexact_test"]
    exact = np.setdiff1d(np.arange(2500), inexact)[:count]
    path = shared_data / f"cifar_resnet{file}.npz"
    extractor = resnet_features(path)
    features = torch.cat([extractor(part) for part in torch.from_numpy(images[exact]).split(250)]).numpy()
    with np.load(path) as weights:
        found = (features @ weights["linear.weight"].T + weights["linear.bias"]).argmax(1)
    # Three standard errors of a share of `count` images.
    tolerance = 3 * np.sqrt(accuracy * (1 - accuracy) / count)
    assert (found == labels[exact]).mean() == pytest.approx(accuracy, abs=tolerance)


def test_files_that_are_no_such_weights_are_refused_in_a_sentence(tmp_path: Path, resnet_weights: WeightsOf) -> None:
    with pytest.raises(UserError, match=r"gone.npz: is not a file; give the npz"):
        resnet_features(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("no weights")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    weights = resnet_weights(1)
    np.savez(tmp_path / "lacks.npz", **{name: array for name, array in weights.items() if name != "bn1.bias"})
    np.savez(tmp_path / "shape.npz", **{**weights, "bn1.bias": np.zeros(7)})
    np.savez(tmp_path / "pickle.npz", **weights, extra=np.array([{}], dtype=object))
    for name in ("text", "other", "lacks", "shape", "pickle"):
        with pytest.raises(UserError, match=rf"{name}.npz: does not hold the weights of a CIFAR ResNet"):
            resnet_features(tmp_path / f"{name}.npz")
