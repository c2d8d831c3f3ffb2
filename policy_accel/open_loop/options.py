"""What `policy-accel evaluate` was asked to measure on demonstrations."""

from __future__ import annotations

import argparse

from policy_accel.errors import UserError
from policy_accel.open_loop.check import OpenLoopConfig
from policy_accel.policy.demonstrations import TaskConfig
from policy_accel.robot.control.config import DRIVING
from policy_accel.track import replaced
from policy_accel.training.averages import ALL

ROLLOUTS = ("episodes", "seed", "workers", "videos", "camera", "fresh", "delay_ms", *DRIVING)
"""Arguments that say how a simulator is used."""


def asked_open_loop(options: argparse.Namespace, task: TaskConfig) -> OpenLoopConfig | None:
    """On what a run is checked without a simulator: --data, or the run's own data where its task has no environment;
    None for rollouts.

    Raises:
        UserError: arguments of the other kind.
    """
    if options.data is None and task.environment is not None:
        for name in ("layout", "data_episodes", "windows"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} is for demonstrations; add --data PATH, or drop it.")
        return None
    why = "its task has no environment" if options.data is None else "--data measures demonstrations"
    for name in ROLLOUTS:
        if getattr(options, name) not in (None, False):
            raise UserError(
                f"--{name.replace('_', '-')} is for rollouts, and {why}; drop it (--data-episodes and --windows choose "
                "what is measured)."
            )
    if options.average == ALL:
        raise UserError("--average all chooses by scores, and demonstrations give none; name one average.")
    given = replaced(OpenLoopConfig(), windows=options.windows, noise_seed=options.noise_seed)
    return replaced(given, data=options.data, layout=options.layout, episodes=options.data_episodes)
