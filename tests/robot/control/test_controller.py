from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.robot.control.chunks import Chunk, PredictorThread, Request
from policy_accel.robot.control.clock import RealClock, SimulatedClock
from policy_accel.robot.control.config import ControlConfig
from policy_accel.robot.control.controller import Controller
from policy_accel.robot.control.delayed import SimulatedPredictions, SimulatedPredictor
from policy_accel.robot.control.promptness import ACTING, PREDICTING, real_time
from policy_accel.robot.control.sensors import Sensors

AHEAD, EVERY, RATE = 15, 8, 10.0


def chunk_of(request: Request, after: int = 0) -> Chunk:
    """Actions that say for which control step they are, and of which observation: [step, number seen, chunk]."""
    steps = request.tick + np.arange(AHEAD + after)
    seen = request.observations[-1]["state"][0]
    return Chunk(request.tick, np.stack([steps, np.full_like(steps, seen), 0 * steps + request.number], 1), AHEAD)


def take(observation: Any) -> dict[str, np.ndarray]:
    return {"state": np.asarray(observation, dtype=float)}


class Simulated:
    """A controller beside a simulated clock, and what its predictor was asked for."""

    def __init__(
        self,
        delay: float = 0.0,
        after: int = 0,
        latency: float | None = None,
        n_obs_steps: int = 2,
        starting: float = 0.0,
        **settings: Any,
    ) -> None:
        self.clock, self.delay, self.requests = SimulatedClock(), delay, list[Request]()
        self.predictions = SimulatedPredictions(self.chunks, self.clock, delay)
        self.after, self.broken = after, False
        self.controller = Controller(
            SimulatedPredictor(self.predictions),
            take,
            Sensors((), 3),
            n_obs_steps=n_obs_steps,
            n_action_steps=EVERY,
            config=ControlConfig(RATE, **settings),
            clock=self.clock,
            latency=delay if latency is None else latency,
            starting=starting,
        )

    def chunks(self, requests: Sequence[Request]) -> list[Chunk]:
        self.requests += requests
        if self.broken:
            raise UserError("broken")
        return [chunk_of(request, self.after) for request in requests]

    def play(self, steps: int) -> np.ndarray:
        """Actions [steps, 3] of control steps; the robot sees how often it has seen something."""
        actions = []
        for _ in range(steps):
            actions.append(self.controller.act([len(actions)]))
            self.controller.wait()
        return np.array(actions)


def test_without_delay_a_chunk_is_executed_from_its_first_action() -> None:
    for mode in ("sync", "async"):
        played = Simulated(mode=mode)
        actions = played.play(20)
        assert actions[:, 0].tolist() == list(range(20))
        assert actions[:, 1].tolist() == [0] * 8 + [8] * 8 + [16] * 4
        assert [[row["state"][0] for row in request.observations] for request in played.requests] == [
            [0, 0],
            [7, 8],
            [15, 16],
        ]
        assert played.controller.late_calls == 0


def test_actions_whose_time_has_passed_are_skipped() -> None:
    played = Simulated(delay=0.25, mode="async")
    actions = played.play(40)
    assert actions[:, 0].tolist() == list(range(40))  # the action of its own time, always
    assert actions[:, 1].tolist() == [0] * 11 + [8] * 8 + [16] * 8 + [24] * 8 + [32] * 5
    assert [request.latency_steps for request in played.requests] == [3] * 5
    assert (played.controller.n_latency_steps, played.controller.late_calls) == (3, 0)


def test_the_latency_is_learned_and_old_delays_are_forgotten() -> None:
    played = Simulated(delay=0.2, latency=0.0, mode="async")
    assert played.controller.n_latency_steps == 0
    played.play(12)
    assert played.controller.n_latency_steps == 2
    played.predictions.seconds = 0.45
    played.play(30)
    assert played.controller.n_latency_steps == 5
    played.predictions.seconds = 0.1
    played.play(100)
    assert played.controller.n_latency_steps == 1


def test_a_chunk_is_asked_for_early_enough() -> None:
    """A chunk sees 15 steps: with a delay of 7 there are 8 between two predictions, whatever is asked for."""
    played = Simulated(delay=0.7, mode="async")
    played.play(60)
    assert [request.tick for request in played.requests] == [0, 8, 16, 24, 32, 40, 48]
    assert played.controller.late_calls == 0
    played = Simulated(delay=0.7, mode="async", replan_every=12)
    played.play(60)
    assert [request.tick for request in played.requests][:3] == [0, 8, 16]
    assert played.controller.late_calls == 0


def test_streaming_predicts_without_pause() -> None:
    played = Simulated(delay=0.2, mode="streaming")
    actions = played.play(12)
    assert actions[:, 0].tolist() == list(range(12))
    assert actions[:, 1].tolist() == [0, 0, 0, 1, 1, 3, 3, 5, 5, 7, 7, 9]
    played = Simulated(mode="streaming")
    assert played.play(5)[:, 1].tolist() == [0, 1, 2, 3, 4]


