from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_accel import Policy
from policy_accel.errors import UserError
from policy_accel.policy.planner import Planner
from policy_accel.robot.exporting import compiled

SEEN = np.array([1.0, -2.0, 0.5, 3.0, 0.1])


def test_a_compiled_policy_acts_as_before_by_other_kernels(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Policy.load(run_dir, device="cpu", warm_start=0.5)
    quick = Policy.load(run_dir, device="cpu", warm_start=0.5, compile=True)
    assert quick.latency.seconds == []
    eager: list[Any] = []
    network = quick.run.policy.denoiser
    computes = network.forward.eager  # type: ignore[attr-defined]
    monkeypatch.setattr(network.forward, "eager", lambda *given: eager.append(given) or computes(*given))
    expected, acted = ([policy.act(SEEN) for _ in range(20)] for policy in (plain, quick))
    np.testing.assert_allclose(acted, expected, atol=1e-4)
    assert not eager
    monkeypatch.undo()
    twin = pickle.loads(pickle.dumps(quick.run)).policy.denoiser  # as a predicting process gets it
    assert type(twin.forward) is type(network.forward)
    quick.warm_up()  # again, which has nothing left to compile
    assert quick.run.policy.denoiser.forward is network.forward

    window = torch.from_numpy(np.stack([SEEN, SEEN]))
    noise = torch.randn(3, *quick.run.policy.noise_shape(quick.run.sampler))
    several = window.expand(3, 2, 5)
    planners = [Planner(policy.run.policy, policy.run.sampler, policy.run.config.training) for policy in (plain, quick)]
    torch.testing.assert_close(*(planner(several, noise) for planner in planners))


def test_what_cannot_be_compiled_is_refused_where_it_was_asked_for(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="precision=bf16 is not compiled"):
        Policy.load(run_dir, device="cpu", precision="bf16", compile=True)
    half = Policy.load(run_dir, device="cpu", precision="bf16")
    half.warm_up()
    exact = Policy.load(run_dir, device="cpu").act(SEEN)
    difference = np.abs(half.act(SEEN) - exact).max()
    assert 0 < difference < 0.1
    run = half.run  # every planner of the policy computes so, also those of a controller and of a server
    observed, noise = torch.zeros(1, 2, 5), torch.zeros(1, *run.policy.noise_shape(run.sampler))
    exact_plan = run.policy.plan(observed, noise, sampler=run.sampler)
    assert not torch.equal(Planner(run.policy, run.sampler, run.config.training)(observed, noise), exact_plan)
    monkeypatch.setattr(compiled, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package.*pip install"):
        Policy.load(run_dir, device="cpu", compile=True)
    policy = Policy.load(run_dir, device="cpu")
    policy.warm_up()
    np.testing.assert_array_equal(policy.act(SEEN), exact)
