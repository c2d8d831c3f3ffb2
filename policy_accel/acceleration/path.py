"""Settings of KL diffusion: several times of each clean sample in one update, and the controls."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.processes import DiscreteProcess, Process
from policy_accel.diffusion.repetition import Repetition


@dataclass
class PathConfig:
    """One time of each clean sample: the baseline, and the base of the others."""

    name: str = "single"

    def repetition(self) -> Repetition:
        """How often a clean sample is used. Raises ValueError for numbers out of range."""
        return Repetition()

    def process(self, base: Process) -> Process:
        """The forward process `base` with the paths. Raises ValueError where it cannot have them."""
        return base


@dataclass
class TruncatedPathConfig(PathConfig):
    """One time of each clean sample, with the marginals of a truncated Karhunen-Loeve path: a control."""

    name: str = "truncated"
    modes: int = 4
    """Karhunen-Loeve modes that are kept."""
    marginal: str = "vp_equivalent"
    """vp_equivalent (the truncated path at unit variance) or raw."""
    clock: str = "time"
    """The Brownian motion runs in the timestep (time) or in the variance 1 - alpha_bar (variance)."""

    def process(self, base: Process) -> Process:
        """See the base class."""
        if self.marginal == "matched":
            raise ValueError("marginal=matched changes nothing for one time of each sample; choose vp_equivalent.")
        return karhunen_loeve_process(_discrete(self, base), self.modes, self.marginal, self.clock)


@dataclass
class SeveralTimesConfig(PathConfig):
    """Several times of each clean sample, coupled as the choice is named."""

    times_per_sample: int = 4
    """Times of each clean sample in one update, at least 2."""

    def repetition(self) -> Repetition:
        """See the base class."""
        if self.times_per_sample < 2:
            raise ValueError(f"times_per_sample={self.times_per_sample} must be at least 2; choose single for 1.")
        return Repetition(self.times_per_sample, self.name)


@dataclass
class FreshSamplesConfig(SeveralTimesConfig):
    """Control at equal network evaluations: a batch `times_per_sample` times as large."""

    name: str = "fresh"


@dataclass
class EvaluatedTimesConfig(SeveralTimesConfig):
    """Several times, of which not all need be evaluated."""

    evaluations: int | None = None
    """Network evaluations for each sample, a random subset of its times; null for all."""

    def repetition(self) -> Repetition:
        """See the base class."""
        return replace(super().repetition(), evaluations=self.evaluations)


@dataclass
class IndependentTimesConfig(EvaluatedTimesConfig):
    """Control: several times of each clean sample, each with its own noise."""

    name: str = "independent"


@dataclass
class SharedPathConfig(EvaluatedTimesConfig):
    """Several times of each clean sample from one Karhunen-Loeve path (arXiv 2503.17657, derived from its abstract)."""

    name: str = "shared"
    modes: int | None = None
    """Karhunen-Loeve modes; null for as many as times_per_sample."""
    marginal: str = "matched"
    """matched (the baseline's marginals), vp_equivalent or raw (a truncated path's own)."""
    clock: str = TruncatedPathConfig.clock
    """As for a truncated path."""

    def process(self, base: Process) -> Process:
        """See the base class."""
        modes = self.times_per_sample if self.modes is None else self.modes
        return karhunen_loeve_process(_discrete(self, base), modes, self.marginal, self.clock)


PATH_CONFIGS = (PathConfig, TruncatedPathConfig, SharedPathConfig, IndependentTimesConfig, FreshSamplesConfig)


def _discrete(config: PathConfig, base: Process) -> DiscreteProcess:
    if not isinstance(base, DiscreteProcess):
        raise ValueError(f"name={config.name} needs a process with discrete times (ddpm); choose independent.")
    return base
