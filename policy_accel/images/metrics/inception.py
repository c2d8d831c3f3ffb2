"""Features of the Inception-v3 network that the FID is defined on, from a weights file on the disk."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.files import explained
from policy_accel.images.metrics.features import full_precision

ENVIRONMENT_VARIABLE = "POLICY_ACCEL_INCEPTION"
FILE_NAME = "weights-inception-2015-12-05-6726825d.pth"
DIGEST = "6726825d"  # what the SHA-256 of the file begins with
SCRIPT = "f58cb9b6"  # and that of NVIDIA's inception-2015-12-05.pt, a TorchScript, which clean-fid and StyleGAN use
MALFORMED = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, EOFError)  # as torch.load finds it
HOW_TO_GET = (
    f"get inception-2015-12-05.pt, which clean-fid uses, or {FILE_NAME} from torch-fidelity's release v0.2.0 (https://github.com/toshas/torch-fidelity/releases/download/"
    f"v0.2.0/{FILE_NAME}) and pass evaluation.metrics.inception=PATH or set {ENVIRONMENT_VARIABLE}"
)


class InceptionFeatures:
    """The 2048 pooled features of TensorFlow's Inception of 2015-12-05, with its bilinear resize to 299x299.

    The network and the resize are torch-fidelity's or NVIDIA's, whose numbers agree with the published ones. Grey
    images are repeated over three channels.

    Args:
        network: of images [B, 3, H, W] uint8 to a tuple with the features.
        digest: SHA-256 of its weights file.
    """

    name = "inception"
    dimension = 2048

    def __init__(self, network: nn.Module, digest: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.fingerprint = f"inception-1-{digest}"

    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, 2048] float32 of `images` [B, 1 or 3, H, W] uint8, on their device."""
        self.network.to(images.device)
        with full_precision(images.device):
            features: Tensor = self.network(images.expand(-1, 3, -1, -1))[0]
        return features


class _Script(nn.Module):
    """NVIDIA's network with the output of torch-fidelity's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Features of images."""
        return (self.network(images.contiguous(), return_features=True),)


def check_inception(path: Path) -> None:
    """Raise UserError when the file is missing, or torch-fidelity where it is needed; weights are not read."""
    if find_spec("torch_fidelity") is None and not _is_script(path):
        raise UserError(
            f"evaluation.metrics.inception={path}: needs the package torch-fidelity, which is not installed; give "
            f"inception-2015-12-05.pt, leave it at null, or {to_install('fid')}"
        )
    if not path.is_file():
        raise UserError(f"evaluation.metrics.inception={path}: is not a file; {HOW_TO_GET}.")


def inception_features(path: str | Path) -> InceptionFeatures:
    """Inception with the weights of the file `path`; nothing is ever downloaded.

    torch-fidelity's is read without unpickling code, and NVIDIA's known by its SHA-256 before it is opened.

    Raises:
        UserError: torch-fidelity or the file is missing, or it is another file.
    """
    path = Path(path)
    check_inception(path)
    with explained(path, "read"):
        content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    known = SCRIPT if _is_script(path) else DIGEST
    if not found.startswith(known):
        raise UserError(
            f"evaluation.metrics.inception={path}: its SHA-256 begins with {found[:8]} instead of {known}, so it is "
            f"another file or damaged; {HOW_TO_GET}."
        )
    try:
        if known == SCRIPT:
            with warnings.catch_warnings():  # torch says that the format is old
                warnings.simplefilter("ignore", FutureWarning)
                return InceptionFeatures(_Script(torch.jit.load(io.BytesIO(content), map_location="cpu")), found)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        plain = io.BytesIO()  # torch-fidelity unpickles whatever it is given, so it is given what was read safely
        torch.save(weights, plain)
        plain.seek(0)
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=plain)
    except (*MALFORMED, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(
            f"evaluation.metrics.inception={path}: does not hold torch-fidelity's Inception; {HOW_TO_GET}."
        ) from error
    return InceptionFeatures(network, found)


def _is_script(path: Path) -> bool:
    """Whether the file is a TorchScript, by the names of its parts."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
