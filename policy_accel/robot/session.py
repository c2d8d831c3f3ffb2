"""Sessions of onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.errors import UserError

TO_INSTALL = "install it with: pip install 'policy-accel[export]'"


def onnx_session(model: Path | bytes, device: str = "cpu", threads: int = 0) -> Any:
    """A session of onnxruntime for a file or its content.

    Raises:
        UserError: onnxruntime is not installed, or has nothing for such a device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX files need onnxruntime, which is not here; {TO_INSTALL}") from error
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise UserError(
            f"device={device}: the onnxruntime that is installed has nothing for it; install onnxruntime-gpu, or use "
            "device=cpu."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are of nodes that it does not fold
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=[wanted])
