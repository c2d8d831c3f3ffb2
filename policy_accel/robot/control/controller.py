"""A loop around a policy in which every action is there in time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.robot.control.chunks import Chunk, Predictor, Request
from policy_accel.robot.control.clock import Clock
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.promptness import ACTING, prompt_threads, real_time
from policy_accel.robot.control.sensors import Sensors

EARLY = 0.1
"""Share of a control step by which a call may come before its time."""
REMEMBERED_DELAYS = 10


class Controller:
    """Hands out the action of each control step of 1 / rate seconds, and has chunks predicted meanwhile.

    The first call of an episode waits for its chunk, while the robot stands still; then control steps are counted. Row
    i of a chunk is for the step of its newest observation plus i: when it arrives, the rows whose time has passed are
    skipped. The largest delay of the last ten chunks is `n_latency_steps`; a chunk is asked for early enough for it.
    With mode=sync the robot stands still during a prediction, and so does the count.

    Args:
        predictor: of chunks.
        take: what the policy takes of an observation.
        sensors: fill in what is missing of an observation.
        n_obs_steps: observations that the policy sees.
        n_action_steps: actions between two predictions, unless the settings say otherwise.
        config: the settings.
        clock: by which steps are counted.
        latency: seconds of a prediction, as expected of the first one.
        starting: seconds that passed before it was ready.
        slot: number of the robot, for the predictor.

    Attributes:
        calls: actions handed out.
        late_calls: those among them that were not there in time: no predicted action was left, or the call took longer
            than a control step.
        skipped_steps: control steps for which nobody called.
    """

    def __init__(
        self,
        predictor: Predictor,
        take: Callable[[Any], dict[str, np.ndarray]],
        sensors: Sensors,
        *,
        n_obs_steps: int,
        n_action_steps: int,
        config: ControlConfig,
        clock: Clock,
        latency: float = 0.0,
        starting: float = 0.0,
        slot: int = 0,
    ) -> None:
        self.config, self.clock, self.sensors = config, clock, sensors
        self.calls = self.late_calls = self.skipped_steps = 0
        self._predictor, self._take, self._slot = predictor, take, slot
        self._n_obs_steps = n_obs_steps
        self._every = 1 if config.mode == "streaming" else config.replan_every or n_action_steps
        self._period = 1 / config.rate
        self._ready, self._starting = clock.now(), starting
        self._ahead = round(config.action_delay * config.rate)
        self._delays = deque([config.steps(latency)], maxlen=REMEMBERED_DELAYS)
        self._pending: Request | None = None
        self.reset()

    @property
    def n_latency_steps(self) -> int:
        """Control steps from an observation to the first action of its chunk, as expected of the next chunk."""
        return 0 if self.config.mode == "sync" else max(self._delays)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; `seed` is that of its noise. A prediction under way is waited for and left aside."""
        if self._pending is not None:
            self._pending = None
            self._predictor.discard()
        self.sensors.reset()
        self._seed, self._number, self._step = seed, 0, 0
        self._history: deque[dict[str, np.ndarray]] = deque(maxlen=self._n_obs_steps)
        self._origin = self.clock.now()
        self._chunk: Chunk | None = None
        self._last: np.ndarray

    def act(self, observation: Any, observed: float | None = None) -> np.ndarray:
        """The action [A] to command now, in the data's units.

        A call before the next control step gives the action of this one again.

        Args:
            observation: of now: numbers, or a dictionary of arrays; None, or a part that is None or not finite, where
                a frame is missing (see `Sensors`).
            observed: when it was taken, in seconds of the clock (`time.monotonic()`); None for now.

        Raises:
            UserError: an observation that the policy does not take; a sensor that gives nothing, or nothing new, for
                too long; a prediction that failed; with when_late=stop, no action is left.
        """
        self.begin(observation, observed)
        return self.finish()

    def wait(self) -> None:
        """Sleep until the next control step; not at all where that has begun."""
        self.clock.sleep_until(self._origin + (self._step + 1) * self._period)

    def begin(self, observation: Any, observed: float | None = None) -> None:
        """The first half of `act`: what it may ask for is predicted until `finish`."""
        self._began = self.clock.now()
        if observed is not None:
            self._check_age(self._began - observed)
        taken = self._take(self.sensors.complete(observation))
        before, self._step = self._step, self._current_step()
        self.skipped_steps += max(0, self._step - before - 1)
        if self._history and self._step == before:
            self._history.pop()
        self._history.extend([taken] * (1 if self._history else self._n_obs_steps))
        if self._chunk is None:
            self._ask(0)
            return
        self._collect(wait=False)
        seen = self._step
        if observed is not None and self.config.mode != "sync":
            seen = min(seen, round((observed - self._origin) / self._period))
        if self._pending is None and seen - self._asked >= self._due():
            self._ask(seen)

    def finish(self) -> np.ndarray:
        """The second half of `act`: the action."""
        self.calls += 1
        waits = self._chunk is None or self.config.mode == "sync"
        stood_still = waits and self._pending is not None
        first = self._chunk is None
        self._collect(wait=waits)
        now = self.clock.now()
        if stood_still:
            self._origin = now - self._step * self._period
        assert self._chunk is not None
        if self.config.mode == "sync" and self._pending is not None:
            self.late_calls += 1
            return self._last.copy()
        row = self._step + self._ahead - self._chunk.tick
        out = row >= self._chunk.predicted
        self.late_calls += not first and (out or now - self._began > self._period)
        if out and self.config.when_late == "stop":
            raise UserError(
                f"no action is left: the policy sees {self._chunk.predicted} steps ahead, and the next chunk is not "
                f"there after {row} of {1000 * self._period:.0f} ms; take fewer sampling steps, or a lower rate."
            )
        self._last = self._chunk.actions[min(row, len(self._chunk.actions) - 1)]
        return self._last.copy()

    def close(self) -> None:
        """End the predictor, after the prediction under way."""
        self._predictor.close()

    def __enter__(self) -> Controller:
        """Threads of this process take turns more often until the end, see `prompt_threads`; with real_time this thread
        goes before others of the machine."""
        self._contexts = ExitStack()
        self._contexts.callback(self.close)
        self._contexts.enter_context(prompt_threads())
        if self.config.real_time:
            self._contexts.enter_context(real_time(ACTING))
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.close()

    def _current_step(self) -> int:
        if self._chunk is None or (self.config.mode == "sync" and self._pending is not None):
            return self._step
        return max(self._step, math.floor((self._began - self._origin) / self._period + EARLY))

    def _due(self) -> int:
        """Control steps from one request to the next: fewer where a chunk would end before the next one arrives."""
        assert self._chunk is not None
        return max(1, min(self._every, self._chunk.predicted - self._ahead - self.n_latency_steps))

    def _check_age(self, age: float) -> None:
        if -self._period <= age <= self.config.missing_limit + self._period:
            return
        observed, clock = f"observed={self._began - age:.10g}", "time.monotonic() at the moment it was taken"
        if age > 0:
            waited = self._ready - (self._began - age)
            before = (
                f" It was taken before the controller was ready ({self._starting:.3g} s): read sensors after it."
                if 0 < waited <= self._starting + self.config.missing_limit
                else ""
            )
            raise UserError(
                f"the observation is too old: {observed} was {age:.3g} s ago, and missing_limit allows "
                f"{self.config.missing_limit:g} s.{before} Look at the sensor, raise missing_limit, or give {clock}."
            )
        raise UserError(
            f"{observed} is {f'{-age:.3g} s in the future' if age < 0 else 'no time'}; give {clock}, not time.time()."
        )

    def _ask(self, seen: int) -> None:
        self._asked = seen
        request = Request(
            tuple(self._history), seen, self.n_latency_steps + self._ahead, self._seed, self._number, self._slot
        )
        self._predictor.submit(request)
        self._pending = request
        self._number += 1

    def _collect(self, *, wait: bool) -> None:
        if self._pending is None:
            return
        try:
            chunk = self._predictor.take(wait=wait)
        except Exception:  # an answer too
            self._pending = None
            raise
        if chunk is not None:
            if self._chunk is not None:
                self._delays.append(self._step - self._pending.tick)
            self._chunk, self._pending = chunk, None
