"""What a policy samples for observations of demonstrations, beside what was demonstrated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from policy_accel.diffusion import Batch, Sampler
from policy_accel.diffusion.batch import Condition
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import unchanged
from policy_accel.policy.policy import DiffusionPolicy

ENCODED = 64
"""Windows whose observations are encoded at a time: pictures are large."""


class HeldOut:
    """Windows of demonstrations and a policy that sees their observations.

    Chunks are compared where they would be executed, as normalised actions.

    Args:
        policy: in eval mode.
        batch: W windows, on the policy's device.

    Attributes:
        true: the demonstrated chunks [W, n_action_steps, A], float64 on the CPU.
    """

    @torch.no_grad()
    def __init__(self, policy: DiffusionPolicy, batch: Batch) -> None:
        self.policy, self.x0, self.mask = policy, batch.x0, batch.known
        self.true = policy.executed_part(batch.x0).double().cpu()
        parts = [policy.encode(part) for part in _parts(batch.condition, len(batch.x0))]
        self.condition = None if parts[0] is None else torch.cat([part for part in parts if part is not None])

    @property
    def draw_shape(self) -> tuple[int, ...]:
        """Shape [W, horizon, channels] of one draw of noise."""
        return tuple(self.x0.shape)

    def sample(self, sampler: Sampler, noise: Tensor | Iterable[Tensor]) -> Tensor:
        """Chunks [W, n_action_steps, A], float64 on the CPU, from `noise` as `Sampler` takes it."""
        return self.policy.executed_part(self.trajectory(sampler, noise)).double().cpu()

    @torch.no_grad()
    def trajectory(self, sampler: Sampler, noise: Tensor | Iterable[Tensor]) -> Tensor:
        """All that `sample` takes its chunks from: [W, horizon, channels], normalised, on the policy's device."""

        def known(x: Tensor, level: Level) -> Tensor:
            assert self.mask is not None
            return torch.where(self.mask, self.x0, x)

        return sampler(
            lambda x, t: self.policy(x, t, self.condition), noise, known=unchanged if self.mask is None else known
        )


def _parts(condition: Condition | None, count: int) -> Iterator[Condition | None]:
    if condition is None:
        yield None
        return
    for begin in range(0, count, ENCODED):
        rows = slice(begin, begin + ENCODED)
        if isinstance(condition, dict):
            yield {name: part[rows] for name, part in condition.items()}
        else:
            yield condition[rows]


def energy_scores(samples: Tensor, true: Tensor) -> Tensor:
    """The energy score of each window, [W] float64; lower is better.

    mean_k |s_k - a| - 1/2 mean_{k != l} |s_k - s_l| (Gneiting and Raftery, 2007, "Strictly Proper Scoring Rules",
    section 4.2), |.| the root mean square over a chunk: on average half the energy distance between the sampled and the
    true chunks of one observation, plus what no policy can change, so that it is least for the true distribution.

    Args:
        samples: [K, W, steps, A], K at least 2.
        true: [W, steps, A].
    """
    draws = len(samples)
    between = chunk_norm(samples.unsqueeze(0) - samples.unsqueeze(1)).sum((0, 1))  # nought where k = l
    return chunk_norm(samples - true).mean(0) - between / (2 * draws * (draws - 1))


def chunk_norm(chunks: Tensor) -> Tensor:
    """Root mean square of chunks [..., steps, A] over their entries."""
    return chunks.square().mean((-2, -1)).sqrt()
