from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support.serving import serving

from policy_accel.errors import UserError
from policy_accel.policy.controller import Policy
from policy_accel.robot.serving.client import PolicyClient
from policy_accel.robot.serving.remote import remote_controller


def test_a_controller_whose_policy_is_on_a_server(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    predict = PolicyClient.predict

    def noted(self: PolicyClient, observations: list[Any], horizon: bool = False) -> Any:
        answer = predict(self, observations, horizon)
        if observations:
            asked.append((self.seed, self.chunk - 1, len(answer["actions"])))
        return answer

    monkeypatch.setattr(PolicyClient, "predict", noted)
    policy.reset(4)
    expected = policy.act(np.zeros(5))
    with serving(policy) as running:
        with remote_controller(PolicyClient(running.url), 50.0) as controller:
            controller.reset(4)
            actions = []
            for step in range(25):
                actions.append(controller.act({"state": np.full(5, float(step)), "other": "text"}))
                controller.wait()
        np.testing.assert_allclose(actions[0], expected, rtol=1e-4, atol=1e-3)
        assert len({action.tobytes() for action in actions}) > 10
        assert len(asked) > 2
        assert asked == [(4, number, 15) for number in range(len(asked))]
        with (
            remote_controller(PolicyClient(running.url), 50.0) as controller,
            pytest.raises(UserError, match="the server refuses: the observation has shape"),
        ):
            controller.act(np.zeros(4))
        for name, value in (("joining", "ensembling"), ("when_late", "extrapolate")):
            with pytest.raises(UserError, match=f"{name}={value} needs the policy itself"):
                remote_controller(PolicyClient(running.url), 10.0, **{name: value})


def test_it_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import policy_accel.robot.serving.remote"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