def test_a_robot_that_waits_stands_still_and_so_does_its_plan() -> None:
    played = Simulated(delay=0.2, mode="sync")
    actions = played.play(24)
    assert actions[:, 0].tolist() == [*range(8), 7, 7, *range(8, 16), 15, 15, *range(16, 20)]
    assert played.controller.late_calls == 4
    assert [request.latency_steps for request in played.requests] == [0, 0, 0]


@pytest.mark.parametrize(
    ("when_late", "after", "expected"),
    [("hold", 0, [14] * 5), ("extrapolate", 2, [15, 16, 16, 16, 16])],
)
def test_what_is_done_when_no_action_is_left(when_late: str, after: int, expected: list[int]) -> None:
    played = Simulated(delay=2.0, after=after, mode="async", when_late=when_late)
    actions = played.play(20)
    assert actions[:, 0].tolist() == [*range(15), *expected]
    assert played.controller.late_calls == 5


def test_a_robot_may_be_stopped_instead() -> None:
    played = Simulated(delay=2.0, mode="async", when_late="stop")
    played.play(15)
    with pytest.raises(UserError, match=r"no action is left: the policy sees 15 steps ahead"):
        played.play(1)


def test_an_episode_begins_afresh() -> None:
    played = Simulated(delay=0.3, mode="async")
    played.play(10)  # a prediction is under way
    played.controller.reset(seed=5)
    assert played.play(3)[:, :2].tolist() == [[0, 0], [1, 0], [2, 0]]
    last = played.requests[-1]
    assert (last.seed, last.number, last.tick) == (5, 0, 0)
    assert [row["state"][0] for row in last.observations] == [0, 0]


def test_timestamps_of_observations_and_motions() -> None:
    """A camera that is 0.2 s late and an arm that moves 0.1 s after its command: three steps more are skipped."""
    played = Simulated(delay=0.2, mode="async", action_delay=0.1)
    actions = []
    for _ in range(14):
        actions.append(played.controller.act([0], observed=played.clock.now() - 0.2))
        played.controller.wait()
    assert [int(action[0]) for action in actions] == list(range(1, 15))
    assert [request.tick for request in played.requests] == [0, 8]
    assert played.controller.n_latency_steps == 4


@pytest.mark.parametrize(
    ("observed", "says"),
    [
        (-0.7, "too old: observed=-0.7 was 0.7 s ago, and missing_limit allows 0.5 s. Look at the sensor, raise"),
        (0.2, "observed=0.2 is 0.2 s in the future; give time.monotonic() at the moment it was taken, not time.time()"),
        (float("nan"), "observed=nan is no time; give time.monotonic()"),
        (1.8e9, "observed=1800000000 is 1.8e+09 s in the future; give time.monotonic()"),
    ],
)
def test_an_old_observation_or_one_of_another_clock_is_refused(observed: float, says: str) -> None:
    controller = Simulated(mode="async").controller
    controller.act([0], observed=-0.5)
    with pytest.raises(UserError, match=re.escape(says)):
        controller.act([0], observed=observed)
    controller.act([0], observed=0.0)


def test_a_reading_from_before_the_controller_was_ready_is_told_apart() -> None:
    controller = Simulated(mode="async", starting=1.5).controller
    clause = "It was taken before the controller was ready (1.5 s): read sensors after it. Look at"
    with pytest.raises(UserError, match=re.escape(clause)):
        controller.act([0], observed=-1.9)
    with pytest.raises(UserError, match=r"allows 0\.5 s\. Look at the sensor"):
        controller.act([0], observed=-2.1)


def test_steps_that_nobody_called_for_are_skipped() -> None:
    played = Simulated(mode="async")
    played.play(3)
    played.clock.sleep_until(0.65)
    assert played.controller.act([0])[0] == 6
    assert played.controller.skipped_steps == 3
    assert played.controller.act([0])[0] == 6  # a call before the next step gives the same again
    played.controller.wait()
    assert played.clock.now() == pytest.approx(0.7)


def test_one_observation_of_each_step_is_remembered() -> None:
    played = Simulated(n_obs_steps=3, mode="async")
    played.play(7)
    for seen in (70, 71):
        played.controller.act([seen])  # again, in the step of number 7
    played.controller.wait()
    played.controller.act([8])
    assert [row["state"][0] for row in played.requests[-1].observations] == [6, 71, 8]


def test_what_goes_wrong_in_a_prediction_is_told_and_can_be_tried_again() -> None:
    played = Simulated(mode="async")
    played.broken = True
    with pytest.raises(UserError, match="broken"):
        played.play(1)
    played.broken = False
    assert played.play(1)[0, 0] == 0


