"""Scoring a policy that takes its time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from policy_accel.errors import UserError
from policy_accel.evaluation.latency import LatencyMeter
from policy_accel.evaluation.rollouts import Act
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.robot.control.chunks import Chunk, Request
from policy_accel.robot.control.config import DRIVING, ControlConfig
from policy_accel.robot.control.delayed import DelayConfig, DelayedAct
from policy_accel.robot.control.joining import ChunkPredictor


class DelayedEvaluator(PolicyEvaluator):
    """A `PolicyEvaluator` whose environments do not wait while a chunk is predicted.

    Args:
        arguments: see `PolicyEvaluator`.
        delay: how long a chunk takes, and how the policy is driven meanwhile.
        more: see `PolicyEvaluator`.

    Raises:
        UserError: settings that make no sense; and as `PolicyEvaluator`.
    """

    def __init__(self, *arguments: Any, delay: DelayConfig, **more: Any) -> None:
        delay.check()
        self.delay, self._delayed = delay, list[DelayedAct]()
        super().__init__(*arguments, **more)

    def __call__(self, policy: DiffusionPolicy, report: Callable[[str], None]) -> dict[str, Any]:
        """See `PolicyEvaluator.__call__`; also the settings as "control", and how many actions were late."""
        result = super().__call__(policy, report)
        counts = self.ranks.collect(self._delayed.pop().counts)
        sums = {name: sum(count[name] for count in counts) for name in counts[0]}
        return {**result, "control": self.delay.record(), **sums}

    def _act(self, policy: DiffusionPolicy) -> Act:
        policy.eval()
        predict = ChunkPredictor(
            policy, self.sampler, self.training, self.delay.control, noise_seed=self.config.noise_seed
        )
        meter = self.latency = LatencyMeter(policy.device)

        def chunks(requests: Sequence[Request]) -> list[Chunk]:
            with meter.call():
                return predict.chunks(requests)

        act = DelayedAct(
            chunks,
            lambda observation: self.layout.taken(observation, policy.input_dim, policy.images),
            n_obs_steps=policy.config.n_obs_steps,
            n_action_steps=policy.config.n_action_steps,
            config=self.delay,
            slots=self.pool.slots,
        )
        self._delayed.append(act)
        return act


def asked_delay(options: argparse.Namespace) -> DelayConfig | None:
    """What `policy-accel evaluate` was asked for: --delay-ms, and how the policy is driven.

    Raises:
        UserError: settings without a delay, or a delay without a rate.
    """
    given = {name: getattr(options, name) for name in DRIVING}
    given = {name: value for name, value in given.items() if value is not None}
    if options.delay_ms is None:
        for name, value in given.items():
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {value} has no effect without --delay-ms; add it, 0 for a prediction at once.")
        return None
    if "rate" not in given:
        raise UserError(
            f"--delay-ms {options.delay_ms:g} says nothing without --rate, the steps of the environment a second; add "
            "it (Push-T was recorded at 10)."
        )
    delay = DelayConfig(options.delay_ms / 1000, ControlConfig(**given))
    delay.check()
    return delay
