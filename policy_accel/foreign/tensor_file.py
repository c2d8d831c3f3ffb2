"""Files of safetensors, of which shapes can be read before numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch

from policy_accel.errors import UserError
from policy_accel.files import explained
from policy_accel.foreign.kinds import REMEDY
from policy_accel.foreign.stored import State


class TensorFile:
    """The tensors of a file below some part of their names, which is left out of what is given.

    Raises:
        UserError: in its functions, for a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def shapes(self, prefix: str = "") -> State:
        """Empty tensors of their shapes."""
        with self._open() as file:
            names = _chosen(file, prefix)
            return {ours: torch.empty(file.get_slice(name).get_shape(), device="meta") for ours, name in names.items()}

    def read(self, prefix: str = "") -> State:
        """The tensors."""
        with self._open() as file:
            return {ours: file.get_tensor(name) for ours, name in _chosen(file, prefix).items()}

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with explained(self.path, "read"):
            try:
                with safetensors.safe_open(str(self.path), "pt") as file:
                    yield file
            except safetensors.SafetensorError as error:
                raise UserError(f"{self.path} holds no tensors ({error}); {REMEDY}.") from error


def _chosen(file: Any, prefix: str) -> dict[str, str]:
    """Names without `prefix`, as those of a network that was not compiled -> names in the file."""
    plain = {name.replace("._orig_mod.", "."): name for name in file.keys()}  # noqa: SIM118
    return {ours.removeprefix(prefix): name for ours, name in plain.items() if ours.startswith(prefix)}
