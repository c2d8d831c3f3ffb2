"""Cheap figures of a policy on held-out demonstrations, which may or may not stand for its score.

Chunks are compared where they would be executed, as normalised actions; |.| is the root mean square over their entries.
a_i is the demonstrated chunk of window i, s_ik the k-th sample for its observation; lower is better.

action_error_N       mean of (s_ik - a_i)^2 with N steps of the sampler. It punishes every way but the demonstrated one:
                     where there are several, the mean of all may have a smaller error than samples of each.
energy_score         mean over i of  mean_k |s_ik - a_i| - 1/2 mean_{k != l} |s_ik - s_il|, with the run's own sampler
                     (Gneiting and Raftery, 2007, "Strictly Proper Scoring Rules", section 4.2): on average half the
                     energy distance between the sampled and the true chunks of one observation, plus what no policy can
                     change, so that it is least for the true distribution. This is the conditional distance.
energy_distance      2 E|s - a| - E|s - s'| - E|a - a'| (Szekely and Rizzo, 2013, "Energy statistics", section 2)
                     between all sampled and all demonstrated chunks, each sample a window's first: the marginal
                     distance, which does not see whether a chunk belongs to its observation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import Sampler
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import unchanged
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.run import LoadedRun, build_sampler
from policy_accel.policy.task import ChunkTask
from policy_accel.training.randomness import named_generator

ERROR_STEPS = (1, 8)
NAMES = (*(f"action_error_{steps}" for steps in ERROR_STEPS), "energy_score", "energy_distance")


def surrogates(run: LoadedRun, task: ChunkTask, *, windows: int, noises: int, noise_seed: int) -> dict[str, float]:
    """The figures by the names of `NAMES`; the same windows and noise for every policy of a task.

    Args:
        run: a checkpoint; its policy on the CPU or a GPU, where `task` lies too.
        task: of the run, with held-out windows; its own policy is not looked at.
        windows: held-out windows, evenly spaced, at most.
        noises: samples for each, at least 2.
        noise_seed: of the noise.
    """
    config, policy = run.config, run.policy
    count = task.validation_samples
    indices = torch.arange(count)[:: -(-count // windows)]
    samples = {
        steps: _sampled(config, policy, task, indices, steps, noises, noise_seed) for steps in (*ERROR_STEPS, None)
    }
    true = policy.executed_part(task.validation_batch(indices).x0).double().cpu()
    own = samples[None]
    return {
        **{f"action_error_{n}": float((samples[n] - true).square().mean()) for n in ERROR_STEPS},
        "energy_score": energy_score(own, true),
        "energy_distance": energy_distance(own[0], true),
    }


def with_steps(config: RobotConfig, steps: int | None) -> RobotConfig:
    """A configuration whose policy is sampled with so many steps; None changes nothing."""
    if steps is None:
        return config
    return dataclasses.replace(config, sampling=config.sampling.with_steps(steps))


def energy_score(samples: Tensor, true: Tensor) -> float:
    """Of samples [K, W, ...] for the observations of true chunks [W, ...]; K at least 2."""
    draws = len(samples)
    to_true = _norm(samples - true).mean()
    between = _norm(samples.unsqueeze(0) - samples.unsqueeze(1))  # [K, K, W], nought where k = l
    return float(to_true - between.sum((0, 1)).mean() / (2 * draws * (draws - 1)))


def energy_distance(samples: Tensor, true: Tensor) -> float:
    """Between chunks [W, ...] and [V, ...], by the unbiased means over different chunks: about nought for equal
    distributions, and below it by chance."""

    def apart(first: Tensor, second: Tensor) -> Tensor:
        return _norm(first.unsqueeze(1) - second.unsqueeze(0))

    def within(chunks: Tensor) -> Tensor:
        return apart(chunks, chunks).sum() / (len(chunks) * (len(chunks) - 1))

    return float(2 * apart(samples, true).mean() - within(samples) - within(true))


def _norm(chunks: Tensor) -> Tensor:
    return chunks.square().mean((-2, -1)).sqrt()


@torch.no_grad()
def _sampled(
    config: RobotConfig,
    policy: DiffusionPolicy,
    task: ChunkTask,
    indices: Tensor,
    steps: int | None,
    noises: int,
    noise_seed: int,
) -> Tensor:
    """Samples [K, W, n_action_steps, A] for windows `indices` [W], float64 on the CPU."""
    sampler = build_sampler(with_steps(config, steps))
    batch = task.validation_batch(indices)
    condition: Any = policy.encode(batch.condition)
    device, found = batch.x0.device, []

    def known(x: Tensor, level: Level) -> Tensor:
        assert batch.known is not None
        return torch.where(batch.known, batch.x0, x)

    for number in range(noises):
        generator = named_generator(noise_seed, "surrogates", number)
        noise = torch.randn(len(indices), *policy.noise_shape(sampler), generator=generator).to(device)
        chunk = _chunk(sampler, policy, condition, noise, unchanged if batch.known is None else known)
        found.append(policy.executed_part(chunk).double().cpu())
    return torch.stack(found)


def _chunk(sampler: Sampler, policy: DiffusionPolicy, condition: Any, noise: Tensor, known: Any) -> Tensor:
    return sampler(lambda x, t: policy(x, t, condition), noise, known=known)
