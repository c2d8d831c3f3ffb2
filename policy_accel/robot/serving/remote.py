"""The controller of a robot whose policy is on a server: chunks come over the network while actions are executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy_accel.errors import UserError
from policy_accel.robot.control.chunks import Chunk, PredictorThread, Request
from policy_accel.robot.control.clock import RealClock
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.controller import Controller
from policy_accel.robot.control.sensors import Sensors
from policy_accel.robot.serving.client import PolicyClient


def remote_controller(client: PolicyClient, rate: float, **settings: Any) -> Controller:
    """`Policy.controller` for a policy that is served; torch is not needed.

    Args:
        client: which the controller alone uses from now on; its `patience` is how long a chunk may be waited for.
        rate: actions a second, as in the demonstrations.
        settings: of `ControlConfig`. Chunks are joined as joining=receding.

    Raises:
        UserError: settings that make no sense, or that need the policy itself. Its `act` raises also what the server
            refuses, when the chunk is taken.
    """
    config = ControlConfig(rate, **settings)
    config.check()
    if config.joining != "receding" or config.when_late == "extrapolate":
        name, value = ("when_late", "hold") if config.joining == "receding" else ("joining", "receding")
        raise UserError(
            f"{name}={getattr(config, name)} needs the policy itself, which is on the server; use {name}={value}."
        )
    told, entries = client.metadata, client.metadata["observation"]["entries"]

    def predict(request: Request) -> Chunk:
        client.seed, client.chunk = request.seed, request.number
        try:
            actions = client.predict(list(request.observations), horizon=True)["actions"]
        except RuntimeError as error:
            raise UserError(f"the server refuses: {error}") from error
        return Chunk(request.tick, actions, len(actions))

    def take(observation: Any) -> Any:
        if not isinstance(observation, Mapping):
            return observation
        return {name: value for name, value in observation.items() if name in entries}

    return Controller(
        PredictorThread(predict),
        take,
        Sensors(entries, limit=config.steps(config.missing_limit)),
        n_obs_steps=told["n_obs_steps"],
        n_action_steps=told["n_action_steps"],
        config=config,
        clock=RealClock(),
    )
