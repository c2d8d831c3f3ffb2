"""Settings of momentum in the forward process (Fast Diffusion Model, arXiv 2306.06991)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from policy_accel.diffusion.continuous import SigmaProcess
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.processes import DiscreteProcess, Process

STRONGEST_SCHEDULE = 8.0  # beyond it alpha leaves float64's range on the steepest schedules


@dataclass
class MomentumConfig:
    """No momentum: the baseline, and the base of the others."""

    name: str = "none"
    cap_warmup: int = 0
    """Updates over which FDM's cap on the loss weight grows from 5 to 500 and then goes; 0 for no cap. Not for ddpm
    with diffusion.target=sample, whose weight never reaches it."""

    def schedule(self, base: Process) -> Process:
        """The process whose noise schedule is this one's. Raises ValueError where it cannot have it."""
        return base

    def scaled(self, process: Process) -> Process:
        """The process with this input scale. Raises ValueError where it cannot have it."""
        return process


@dataclass
class NaturalMomentumConfig(MomentumConfig):
    """FDM's input scale on the clock of a discrete process, -ln alpha_bar."""

    name: str = "natural"
    multiplier: float = 1.0
    """Of the clock."""

    def scaled(self, process: Process) -> Process:
        """See the base class."""
        if not 0 < self.multiplier < math.inf:
            raise ValueError(f"multiplier={self.multiplier} must be positive and finite.")
        return _with_input_scales(process, self.name, self.multiplier)


@dataclass
class SigmaMomentumConfig(NaturalMomentumConfig):
    """FDM's input scale on the released code's clock, linear in sigma / alpha, for a discrete process."""

    name: str = "sigma"


@dataclass
class UnscaledConfig(MomentumConfig):
    """Control: the network sees the unscaled state."""

    name: str = "one"

    def scaled(self, process: Process) -> Process:
        """See the base class."""
        if isinstance(process, SigmaProcess):
            return replace(process, input_scale="one")
        return _with_input_scales(process, "one", 1.0)


@dataclass
class ReleasedMomentumConfig(MomentumConfig):
    """FDM's input scale s(sigma) for edm, vp and ve, as released."""

    name: str = "released"
    multiplier: float = 1.0
    """Of the clock; ve is always 1."""

    def scaled(self, process: Process) -> Process:
        """See the base class."""
        if not isinstance(process, SigmaProcess):
            raise ValueError("name=released is for the families edm, vp and ve; for ddpm choose natural, sigma or one.")
        if not 0 < self.multiplier < math.inf:
            raise ValueError(f"multiplier={self.multiplier} must be positive and finite.")
        if process.family == "ve" and self.multiplier != 1.0:
            raise ValueError(f"multiplier={self.multiplier} has no effect on the family ve; leave it at 1.")
        return replace(process, input_scale="momentum", multiplier=self.multiplier)


@dataclass
class MomentumScheduleConfig(MomentumConfig):
    """The momentum kernel as the noise schedule of a discrete process: ours, not FDM's."""

    name: str = "schedule"
    strength: float = 1.0
    """Of the kernel."""

    def schedule(self, base: Process) -> Process:
        """See the base class."""
        if not 0 < self.strength <= STRONGEST_SCHEDULE:
            raise ValueError(f"strength={self.strength} must lie between 0 (excluded) and {STRONGEST_SCHEDULE}.")
        return momentum_process(_discrete(base, self.name), "schedule", strength=self.strength)


MOMENTUM_CONFIGS: tuple[type[MomentumConfig], ...] = (
    MomentumConfig,
    NaturalMomentumConfig,
    SigmaMomentumConfig,
    UnscaledConfig,
    ReleasedMomentumConfig,
    MomentumScheduleConfig,
)


def _discrete(process: Process, name: str) -> DiscreteProcess:
    if not isinstance(process, DiscreteProcess):
        raise ValueError(f"name={name} needs a process with discrete times (ddpm); edm, vp, ve take released or one.")
    return process


def _with_input_scales(process: Process, kind: str, strength: float) -> Process:
    discrete = _discrete(process, kind)
    if isinstance(discrete, KarhunenLoeveProcess) and discrete.marginal == "raw":
        raise ValueError(
            f"name={kind} needs a variance-preserving process, which a path with marginal=raw is not; choose matched "
            "or vp_equivalent."
        )
    return replace(discrete, input_scales=momentum_process(discrete, kind, strength).input_scales)
