"""Cheap figures of a policy on held-out demonstrations, which may or may not stand for its score.

Chunks are compared where they would be executed, as normalised actions; |.| is the root mean square over their entries.
a_i is the demonstrated chunk of window i, s_ik the k-th sample for its observation; lower is better.

action_error_N       mean of (s_ik - a_i)^2 with N steps of the sampler. It punishes every way but the demonstrated one:
                     where there are several, the mean of all may have a smaller error than samples of each.
energy_score         mean over i of `energy_scores`, with the run's own sampler: the conditional distance.
energy_distance      2 E|s - a| - E|s - s'| - E|a - a'| (Szekely and Rizzo, 2013, "Energy statistics", section 2)
                     between all sampled and all demonstrated chunks, each sample a window's first: the marginal
                     distance, which does not see whether a chunk belongs to its observation.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from policy_accel.policy.config import RobotConfig
from policy_accel.policy.held_out import HeldOut, chunk_norm, energy_scores
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
    held_out = HeldOut(policy, task.validation_batch(indices))
    samples = {steps: _sampled(held_out, config, steps, noises, noise_seed) for steps in (*ERROR_STEPS, None)}
    own, true = samples[None], held_out.true
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
    return float(energy_scores(samples, true).mean())


def energy_distance(samples: Tensor, true: Tensor) -> float:
    """Between chunks [W, ...] and [V, ...], by the unbiased means over different chunks: about nought for equal
    distributions, and below it by chance."""

    def apart(first: Tensor, second: Tensor) -> Tensor:
        return chunk_norm(first.unsqueeze(1) - second.unsqueeze(0))

    def within(chunks: Tensor) -> Tensor:
        return apart(chunks, chunks).sum() / (len(chunks) * (len(chunks) - 1))

    return float(2 * apart(samples, true).mean() - within(samples) - within(true))


def _sampled(held_out: HeldOut, config: RobotConfig, steps: int | None, noises: int, noise_seed: int) -> Tensor:
    """Samples [K, W, n_action_steps, A], float64 on the CPU."""
    sampler, found = build_sampler(with_steps(config, steps)), []
    shape = (len(held_out.x0), *held_out.policy.noise_shape(sampler))
    for number in range(noises):
        generator = named_generator(noise_seed, "surrogates", number)
        found.append(held_out.sample(sampler, torch.randn(shape, generator=generator).to(held_out.x0.device)))
    return torch.stack(found)
