"""Settings of the timesteps: which are trained on, and how their losses are weighted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from policy_accel.acceleration.loss_weights import loss_weights
from policy_accel.acceleration.timestep_curriculum import CurriculumTimes, noise_matched_positions
from policy_accel.acceleration.timestep_distributions import (
    LossSecondMoment,
    TableTimes,
    edm_probabilities,
    logit_normal_probabilities,
    speed_mirror,
    speed_probabilities,
)
from policy_accel.diffusion.continuous import FlowProcess
from policy_accel.diffusion.processes import DiscreteProcess, Process
from policy_accel.diffusion.timesteps import ProcessTimes, TimestepDistribution
from policy_accel.errors import check_choice

POSITIONS = ("noise", "index")


@dataclass
class TimestepsConfig:
    """Uniform timesteps (continuous families: their own distribution): the baseline, and the base of the others."""

    name: str = "uniform"
    stratified: bool = False
    """Spread the timesteps of a batch evenly over the distribution. Discrete times only."""
    weight: str = "none"
    """Of the loss by timestep: none, min_snr, p2 or speed. Discrete times only."""

    def distribution(self, process: Process) -> TimestepDistribution:
        """The distribution over the times of `process`.

        Raises:
            ValueError: settings out of range, or a process without discrete times.
        """
        if isinstance(process, DiscreteProcess):
            return self.over(process)
        if self.name != "uniform" or self.stratified:
            what = "stratified=true" if self.name == "uniform" else f"name={self.name}"
            raise ValueError(
                f"{what} is defined over the times of ddpm, and this family draws from a distribution of its own; "
                "choose the family ddpm, or leave the timesteps alone."
            )
        return process.times()

    def over(self, process: DiscreteProcess) -> TimestepDistribution:
        """The distribution over discrete times."""
        return TableTimes(torch.ones(process.timesteps), stratified=True) if self.stratified else process.times()

    def weights(self, process: Process, target: str) -> Tensor | None:
        """Weight of each timestep on the squared error of `target`, [T] float64, or None for none.

        Raises:
            ValueError: an unknown weight, one that the target does not have, or a process without discrete times.
        """
        if isinstance(process, DiscreteProcess):
            return loss_weights(self.weight, process.log_snr, target)
        if self.weight != "none":
            raise ValueError(
                f"weight={self.weight} is a table over the times of ddpm, and this family has its own weight: set it "
                "to none."
            )
        return None


@dataclass
class CurriculumConfig(TimestepsConfig):
    """The curriculum of the consistency paper (arXiv 2404.07946)."""

    name: str = "curriculum"
    center: float = CurriculumTimes.center
    """Of the curriculum's bump, as a share of the schedule."""
    width: float = CurriculumTimes.width
    """Standard deviation of the bump, in the same unit."""
    start: float = CurriculumTimes.start
    """Share of the run at which the curriculum starts."""
    end: float = CurriculumTimes.end
    """Share of the run at which it is complete."""
    strength: float = CurriculumTimes.strength
    """Largest share of the bump in the mixture."""
    positions: str = "noise"
    """Where a timestep stands on the curriculum's axis: noise (by noise level, on the linear-1000 schedule it was tuned
    on) or index."""
    unbiased: bool = False
    """Weight the loss by 1 / (T p_t)."""

    def over(self, process: DiscreteProcess) -> CurriculumTimes:
        """See the base class."""
        check_choice("positions", self.positions, POSITIONS)
        return CurriculumTimes(
            process.timesteps,
            center=self.center,
            width=self.width,
            start=self.start,
            end=self.end,
            strength=self.strength,
            positions=noise_matched_positions(process.log_snr) if self.positions == "noise" else None,
            unbiased=self.unbiased,
            stratified=self.stratified,
        )


@dataclass
class LogitNormalConfig(TimestepsConfig):
    """Logit-normal timesteps (arXiv 2403.03206), for ddpm and flow."""

    name: str = "logit_normal"

    def distribution(self, process: Process) -> TimestepDistribution:
        """See the base class."""
        if isinstance(process, FlowProcess) and not self.stratified:
            return ProcessTimes(replace(process, distribution="logit_normal"))
        return super().distribution(process)

    def over(self, process: DiscreteProcess) -> TimestepDistribution:
        """See the base class."""
        return TableTimes(logit_normal_probabilities(process.timesteps), stratified=self.stratified)


@dataclass
class EdmTimestepsConfig(TimestepsConfig):
    """EDM's distribution of noise levels (arXiv 2206.00364) on the times of ddpm."""

    name: str = "edm"

    def over(self, process: DiscreteProcess) -> TimestepDistribution:
        """See the base class."""
        return TableTimes(edm_probabilities(process.log_snr), stratified=self.stratified)


@dataclass
class SpeedConfig(TimestepsConfig):
    """SpeeD's timesteps (arXiv 2405.17403)."""

    name: str = "speed"

    def over(self, process: DiscreteProcess) -> TimestepDistribution:
        """See the base class."""
        mirror = speed_mirror(process.alphas.square())
        return TableTimes(speed_probabilities(process.timesteps), stratified=self.stratified, mirror=mirror)


@dataclass
class LossSecondMomentConfig(TimestepsConfig):
    """Timesteps by how large their loss has lately been (arXiv 2102.09672)."""

    name: str = "loss_second_moment"

    def over(self, process: DiscreteProcess) -> TimestepDistribution:
        """See the base class."""
        return LossSecondMoment(process.timesteps, stratified=self.stratified)


TIMESTEPS_CONFIGS: tuple[type[TimestepsConfig], ...] = (
    TimestepsConfig,
    CurriculumConfig,
    LogitNormalConfig,
    EdmTimestepsConfig,
    SpeedConfig,
    LossSecondMomentConfig,
)
