"""Whether observations of demonstrations come again, so that noise may be assigned among windows that share one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.conditional import kmeans_groups, ridge_mean
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.task_data import read_task_episodes
from policy_accel.training.randomness import named_generator

WINDOWS = 8192
WINDOWS_OF_A_GROUP = 32
EPISODES = 8
TOLD = 0.05
UNDECIDED = 0.05


@dataclass(frozen=True)
class Recurrence:
    """Windows in groups of like observations, of `WINDOWS_OF_A_GROUP` windows on average.

    episodes: that a window's group has windows of, on average.
    inside: share of the chunks' variance that is left inside the groups, in [0, 1].
    told: share of that which the exact observation predicts, by ridge regression, in other episodes than those of the
        fit; None with fewer than two episodes.
    """

    episodes: float
    inside: float
    told: float | None

    @property
    def recurs(self) -> bool:
        """Whether observations come again: groups reach over `EPISODES` or more, and inside of them the exact
        observation says nothing more (at most `TOLD`) of chunks that differ (by `UNDECIDED` of their variance).

        The thresholds are ours: at least as far from what was measured on Push-T (told 0.47) and on the Adroit door
        (3 episodes a group) as from the toy with two modes (77 episodes, told 0.01).
        """
        return self.told is not None and self.episodes >= EPISODES and self.told <= TOLD and self.inside >= UNDECIDED


def recurrence(conditions: Tensor, chunks: Tensor, episodes: Tensor, seed: int) -> Recurrence:
    """How far observations [N, *C] of windows with chunks [N, *S] from `episodes` [N] int64 come again.

    `seed` is that of the groups (k-means) and of the halves into which the episodes are cut, each predicted from the
    other.
    """
    c, x = (values.flatten(1).double() for values in (conditions, chunks))
    count = max(1, len(c) // WINDOWS_OF_A_GROUP)
    groups = kmeans_groups(c, count, seed)
    pairs = torch.unique(torch.stack([groups, episodes]), dim=1)[0]
    reach = pairs.bincount(minlength=count)[groups].double().mean()
    inner_c, inner_x = (_inside(values, groups, count) for values in (c, x))
    varied, total = inner_x.square().sum(), (x - x.mean(0)).square().sum()
    errors = list(_errors(inner_c, inner_x, episodes, seed))
    told = 1.0 - float(sum(errors) / varied.clamp(min=1e-30)) if errors else None
    return Recurrence(float(reach), float(varied / total.clamp(min=1e-30)), told)


def task_recurrence(task: ChunkTask, config: RobotConfig) -> Recurrence:
    """The recurrence of a task's training windows, of up to `WINDOWS` of them."""
    generator = named_generator(config.seed, "recurrence")
    picked = torch.randperm(task.samples, generator=generator)[:WINDOWS].sort().values
    batch = task.batch(picked.to(task.actions.device))
    assert isinstance(batch.condition, Tensor)
    data, _ = read_task_episodes(config.task)
    starts = task.train.indices[picked.to(task.train.indices.device), 0].cpu().numpy()
    episodes = torch.from_numpy(np.searchsorted(data.episode_ends, starts, side="right"))
    return recurrence(batch.condition.cpu(), batch.x0.cpu(), episodes, config.seed)


def _inside(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Values [N, D] less the mean of their group."""
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add_(0, groups, values)
    return values - (sums / groups.bincount(minlength=count).clamp(min=1).unsqueeze(1))[groups]


def _errors(c: Tensor, x: Tensor, episodes: Tensor, seed: int) -> Iterator[Tensor]:
    """Squared errors of both halves of the episodes, each predicted from the other."""
    labels = torch.unique(episodes)
    if len(labels) < 2:
        return
    shuffled = labels[torch.randperm(len(labels), generator=named_generator(seed, "recurrence", "episodes"))]
    first = torch.isin(episodes, shuffled[: len(labels) // 2])
    for fit, test in ((first, ~first), (~first, first)):
        yield (x[test] - ridge_mean(c[fit], x[fit]).predict(c[test]).double()).square().sum()
