"""The accelerations as settings. Everything off (the defaults) is the baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from policy_accel.acceleration.timestep_curriculum import TimestepCurriculum


@dataclass
class NoiseConfig:
    """Which noise each sample is diffused with (Immiscible Diffusion and its kin)."""

    choice: str = "independent"
    """independent; assignment (the batch's noises, permuted by linear assignment); nearest (each sample keeps the
    nearest of its own candidates)."""
    metric: str = "l2"
    """l2 (as published), dot (for an assignment the optimum of the squared distance, and cheaper; for nearest it leaves
    the norm of the noise nearly alone) or l2sq (assignment only)."""
    candidates: int = 2
    """Of nearest: noises drawn for each sample."""
    block_size: int | None = None
    """Of assignment: rows assigned together; null for the whole batch."""
    standardize: bool = False
    """Of assignment: cost on data standardised within the batch (Immiscible Diffusion Policy)."""
    within: str = "batch"
    """Of assignment: batch; groups (only among samples of equal or near condition); condition (C2OT's cost, which adds
    the distance of the conditions)."""
    groups: int = 256
    """Of within=groups: k-means clusters of the normalised observation, unless the task names groups of its own."""
    group_run: int = 16
    """Of within=groups: samples of one group that batches hold side by side."""
    condition_ratio: float = 0.01
    """Of within=condition: share of pairs that may be cheaper than a sample's own (C2OT's target ratio)."""
    center: str = "none"
    """Of assignment: what is taken off the data before the cost: none; ridge (a linear prediction from the condition);
    denoiser (the EMA denoiser's prediction at the noisiest step)."""
    start_step: int = 0
    """Updates before the choice begins."""
    start_score: float | None = None
    """The choice begins after the first evaluation during training with at least this score; null for at once."""


@dataclass
class PathConfig:
    """Several times of each clean sample in one update (KL diffusion)."""

    times_per_sample: int = 1
    modes: int | None = None
    """Karhunen-Loeve modes of a shared path; null for as many as times_per_sample (none when that is 1)."""
    coupling: str = "shared"
    """shared (one path), independent (same sample, own noises) or fresh (own samples: a batch times_per_sample times as
    large); the last two are controls."""
    marginal: str = "matched"
    """Of a shared path: matched (the baseline's marginals), vp_equivalent or raw (a truncated path's own)."""
    clock: str = "time"
    """Of a shared path: its Brownian motion runs in the timestep (time) or in the variance 1 - alpha_bar (variance)."""
    evaluations: int | None = None
    """Network evaluations for each sample, a random subset of its times; null for all."""


@dataclass
class MomentumConfig:
    """Momentum in the forward process (Fast Diffusion Model)."""

    input_scale: str = "base"
    """base (none). ddpm: natural (the process' own clock), sigma (the released code's), one (the unscaled state, a
    control). edm, vp, ve: momentum, or one."""
    multiplier: float = 1.0
    """Of the clock."""
    schedule_strength: float = 0.0
    """ddpm: take the momentum kernel as a new noise schedule (ours, not FDM's); 0 leaves the schedule alone."""
    cap_warmup: int = 0
    """Updates over which the cap on the loss weight grows from 5 to 500 and then goes; 0 for no cap. Not for
    ddpm with diffusion.target=sample, whose weight never reaches it."""


@dataclass
class TimestepsConfig:
    """Which diffusion times are trained on, and how their losses are weighted."""

    law: str = "uniform"
    """uniform (of continuous families: their own), curriculum, logit_normal, edm, speed or loss_second_moment."""
    center: float = TimestepCurriculum.center
    """Of the curriculum's bump, as a share of the schedule."""
    width: float = TimestepCurriculum.width
    start: float = TimestepCurriculum.start
    """Share of the run at which the curriculum starts."""
    end: float = TimestepCurriculum.end
    """Share of the run at which it is complete."""
    strength: float = TimestepCurriculum.strength
    """Largest share of the bump in the mixture."""
    positions: str = "noise"
    """Where a time stands on the curriculum's axis: noise (by noise level, on the linear-1000 schedule it was tuned on)
    or index."""
    unbiased: bool = False
    """Weight the curriculum's loss by 1 / (T p_t)."""
    stratified: bool = False
    """Spread the times of a batch evenly over the law."""
    weight: str = "none"
    """none, min_snr, p2 or speed."""


@dataclass
class AccelerationConfig:
    """All accelerations of the objective; momentum decay is one of the optimiser."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    path: PathConfig = field(default_factory=PathConfig)
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    timesteps: TimestepsConfig = field(default_factory=TimestepsConfig)
    data_scale: float = 1.0
    """Factor on the normalised data while they are diffused, undone after sampling."""