class TestSensors:
    def test_the_last_good_value_stands_in_for_what_is_missing(self) -> None:
        sensors = Sensors((), limit=2)
        buffer = {"arm": np.array([1.0, 2.0]), "camera": np.ones((2, 2, 3), np.uint8)}
        sensors.complete(buffer)
        buffer["arm"][:] = 3.0
        for broken in ({"arm": [np.nan, 0.0], "camera": buffer["camera"]}, {"camera": buffer["camera"]}):
            assert sensors.complete(broken)["arm"].tolist() == [1.0, 2.0]
        with pytest.raises(UserError, match="'arm' is missing or not finite for the 3th time"):
            sensors.complete({"arm": None, "camera": buffer["camera"]})
        assert sensors.complete({**buffer, "camera": None})["arm"].tolist() == [3.0, 3.0]
        assert sensors.complete(None)["camera"].shape == (2, 2, 3)
        assert sensors.missing == 4

    def test_an_episode_begins_with_a_whole_observation(self) -> None:
        sensors = Sensors((), limit=2)
        for observation in (None, [np.inf], {"arm": None}):
            with pytest.raises(UserError, match="an episode begins with a whole one"):
                sensors.complete(observation)
        sensors.complete([1.0])
        assert sensors.complete(None).tolist() == [1.0]
        sensors.reset()
        with pytest.raises(UserError, match="an episode begins with a whole one"):
            sensors.complete(None)

    def test_what_a_policy_does_not_see_may_be_anything(self) -> None:
        sensors = Sensors(("state",), limit=0)
        for force in (np.nan, 1.0, None):
            assert sensors.complete({"state": [1.0], "force": force})["force"] is force
        assert sensors.missing == 0

    def test_a_controller_goes_on_without(self) -> None:
        played = Simulated(mode="async")
        controller = played.controller
        for observation in ([0.0], [np.nan], None, [np.nan]):
            controller.act(observation)
            controller.wait()
        with pytest.raises(UserError, match=r"4.. time in a row.*missing_limit"):
            controller.act(None)
        assert controller.sensors.missing == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rate": 0.0}, "rate=0.0 must be above 0"),
        ({"rate": float("nan")}, "rate=nan must be above 0"),
        ({"mode": "fast"}, "mode 'fast' is unknown"),
        ({"joining": "none"}, "joining 'none' is unknown"),
        ({"when_late": "panic"}, "when_late 'panic' is unknown"),
        ({"replan_every": 0}, "replan_every=0 must be at least 1"),
        ({"mode": "streaming", "replan_every": 2}, "has no effect with mode=streaming"),
        ({"action_delay": -0.1}, "action_delay=-0.1 must be a number of seconds"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ControlConfig(**{"rate": RATE, **settings}).check()


def test_a_clock_sleeps_until_a_moment() -> None:
    clock = RealClock()
    moment = clock.now() + 0.01
    clock.sleep_until(moment)
    assert moment <= clock.now() <= time.monotonic()
    clock.sleep_until(moment)  # has passed


def test_threads_may_have_real_time_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []

    def note(_: int, policy: int, param: os.sched_param) -> None:
        given.append((threading.current_thread().name, policy, param.sched_priority))

    monkeypatch.setattr(os, "sched_setscheduler", note)
    predictor = PredictorThread(chunk_of, PREDICTING)
    config = ControlConfig(RATE, real_time=True)
    clock = SimulatedClock()
    with Controller(predictor, take, Sensors((), 3), n_obs_steps=2, n_action_steps=EVERY, config=config, clock=clock):
        assert (threading.current_thread().name, os.SCHED_FIFO, ACTING) in given
    assert ("policy", os.SCHED_FIFO, PREDICTING) in given
    assert [policy for _, policy, _ in given].count(os.sched_getscheduler(0)) == 2  # as before, both

    def refuse(*_: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(UserError, match=r"real_time=true needs the right .* \(not permitted\)"), real_time(ACTING):
        pass


def test_the_thread_that_acts_does_not_wait_for_the_one_that_predicts() -> None:
    """The second prediction ends when it is allowed to, and 6 actions are handed out before."""
    allowed, begun = threading.Semaphore(1), threading.Semaphore(0)

    def predict(request: Request) -> Chunk:
        begun.release()
        assert allowed.acquire(timeout=30)
        return chunk_of(request)

    clock, predictor = SimulatedClock(), PredictorThread(predict)
    how = {"n_obs_steps": 2, "n_action_steps": EVERY, "config": ControlConfig(RATE), "clock": clock}
    controller = Controller(predictor, take, Sensors((), 3), **how)
    interval = sys.getswitchinterval()
    with controller:
        assert sys.getswitchinterval() < interval
        actions = []
        for step in range(20):
            actions.append(controller.act([step]))
            controller.wait()
            if step == 14:
                allowed.release()
                assert begun.acquire(timeout=30)
                while predictor._chunks.empty():
                    time.sleep(0.001)
        assert [action[0] for action in actions] == list(range(20))
        assert [action[1] for action in actions] == [0] * 15 + [8] * 5
        assert (controller.late_calls, controller.skipped_steps, controller.n_latency_steps) == (0, 0, 7)
        allowed.release()
        controller.reset()  # the third prediction is under way
        allowed.release()
        assert controller.act([0])[:2].tolist() == [0, 0]
    controller.reset()
    with pytest.raises(UserError, match="the controller is closed"):
        controller.act([0])
    assert sys.getswitchinterval() == interval
    assert not any(thread.name == "policy" for thread in threading.enumerate())
