"""Sessions of onnxruntime."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy_accel.errors import UserError
from policy_accel.extras import to_install

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""What writes ONNX files, and what runs them."""


def check_onnx() -> None:
    """Raise UserError where a package that writes ONNX files, or runs them, is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}, which are not here; {to_install('export')}")


def onnx_session(model: Path | bytes, device: str = "cpu", threads: int = 0) -> Any:
    """A session of onnxruntime for a file or its content, on the CPU where it has nothing for the device.

    Raises:
        UserError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX files need onnxruntime, which is not here; {to_install('export')}") from error
    provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        provider = "CPUExecutionProvider"
        warnings.warn(
            f"the onnxruntime that is here has nothing for {device} and takes the CPU; install onnxruntime-gpu.",
            stacklevel=2,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are of nodes that it does not fold
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=[provider])


class OnnxFunction:
    """One output of an ONNX file as a function of tensors on the CPU; another process gets a session of its own.

    Args:
        model: the file, or its content.
        output: name of what is returned.
        device: as for `onnx_session`.
        threads: as many as torch has for 0.
    """

    def __init__(self, model: Path | bytes, output: str, device: str = "cpu", threads: int = 0) -> None:
        import torch

        self._arguments, self._output = (model, output, device, threads), output
        self._session = onnx_session(model, device, threads or torch.get_num_threads())

    def __reduce__(self) -> Any:
        return OnnxFunction, self._arguments

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """The output for inputs by name."""
        import torch

        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        return torch.from_numpy(self._session.run([self._output], arrays)[0])
