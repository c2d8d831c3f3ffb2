"""The networks of a policy compiled for one observation on a CPU by onnxruntime; the sampler stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.extras import to_install
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.observations import as_tensors
from policy_accel.policy.planner import Planner
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.robot.exporting.export import onnx_of, quiet
from policy_accel.robot.exporting.session import NEEDED, OnnxFunction
from policy_accel.training.graphs import WARM_UP


def warm_up(planner: Planner, warm_start: float | None, *, strict: bool) -> None:
    """See `Policy.warm_up`."""
    policy, device = planner.policy, planner.device
    seen = {STATE: np.zeros(policy.input_dim)} | {
        name: np.zeros(size, np.uint8) for name, size in policy.images.items()
    }
    observed = as_tensors([[seen] * policy.config.n_obs_steps], device, policy.resized)
    noise = torch.zeros(1, *policy.noise_shape(planner.sampler))
    if device.type == "cpu" and _compiles(planner, strict):
        compile_networks(policy, lambda: planner(observed, noise))
    begun: dict[str, Any] = (
        {} if warm_start is None else {"start": planner(observed, noise).clone(), "strength": warm_start}
    )
    for how in [{}, begun]:
        for _ in range(WARM_UP + 1):
            planner(observed, noise, **how)


def _compiles(planner: Planner, strict: bool) -> bool:
    missing = [name for name in NEEDED if find_spec(name) is None]
    reason = None
    precision = planner.policy.precision
    if precision != "fp32":
        reason = f"precision={precision} is not compiled for the CPU; use fp32, or no compile=True."
    elif missing:
        reason = f"compiling for the CPU needs {', '.join(missing)}, which are not here; {to_install('export')}"
    if strict and reason is not None:
        raise UserError(reason)
    return reason is None


def compile_networks(policy: DiffusionPolicy, plan: Callable[[], Tensor]) -> None:
    """Let onnxruntime compute the denoiser and the encoder from now on, with the weights as they are; results differ in
    the last digits.

    Calls with another shape, as for several observations at once, and with gradients run as before.

    Args:
        policy: on the CPU, in eval mode.
        plan: makes a plan for one observation, which shows what the networks are called with.

    Raises:
        UserError: onnxruntime or the exporter is missing, or has no form of a network.
    """
    networks: list[nn.Module] = [
        network
        for network in (policy.encoder, policy.denoiser)
        if network is not None and not isinstance(network.forward, _Compiled)
    ]
    calls: dict[nn.Module, list[Any]] = {}

    def note(network: nn.Module, given: Any) -> None:
        calls.setdefault(network, list(given))

    hooks = [network.register_forward_pre_hook(note) for network in networks]
    try:
        plan()
    finally:
        for hook in hooks:
            hook.remove()
    for network, given in calls.items():
        network.forward = _Compiled(network, given)


class _Compiled:
    """`forward` of a network, with arguments of the shapes that it was compiled for by onnxruntime."""

    def __init__(self, network: nn.Module, given: list[Any]) -> None:
        example = _tensors(given)
        self._network = network
        self._kinds = [(tensor.shape, tensor.dtype) for tensor in example]
        self._names = [f"input_{place}" for place in range(len(example))]
        with torch.no_grad(), quiet():
            program = torch.export.export(_Flat(network, given), tuple(example))
        self._quick = OnnxFunction(onnx_of(program, self._names, ["output"]), "output")

    def __call__(self, *given: Any) -> Tensor:
        tensors = _tensors(given)
        fits = [(tensor.shape, tensor.dtype) for tensor in tensors] == self._kinds
        if not fits or any(tensor.requires_grad for tensor in tensors):
            return self.eager(*given)
        return self._quick(dict(zip(self._names, tensors, strict=True)))

    def eager(self, *given: Any) -> Tensor:
        """What the network itself computes."""
        result: Tensor = type(self._network).forward(self._network, *given)
        return result


def _tensors(given: Any) -> list[Tensor]:
    """All tensors of arguments, in order; those of a dictionary by name."""
    found: list[Tensor] = []
    for value in given:
        if isinstance(value, Mapping):
            found += [value[name] for name in sorted(value)]
        elif value is not None:
            found.append(value)
    return found


class _Flat(nn.Module):
    """A network as a function of tensors alone."""

    def __init__(self, network: nn.Module, given: list[Any]) -> None:
        super().__init__()
        self.network, self._given = network, given

    def forward(self, *tensors: Tensor) -> Tensor:
        left = list(tensors)
        arguments: list[Any] = []
        for value in self._given:
            if isinstance(value, Mapping):
                arguments.append({name: left.pop(0) for name in sorted(value)})
            else:
                arguments.append(None if value is None else left.pop(0))
        result: Tensor = self.network(*arguments)
        return result
