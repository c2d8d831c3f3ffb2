"""How a policy drives a robot."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy_accel.errors import UserError, one_of

MODES = ("async", "sync", "streaming")
JOININGS = ("receding", "ensembling", "real_time_chunking", "inpainting", "warm_start")
WHEN_LATE = ("hold", "extrapolate", "stop")
DRIVING = ("rate", "mode", "joining", "when_late")
"""Settings that a rollout with delay takes from the command line and records."""


@dataclass(frozen=True)
class ControlConfig:
    """Settings of a controller."""

    rate: float
    """Actions a second: that of the demonstrations."""
    mode: str = "async"
    """When a chunk is predicted. async: while the one before is executed, every `replan_every` actions. streaming: so,
    begun again as soon as the last prediction has ended. sync: when `replan_every` actions are executed, and the robot
    waits."""
    joining: str = "receding"
    """How a chunk goes on from those before, see `policy_accel.robot.control.joining`."""
    when_late: str = "hold"
    """What is done when all predicted actions are executed and the next chunk is not there. hold: the last action
    again. extrapolate: on along the line of the last two, for n_action_steps, then hold. stop: raise."""
    replan_every: int | None = None
    """Actions from the begin of a prediction to that of the next; None for n_action_steps of the policy."""
    action_delay: float = 0.0
    """Seconds from a command to the motion; actions are commanded so much earlier."""
    missing_limit: float = 0.5
    """Seconds for which the last good value stands in for a frame or number that is missing or not finite."""
    process: bool = False
    """Whether a process of its own predicts, which takes some seconds to start and holds the weights again. Then the
    thread that acts never waits for the interpreter's lock, which a busy machine may take from a predicting thread."""
    real_time: bool = False
    """Whether the threads that act and predict have real-time priority: a busy machine then holds up neither. It takes
    the right to it, and a predicting thread may keep others from one core."""

    def check(self) -> None:
        """Raise UserError unless the settings make sense."""
        one_of("mode", self.mode, MODES)
        one_of("joining", self.joining, JOININGS)
        one_of("when_late", self.when_late, WHEN_LATE)
        if not 0 < self.rate < math.inf:
            raise UserError(f"rate={self.rate} must be above 0: actions a second, as in the demonstrations.")
        for name in ("action_delay", "missing_limit"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)} must be a number of seconds, at least 0.")
        if self.replan_every is not None and self.mode == "streaming":
            raise UserError(f"replan_every={self.replan_every} has no effect with mode=streaming; choose async.")
        if self.replan_every is not None and self.replan_every < 1:
            raise UserError(f"replan_every={self.replan_every} must be at least 1.")

    def steps(self, seconds: float) -> int:
        """Control steps that `seconds` take, rounded up."""
        return math.ceil(seconds * self.rate - 1e-9)
