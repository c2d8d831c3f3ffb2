"""A chunk of actions on its way from noise, as the network sees it at each of its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.evaluation.environments import import_environment, make_environment
from policy_accel.evaluation.scene import ActionsOnScene
from policy_accel.policy.actions import decode_actions
from policy_accel.policy.controller import Policy
from policy_accel.policy.evaluate import environment_spec


@dataclass(frozen=True)
class WatchedChunk:
    """A chunk being denoised, several times from other noise.

    Attributes:
        normalized: what the network saw at each evaluation and, last, the result: [K + 1, samples, horizon, A] float32,
            normalised; what has a root mean square above 1, as noise of edm, is brought down to it.
        executed: first and one past the last step of the horizon that would be executed.
        pixels: the same actions in the data's units as places on `scene`, [K + 1, samples, horizon, 2]; None where the
            environment does not say where its actions lie.
        scene: what the environment drew, uint8 [H, W, 3]; None like `pixels`.
    """

    normalized: np.ndarray
    executed: tuple[int, int]
    pixels: np.ndarray | None = None
    scene: np.ndarray | None = None


def watch_first_chunk(policy: Policy, episode: int, noises: Sequence[int]) -> WatchedChunk:
    """Denoise the first chunk of an episode of the policy's task.

    Args:
        policy: on the CPU.
        episode: seed of the episode's start.
        noises: seeds of the noise; that of the episode itself gives the chunk that an evaluation executes.

    Raises:
        UserError: the task has no environment, or it cannot be made, or not drawn.
    """
    run = policy.run
    spec = environment_spec(run.config.task, run.config.policy.n_obs_steps, run.config.evaluation.camera, run.env_args)
    import_environment(spec)
    drawn = _draws_actions(spec)
    with closing(make_environment(spec, filmed=drawn)) as environment:
        observation, _ = environment.reset(seed=episode)
        scene = _scene(environment) if drawn else None
        states = torch.stack([_states(policy, observation, noise) for noise in noises], dim=1)
        start = run.config.policy.n_obs_steps - 1
        executed = (start, start + run.config.policy.n_action_steps)
        normalized = states.numpy()
        if scene is None:
            return WatchedChunk(normalized, executed)
        actions = decode_actions(run.policy.action_normalizer.inverse(states), run.policy.action_rotation).numpy()
        place = environment.unwrapped
        assert isinstance(place, ActionsOnScene)
        pixels = place.action_pixels(actions.reshape(-1, actions.shape[-1]), *scene.shape[:2])
        return WatchedChunk(normalized, executed, pixels.reshape(*actions.shape[:-1], 2), scene)


def _draws_actions(spec: Any) -> bool:
    with closing(make_environment(spec, filmed=False)) as environment:
        return isinstance(environment.unwrapped, ActionsOnScene)


def _scene(environment: Any) -> np.ndarray:
    try:
        return np.asarray(environment.render())
    except Exception as error:
        raise UserError(f"the environment cannot be drawn: {' '.join(str(error).split())}") from error


def _states(policy: Policy, observation: Any, noise: int) -> Tensor:
    """Inputs of the network [K + 1, horizon, A] on the CPU, the plan behind them."""
    seen: list[Tensor] = []
    network = policy.run.policy.denoiser
    hook = network.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    try:
        policy.reset(noise)
        policy.act(observation)
    finally:
        hook.remove()
    assert policy.plan is not None
    chunks = torch.cat([x / x.square().mean().sqrt().clamp(min=1.0) for x in seen] + [policy.plan])
    return chunks[..., : policy.run.policy.action_dim].float().cpu()
