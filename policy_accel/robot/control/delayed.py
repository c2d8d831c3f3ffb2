"""Rollouts in which the simulator does not wait for the policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.evaluation.episode import Observation
from policy_accel.robot.control.chunks import Chunk, Request
from policy_accel.robot.control.clock import Clock, SimulatedClock
from policy_accel.robot.control.config import DRIVING, ControlConfig
from policy_accel.robot.control.controller import Controller
from policy_accel.robot.control.sensors import Sensors

ROUNDING = 1e-9


@dataclass(frozen=True)
class DelayConfig:
    """How long a chunk takes in simulated time, and how the policy is driven meanwhile."""

    seconds: float
    control: ControlConfig

    def check(self) -> None:
        """Raise UserError unless the settings make sense."""
        self.control.check()
        if not 0 <= self.seconds < math.inf:
            raise UserError(f"a delay of {1000 * self.seconds:g} ms must be at least 0.")

    def record(self) -> dict[str, Any]:
        """As it stands in evaluation.json."""
        return {"delay_ms": 1000 * self.seconds, **{name: getattr(self.control, name) for name in DRIVING}}


Chunks = Callable[[Sequence[Request]], list[Chunk]]


class SimulatedPredictions:
    """Predictions that are there a fixed time after they are asked for; the first of an episode at once. What several
    robots ask for is predicted together, when the first of it is due."""

    def __init__(self, chunks: Chunks, clock: Clock, seconds: float) -> None:
        self._chunks, self.clock, self.seconds = chunks, clock, seconds
        self._asked: dict[int, Request] = {}
        self._made: dict[int, Chunk] = {}

    def ask(self, request: Request) -> None:
        """Remember what a slot asks for, in place of what it asked for before."""
        self.forget(request.slot)
        self._asked[request.slot] = request

    def chunk(self, slot: int) -> Chunk:
        """What the slot asked for."""
        if slot not in self._made:
            requests, self._asked = list(self._asked.values()), {}
            for request, chunk in zip(requests, self._chunks(requests), strict=True):
                self._made[request.slot] = chunk
        return self._made.pop(slot)

    def forget(self, slot: int) -> None:
        """Drop what the slot asked for."""
        self._asked.pop(slot, None)
        self._made.pop(slot, None)


class SimulatedPredictor:
    """The `Predictor` of one slot. It cannot wait: time goes on only when all slots have acted."""

    def __init__(self, predictions: SimulatedPredictions) -> None:
        self._predictions = predictions

    def submit(self, request: Request) -> None:
        """See `Predictor.submit`."""
        self._slot = request.slot
        self._ready = self._predictions.clock.now() + (self._predictions.seconds if request.number else 0.0)
        self._predictions.ask(request)

    def take(self, *, wait: bool) -> Chunk | None:
        """See `Predictor.take`."""
        if self._predictions.clock.now() < self._ready - ROUNDING:
            return None
        return self._predictions.chunk(self._slot)

    def discard(self) -> None:
        """See `Predictor.discard`."""
        self._predictions.forget(self._slot)

    def close(self) -> None:
        """See `Predictor.close`."""


class DelayedAct:
    """An `Act` of one action a round: every slot has the controller of a robot, on a simulated clock.

    Args:
        chunks: predicts for several slots.
        take: what the policy takes of an observation.
        n_obs_steps: observations that the policy sees.
        n_action_steps: actions between two predictions, unless the settings say otherwise.
        config: delay and control.
        slots: episodes in parallel.
    """

    def __init__(
        self,
        chunks: Chunks,
        take: Callable[[Any], dict[str, np.ndarray]],
        *,
        n_obs_steps: int,
        n_action_steps: int,
        config: DelayConfig,
        slots: int,
    ) -> None:
        self._clock, self._period, self._rounds = SimulatedClock(), 1 / config.control.rate, 0
        predictions = SimulatedPredictions(chunks, self._clock, config.seconds)
        self._controllers = [
            Controller(
                SimulatedPredictor(predictions),
                take,
                Sensors((), limit=0),  # an environment has no bad frames
                n_obs_steps=n_obs_steps,
                n_action_steps=n_action_steps,
                config=config.control,
                clock=self._clock,
                latency=config.seconds,
                slot=slot,
            )
            for slot in range(slots)
        ]

    @property
    def counts(self) -> dict[str, int]:
        """Actions that were handed out, and those among them that were not there in time."""
        return {
            "calls": sum(controller.calls for controller in self._controllers),
            "late_calls": sum(controller.late_calls for controller in self._controllers),
        }

    def __call__(self, observations: Observation, seeds: np.ndarray, chunk_index: np.ndarray) -> np.ndarray:
        """See `Act`: actions [slots, 1, A]."""
        busy = [slot for slot in range(len(seeds)) if seeds[slot] >= 0]
        for slot in busy:
            controller = self._controllers[slot]
            if chunk_index[slot] == 0:
                controller.reset(int(seeds[slot]))
            controller.begin(_newest(observations, slot))
        actions = {slot: self._controllers[slot].finish() for slot in busy}
        self._rounds += 1
        self._clock.sleep_until(self._rounds * self._period)
        idle = np.zeros_like(actions[busy[0]])
        return np.stack([actions.get(slot, idle) for slot in range(len(seeds))])[:, None]


def _newest(observations: Observation, slot: int) -> Any:
    if isinstance(observations, dict):
        return {key: values[slot, -1] for key, values in observations.items()}
    return observations[slot, -1]
