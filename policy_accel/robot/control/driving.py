"""A policy on a robot's own clock."""

from __future__ import annotations

import numpy as np

from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.controller import Policy
from policy_accel.robot.control.chunks import Chunk, PredictorThread, Request
from policy_accel.robot.control.clock import RealClock
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.controller import Controller
from policy_accel.robot.control.process import PredictingProcess, order_of
from policy_accel.robot.control.promptness import PREDICTING, real_time
from policy_accel.robot.control.sensors import Sensors

WARM_UP = 6
"""Predictions before the first action: what first calls make is there then, a CUDA graph too, and the last is timed."""
NOBODY = -1


def controller_of(policy: Policy, config: ControlConfig) -> Controller:
    """The controller of one robot, whose chunks a thread predicts. Some predictions warm it up and tell its latency.

    Raises:
        UserError: settings that make no sense or that do not go together; a prediction that is not finite.
    """
    clock = RealClock()
    called = clock.now()
    config.check()
    run, layout, network = policy.run, policy.layout, policy.run.policy
    order = order_of(run, config, noise_seed=policy.noise_seed, warm_start=policy.warm_start)
    if config.real_time:
        with real_time(PREDICTING):  # refused here where it may not be
            pass
    predict = order.predictor()  # refuses what does not go together
    remote = PredictingProcess(order) if config.process else None

    def timed(request: Request) -> Chunk:
        with policy.latency.call():
            return predict(request) if remote is None else remote(request)

    predictor = PredictorThread(
        timed, PREDICTING if config.real_time else 0, end=remote.close if remote else (lambda: None)
    )
    try:
        zeros = {STATE: np.zeros(network.input_dim)}
        zeros |= {name: np.zeros(shape, np.uint8) for name, shape in network.images.items()}
        window = [zeros] * network.config.n_obs_steps
        for number in range(WARM_UP):
            began = clock.now()
            predictor.submit(Request(window, number, number=number, slot=NOBODY))
            predictor.take(wait=True)
        latency = clock.now() - began
    except BaseException:
        predictor.close()
        raise
    return Controller(
        predictor,
        lambda observation: layout.taken(observation, network.input_dim, network.images),
        Sensors(layout.entries, limit=config.steps(config.missing_limit)),
        n_obs_steps=network.config.n_obs_steps,
        n_action_steps=network.config.n_action_steps,
        config=config,
        clock=clock,
        latency=latency,
        starting=clock.now() - called,
    )
