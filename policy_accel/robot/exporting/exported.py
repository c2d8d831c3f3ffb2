"""Exported files as policies of ours: driven, scored and measured like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.policy.committed import Committed
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.observations import Observations
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.run import LoadedRun, build_policy, build_sampler
from policy_accel.robot.exporting.about import exported_form, read_about
from policy_accel.robot.exporting.compression import SCALE, Compressed
from policy_accel.robot.exporting.export import first_line, quiet
from policy_accel.robot.exporting.session import OnnxFunction
from policy_accel.robot.exporting.torch_policy import TorchPolicy
from policy_accel.robot.exporting.whole import NOISE, PLAN
from policy_accel.run_sampling import AskedSampling

Engine = Callable[[dict[str, Tensor]], Tensor]
"""The trajectories [B, horizon, channels] that a file gives for its inputs."""


class ExportedPolicy(DiffusionPolicy):
    """A policy whose trajectories a file makes: it has no network here, and its sampler is fixed.

    Args:
        config: of the run.
        about: what the file says of itself.
        engine: runs the file, on the CPU's tensors.
    """

    fixed = True

    def __init__(self, config: RobotConfig, about: dict[str, Any], engine: Engine) -> None:
        facts = about["policy"]
        super().__init__(
            config.policy,
            None,
            observation_dim=facts["observation_dim"],
            action_dim=facts["action_dim"],
            images={name: tuple(shape) for name, shape in facts["images"].items()},
            goal_columns=facts["goal_columns"],
            action_rotation=config.task.action_rotation,
        )
        for name, state in facts["normalizers"].items():
            normalizer = getattr(self, name)
            kinds = {key: values.dtype for key, values in normalizer.state_dict().items()}
            normalizer.load_state_dict({key: torch.tensor(values, dtype=kinds[key]) for key, values in state.items()})
        self._dtypes = {name: getattr(torch, entry["dtype"]) for name, entry in about["inputs"].items()}
        self._rows = None if about["batch"] == "any" else int(about["batch"])
        self._engine = engine

    @torch.no_grad()
    def plan(self, observations: Observations, noise: Tensor, **how: Any) -> Tensor:
        """See `DiffusionPolicy.plan`.

        Raises:
            UserError: a trajectory to start from, or committed actions, which the file has no inputs for.
        """
        if how.get("start") is not None or isinstance(how.get("committed"), Committed):
            raise UserError(
                "an exported file always samples from noise, without a trajectory to start from (warm_start) and "
                "without committed actions (real-time chunking); load the run for these, or leave them out."
            )
        given = {**(observations if isinstance(observations, dict) else {"state": observations}), NOISE: noise}
        given = {name: given[name].to(dtype) for name, dtype in self._dtypes.items()}
        if self._rows is None:
            return self._engine(given)
        pieces = zip(*(tensor.split(self._rows) for tensor in given.values()), strict=True)
        return torch.cat([self._engine(dict(zip(given, piece, strict=True))) for piece in pieces])


def load_exported(path: Path, config: RobotConfig, device: torch.device | str, asked: AskedSampling) -> LoadedRun:
    """The policy of an exported file.

    Args:
        path: of the file.
        config: of the run, as the file has it.
        device: where the weights of a safetensors file go, and what runs the others.
        asked: how it is sampled; only weights alone leave a choice.

    Raises:
        UserError: a damaged file, a package that is missing, sampling that the file does not have.
    """
    about, form = read_about(path), exported_form(path)
    facts = about["policy"]
    trained, device = config.sampling, torch.device(device)
    config.sampling, _ = asked.of_run(trained)
    if form != "safetensors" and config.sampling != trained:
        raise UserError(
            f"{path} has its sampler inside, {trained.sampler} with {about['network_evaluations']} evaluations; "
            "export the run again with the sampling that you want."
        )
    sampler = build_sampler(config)
    try:
        if form == "safetensors":
            policy = _of_weights(path, config, facts)
            config.training.lay_out(policy, device)
        else:
            policy = _of_program(path, form, config, about, device)
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged, or not whole ({first_line(error)}); export it again.") from error
    policy.eval().requires_grad_(False)
    return LoadedRun(policy, config, int(about["step"]), sampler, facts["env_args"], source=path)


def _of_weights(path: Path, config: RobotConfig, facts: dict[str, Any]) -> DiffusionPolicy:
    kept = safetensors.torch.load_file(path)
    scales = {name: kept.pop(f"{name}.{SCALE}") for name in list(kept) if f"{name}.{SCALE}" in kept}
    parts = {name: {"": values} | ({SCALE: scales[name]} if name in scales else {}) for name, values in kept.items()}
    policy = build_policy(
        config,
        facts["observation_dim"],
        facts["action_dim"],
        images=facts["images"],
        resized=facts["resized"],
        goal_columns=facts["goal_columns"],
    )
    policy.load_state_dict({name: Compressed.expanded(tensors) for name, tensors in parts.items()})
    return policy


def _of_program(
    path: Path, form: str, config: RobotConfig, about: dict[str, Any], device: torch.device
) -> ExportedPolicy:
    engine = OnnxFunction(path, PLAN, device.type) if form == "onnx" else _TorchProgram(path, device)
    return ExportedPolicy(config, about, engine)


class _TorchProgram:
    """The trajectories of a .pt2 file; another process loads it again."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._arguments = path, device
        with quiet():
            self._program = TorchPolicy(str(path), device=str(device)).program

    def __reduce__(self) -> Any:
        return _TorchProgram, self._arguments

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        plan: Tensor = self._program(*(value.to(self._arguments[1]) for value in given.values()))[1]
        return plan.cpu()
