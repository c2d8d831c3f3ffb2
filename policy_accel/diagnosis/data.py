"""Facts of demonstrations that bear on the choice of a method."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.conditional import ridge_mean
from policy_accel.diagnosis.facts import DataFacts
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.normalization import Normalizer
from policy_accel.policy.recurrence import task_recurrence
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.task_data import read_task_episodes
from policy_accel.training.randomness import named_generator

EXPLAIN_ROWS = 8192
NEIGHBOURS = 8
_CONSTANT = 1e-4  # deviation of normalised conditions


def data_facts(task: ChunkTask, config: RobotConfig) -> DataFacts:
    """Figures of the training windows of `task`."""
    picked = torch.randperm(task.samples, generator=named_generator(config.seed, "diagnosis", "data"))[:EXPLAIN_ROWS]
    batch = task.batch(picked.to(task.actions.device))
    assert isinstance(batch.condition, Tensor)
    steps = task.train.indices.cpu()
    episodes, _ = read_task_episodes(config.task)
    episode = torch.from_numpy(np.searchsorted(episodes.episode_ends, steps[:, 0].numpy(), side="right"))
    x = batch.x0.flatten(1).double()
    covariance = (x - x.mean(0)).T @ (x - x.mean(0))
    linear, neighbours = explained_by_observation(batch.condition, batch.x0, episode[picked], config.seed)
    actions = task.actions.double()
    return DataFacts(
        windows=task.samples,
        episodes=len(torch.unique(episode)),
        horizon=batch.x0.shape[1],
        action_dim=batch.x0.shape[2],
        observation_dim=batch.condition.shape[2],
        n_obs_steps=batch.condition.shape[1],
        effective_dimension=float(covariance.trace().square() / covariance.square().sum().clamp(min=1e-30)),
        explained_linear=linear,
        explained_neighbours=neighbours,
        action_std=tuple(actions.std(0, correction=0).tolist()),
        action_rms=float(actions.square().mean().sqrt()),
        constant_actions=_constant(task.policy.action_normalizer),
        constant_observations=_constant(task.policy.observation_normalizer),
        recurrence=task_recurrence(task, config),
    )


def _constant(normalizer: Normalizer) -> tuple[int, ...]:
    return tuple((~normalizer.varies).nonzero().flatten().tolist())


@torch.no_grad()
def explained_by_observation(
    conditions: Tensor, chunks: Tensor, episodes: Tensor, seed: int
) -> tuple[float | None, float | None]:
    """Shares of the variance of chunks [N, *S] that observations [N, *C] predict: (ridge, mean of the 8 nearest).

    The episodes [N] are cut into halves, each predicted from the other: windows of one episode are near copies. None
    when there is one episode. Negative where the prediction is worse than the mean.
    """
    labels = torch.unique(episodes)
    if len(labels) < 2:
        return None, None
    c, x = conditions.flatten(1).float(), chunks.flatten(1).float()
    shuffled = labels[torch.randperm(len(labels), generator=named_generator(seed, "diagnosis", "episodes"))]
    first = torch.isin(episodes, shuffled[: len(labels) // 2]).to(x.device)
    total = linear = nearest = 0.0
    for fit, test in ((first, ~first), (~first, first)):
        deviation, mean = torch.std_mean(c[fit], dim=0, correction=0)
        scale = torch.where(deviation > _CONSTANT, 1.0 / deviation, 0.0)
        known, asked = (c[fit] - mean) * scale, (c[test] - mean) * scale
        near = [
            torch.cdist(part, known).topk(min(NEIGHBOURS, len(known)), largest=False).indices
            for part in torch.split(asked, 512)
        ]
        total += float((x[test] - x[fit].mean(0)).square().sum())
        nearest += float((x[test] - x[fit][torch.cat(near)].mean(1)).square().sum())
        linear += float((x[test] - ridge_mean(c[fit], x[fit]).predict(c[test])).square().sum())
    return 1.0 - linear / max(total, 1e-30), 1.0 - nearest / max(total, 1e-30)
