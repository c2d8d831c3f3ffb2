"""A policy's actions for the observations of demonstrations, beside what was demonstrated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.diffusion import Sampler
from policy_accel.errors import UserError
from policy_accel.open_loop.episodes import Measured
from policy_accel.policy.held_out import HeldOut
from policy_accel.policy.planner import chunk_noise
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.windows import Windows, make_windows
from policy_accel.progress import Progress
from policy_accel.run_sampling import AskedSampling, TunedSampling

EVALUATIONS = (1, 2, 4, 8)
AT_ONCE = 256


class Chunks:
    """What a policy predicts at any step of some episodes.

    Args:
        run: on the CPU; its policy goes to `device`.
        measured: the episodes.
        noise_seed: of the noise, which follows from it, the number of the episode and the step.
        device: where the policy predicts.

    Attributes:
        actions: all demonstrated actions [N, A] float64, in the data's units.
        windows: one for each step, with the steps before and behind it as the policy sees and predicts them.
        starts: first row of each episode.
    """

    def __init__(self, run: LoadedRun, measured: Measured, *, noise_seed: int, device: torch.device) -> None:
        data, shape, self.policy = measured.demonstrations, run.config.policy, run.policy
        self.noise_seed, self.device, self.now = noise_seed, device, shape.n_obs_steps - 1
        self.windows: Windows = make_windows(
            data.episode_ends, shape.horizon, pad_before=self.now, pad_after=shape.horizon - shape.n_obs_steps
        )
        # With the normalisers of the run, whatever these episodes would give.
        self.task = ChunkTask(
            run.policy,
            run.sampler.objective,
            replace(data, train=self.windows, validation=None),
            normalization=None,
            mask_padding=False,
            noise=NoiseConfig(),
            seed=0,
        )
        run.config.training.lay_out(run.policy, device)
        self.task.to(device)
        self.actions = data.recorded_actions(run.policy.action_rotation)
        lengths = np.diff(data.episode_ends, prepend=0)
        self.starts = data.episode_ends - lengths
        self.episode = np.repeat(measured.episodes, lengths)
        self.step = np.arange(len(self.actions)) - np.repeat(self.starts, lengths)

    def demonstrated(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions [W, S, A] from the rows [W] on, and whether each is there [W, S]."""
        steps = self.windows.indices.numpy()[rows, self.now :]
        return self.actions[steps], self.windows.valid.numpy()[rows, self.now :]

    def predicted(self, rows: np.ndarray, samplers: Sequence[Sampler]) -> list[np.ndarray]:
        """Actions [W, S, A] float64 for the rows [W] by each sampler, in the data's units.

        Raises:
            UserError: one is not finite.
        """
        found: list[list[Tensor]] = [[] for _ in samplers]
        parts = np.split(rows, range(AT_ONCE, len(rows), AT_ONCE))
        with closing(Progress("measure", len(parts) * len(samplers), unit="part")) as progress:
            for part in parts:
                held_out = HeldOut(self.policy, self.task.batch(torch.from_numpy(part)))
                for sampler, chunks in zip(samplers, found, strict=True):
                    shape = self.policy.noise_shape(sampler)
                    noise = chunk_noise(shape, self.noise_seed, self.episode[part].tolist(), self.step[part].tolist())
                    trajectory = held_out.trajectory(sampler, noise.to(self.device))
                    now = trajectory[:, self.now :, : self.policy.action_dim]
                    chunks.append(self.policy.decoded(now).double().cpu())
                    progress.to(progress.done + 1)
        actions = [torch.cat(chunks).numpy() for chunks in found]
        if not all(np.isfinite(chunk).all() for chunk in actions):
            raise UserError("the policy returned a NaN or infinite action; its weights may be damaged.")
        return actions

    def rows(self, most: int) -> np.ndarray:
        """At most `most` rows, evenly spaced, that have an action before them to repeat.

        Raises:
            UserError: there are none.
        """
        free = np.flatnonzero(self.step > 0)
        if not len(free):
            raise UserError("the episodes to measure have one step each; give longer ones.")
        return free[:: -(-len(free) // most)]

    def before(self, rows: np.ndarray) -> np.ndarray:
        """The last action before each row [W, 1, A]."""
        last: np.ndarray = self.actions[rows - 1][:, None]
        return last


def samplers_of(run: LoadedRun, asked: AskedSampling, tuned: TunedSampling | None) -> list[Sampler]:
    """The samplers that a run is measured with, by their evaluations: of 1, 2, 4 and 8, as far as its process has them,
    and its own; that alone where somebody asked for steps or times.

    ddpm and heun, which take many, are ddim in few.
    """
    own = run.sampler
    if asked.steps is not None or asked.times is not None:
        return [own]
    base = "ddim" if own.config.sampler in ("ddpm", "heun") else own.config.sampler
    found = []
    for number in EVALUATIONS:
        settings, _ = AskedSampling(steps=number).of_run(own.config.by(base), tuned)
        try:
            sampler = Sampler(own.objective, settings)
        except UserError:  # a process with steps of its own
            continue
        alike = (sampler.config.sampler, sampler.grid) == (own.config.sampler, own.grid)
        if sampler.network_evaluations() == number and not alike:
            found.append(sampler)
    return sorted([*found, own], key=Sampler.network_evaluations)
