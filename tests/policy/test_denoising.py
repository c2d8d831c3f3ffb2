"""A chunk being denoised: its first state is the noise, its last the actions that the policy executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from policy_accel import Policy
from policy_accel.envs.pusht import PushT
from policy_accel.envs.two_modes import TwoModes
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.denoising import watch_first_chunk
from policy_accel.policy.track import ROBOT
from policy_accel.report import chunks
from policy_accel.report.collect import collect
from policy_accel.training.randomness import named_generator


@pytest.fixture
def run_dir(tiny_config: Callable[..., RobotConfig]) -> Path:
    config = tiny_config("sampling.steps=3", "evaluation.start_seed=70")
    ROBOT.train(config)
    return Path(config.run_dir)


def test_from_the_noise_of_the_episode_to_the_actions_that_are_executed(run_dir: Path) -> None:
    policy = Policy.load(run_dir, device="cpu")
    watched = watch_first_chunk(policy, 70, [70, 5])
    assert watched.normalized.shape == (4, 2, 16, 2)
    for sample, seed in enumerate((70, 5)):
        noise = torch.randn(1, 1, 16, 2, generator=named_generator(0, "rollout", seed, 0))[0, 0]
        scale = max(1.0, float(noise.square().mean().sqrt()))
        np.testing.assert_allclose(watched.normalized[0, sample], noise / scale, rtol=1e-6)
    environment = PushT(observation="state")
    observation, _ = environment.reset(seed=70)
    policy.reset(70)
    taken = np.array([policy.act(observation) for _ in range(8)])  # the first chunk, whatever is observed after it
    assert watched.pixels is not None
    assert watched.scene is not None
    first, end = watched.executed
    assert (first, end) == (1, 9)
    # The picture is 680 px wide and high, the window of the actions 512.
    np.testing.assert_allclose(watched.pixels[-1, 0, first:end], taken * 680 / 512, rtol=1e-5)
    np.testing.assert_array_equal(watched.scene, environment.render())


def test_places_of_push_t_on_a_picture() -> None:
    places = PushT(render_mode=None).action_pixels(np.array([[0.0, 512.0], [256.0, 128.0]]), 100, 200)
    assert places.tolist() == [[0.0, 100.0], [100.0, 25.0]]


def test_places_of_the_toy_on_its_picture() -> None:
    """48 px of a picture of 256 a unit, from its middle, upwards."""
    places = TwoModes().action_pixels(np.array([[0.0, 0.0], [1.0, 2.0]]), 256, 512)
    assert places.tolist() == [[256.0, 128.0], [352.0, 32.0]]


def test_what_a_page_has_of_it(run_dir: Path) -> None:
    runs = collect([run_dir])
    (chunk,), notes = chunks.chunks_of(runs)
    assert notes == []
    assert (chunk["kind"], chunk["width"], chunk["height"], chunk["evaluations"]) == ("scene", 680, 680, [0, 1, 2, 3])
    watched = watch_first_chunk(Policy.load(run_dir, device="cpu"), 70, range(70, 78))
    np.testing.assert_allclose(chunk["steps"], watched.pixels, atol=0.051)
    assert (
        "in 3 network evaluations, over the scene: thick what is executed; faint the same from 7"
        in chunk["description"]
    )


class Silent(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment that draws nothing and does not say where its actions lie."""

    observation_space = gymnasium.spaces.Box(-1e3, 1e3, (5,), np.float32)
    action_space = gymnasium.spaces.Box(-1e3, 1e3, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):  # type: ignore[no-untyped-def]
        return np.zeros(5, dtype=np.float32), {}


def test_an_environment_that_does_not_say_where_its_actions_lie(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_accel.policy.denoising.make_environment", lambda spec, filmed: Silent())
    (chunk,), notes = chunks.chunks_of(collect([run_dir]))
    assert notes == []
    assert chunk["kind"] == "lines"
    assert np.shape(chunk["steps"]) == (4, 1, 16, 2)
    low, high = chunk["range"]
    assert low <= np.min(chunk["steps"])
    assert high >= np.max(chunk["steps"])


def test_what_cannot_be_drawn_is_said(run_dir: Path) -> None:
    """A module of a stranger's is not imported unasked; without an environment nothing can be drawn."""
    config = run_dir / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("environment_module: policy_accel.envs", "environment_module: evil"))
    drawn, (note,) = chunks.chunks_of(collect([run_dir]))
    assert drawn == []
    assert "No chunk of baseline" in note
    assert "from the module 'evil'" in note
    config.write_text(text.replace("environment: policy_accel/PushT-v0", "environment: null"))
    assert "has no environment" in chunks.chunks_of(collect([run_dir]))[1][0]
    (run_dir / "checkpoints" / "last").unlink()
    assert chunks.chunks_of(collect([run_dir]))[1] == ["baseline has no checkpoint yet."]
