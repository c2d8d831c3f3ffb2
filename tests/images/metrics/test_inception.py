from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.images.metrics import inception
from policy_accel.images.metrics.inception import inception_features


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the real one's format with random weights, since the real one is not to be downloaded."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = theirs.FeatureExtractorInceptionV3("inception", ["2048"])
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter *= 6**0.5  # from torch's default to He's, so that 94 layers do not fade the image out
    torch.save(network.state_dict(), path)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_features_are_torch_fidelitys_and_grey_is_repeated(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    monkeypatch.setattr(inception, "DIGEST", _digest(weights)[:8])
    extractor = inception_features(weights)
    network = theirs.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    expected = network(images)[0]
    assert expected.shape == (2, extractor.dimension)
    assert (expected[0] - expected[1]).abs().max() > 1e-4
    torch.testing.assert_close(extractor(images), expected)
    assert _digest(weights) in extractor.fingerprint
    grey = images[:1, :1]
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))
    with SimulatedCuda():
        torch.testing.assert_close(extractor(images.to(CUDA)).cpu(), expected)


class Scripted(torch.nn.Module):
    """In the form of NVIDIA's: it resizes and scales by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2048, 12, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features
        small = torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32) / 128 - 1, [2, 2])
        return torch.relu(small.flatten(1) @ self.weight.t())


def test_a_script_is_taken_without_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.script(Scripted()).save(str(tmp_path / "inception.pt"))
    with pytest.raises(UserError, match=r"SHA-256 begins with .* instead of f58cb9b6"):
        inception_features(tmp_path / "inception.pt")
    monkeypatch.setattr(inception, "SCRIPT", _digest(tmp_path / "inception.pt")[:8])
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    extractor = inception_features(tmp_path / "inception.pt")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(extractor(images), Scripted()(images, return_features=True))
    torch.testing.assert_close(extractor(images[:, :1]), extractor(images[:, :1].repeat(1, 3, 1, 1)))
    assert not extractor(images).requires_grad


def test_another_file_than_the_published_one_is_refused(weights: Path) -> None:
    with pytest.raises(UserError, match=r"SHA-256 begins with .* instead of 6726825d.*release v0\.2\.0"):
        inception_features(weights)


def test_a_missing_file_and_a_missing_package_say_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError,
        match=r"is not a file; get inception-2015-12-05\.pt.* or weights-inception-2015-12-05-6.*\.pth from .*POLICY_",
    ):
        inception_features(tmp_path / "gone.pth")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=re.escape(to_install("fid"))):
        inception_features(tmp_path / "gone.pth")


class _Harmful:
    """What a pickle would run when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_no_code_in_the_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "DIGEST", "")
    path, mark = tmp_path / "harmful.pth", tmp_path / "mark"
    torch.save({"fc.weight": _Harmful(mark)}, path)
    with pytest.raises(UserError, match="does not hold torch-fidelity's Inception"):
        inception_features(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04broken"])
def test_other_content_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "DIGEST", "")
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not hold"):
        inception_features(path)
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="does not hold"):
        inception_features(path)
