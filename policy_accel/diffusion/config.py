"""The forward process, its target and the way it is sampled as settings, for every track."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from policy_accel.diffusion.churn import Churn
from policy_accel.diffusion.continuous import LOG_SIGMA_DEVIATION, LOG_SIGMA_MEAN, FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import SPACINGS, Grid
from policy_accel.diffusion.objective import REDUCTIONS
from policy_accel.diffusion.processes import SIGMA_DATA, Process, vp_process
from policy_accel.diffusion.samplers import OWN_SAMPLERS, SAMPLERS
from policy_accel.diffusion.schedules import BETA_END, BETA_START, LINEAR
from policy_accel.diffusion.shortcut import ShortcutProcess
from policy_accel.diffusion.two_step import TwoStepProcess
from policy_accel.errors import UserError, naming, one_of, refuse_idle

FAMILIES = ("ddpm", "edm", "vp", "ve", "flow", "mip", "shortcut")
HEUN_RATIO, HEUN_STEPS = 100.0, 50
CHURN = ("churn", "churn_min", "churn_max", "churn_noise")
VARIANCES = ("small", "large")


@dataclass
class DiffusionConfig:
    """The forward process and what the denoiser predicts; the defaults are Diffusion Policy's."""

    family: str = "ddpm"
    """ddpm (discrete, by schedule and timesteps); edm, vp or ve (continuous, in the noise-to-signal ratio sigma, as in
    Karras et al. 2022); flow (straight lines from data to noise); mip (two-step regression, Pan et al. 2025);
    shortcut (flow whose network is told how far a step goes, Frans et al. 2025)."""
    schedule: str = "squaredcos_cap_v2"
    """Of ddpm: squaredcos_cap_v2, linear or scaled_linear."""
    timesteps: int = 100
    """Of ddpm."""
    beta_start: float = BETA_START
    """Of the linear schedules, with beta_end."""
    beta_end: float = BETA_END
    """The largest beta of the linear schedules, at the last time."""
    target: str = "epsilon"
    """ddpm: epsilon, sample or v. edm, vp, ve: edm, epsilon, negative_epsilon or sample. flow: flow or sample.
    mip: sample. shortcut: flow."""
    learn_sigma: bool = False
    """Of ddpm and images: the network predicts the variance of each step too, in as many channels again, which the
    sampler ddpm takes (Nichol & Dhariwal 2021; DiT)."""
    sigma_data: float | None = SIGMA_DATA
    """Of edm, and of the target edm: standard deviation of the normalised data that the network's inputs and outputs
    are scaled for. null measures it on the training images, and checkpoints keep it; policies need a number."""
    p_mean: float = LOG_SIGMA_MEAN
    """Of edm: mean of ln sigma, by which the noise levels of training are drawn (P_mean of Karras et al. 2022; EDM2 has
    -0.4). Validation and sampling keep their levels."""
    p_std: float = LOG_SIGMA_DEVIATION
    """Of edm: standard deviation of ln sigma (P_std; EDM2 has 1.0)."""
    loss_reduction: str = REDUCTIONS[0]
    """mean or sum of the squared errors of one sample's values; over samples it is the mean. Adam's steps differ by its
    eps alone, below which more of the mean's gradients lie; a bound on the gradient's norm is one of this loss. The log
    shows the mean either way."""
    t_star: float = TwoStepProcess.t_star
    """Of mip: where between noise (0) and data (1) its second step stands."""
    form: str = TwoStepProcess.form
    """Of mip: released (as in its code) or paper (no loss weights, and t_star times the sample in the second input)."""

    finest: int = ShortcutProcess.finest
    """Of shortcut: steps of its finest grid, a power of 2."""

    def process(self) -> Process:
        """The forward process, without accelerations.

        Raises:
            UserError: an unknown family, or settings of it out of range.
        """
        one_of("diffusion.family", self.family, FAMILIES)
        of_linear = ("beta_start", "beta_end") if self.schedule in LINEAR else ()
        of_ddpm = {"schedule", "timesteps", "learn_sigma", *of_linear}
        used = {"family", "target", "loss_reduction"} | {
            "ddpm": of_ddpm,
            "edm": {"p_mean", "p_std"},
            "mip": {"t_star", "form"},
            "shortcut": {"finest"},
        }.get(self.family, set())
        if self.sees_sigma_data:
            used.add("sigma_data")
        because = f"diffusion.family={self.family}" + f" diffusion.schedule={self.schedule}" * (self.family == "ddpm")
        refuse_idle(self, "diffusion", used, because)
        if self.family == "ddpm":
            with naming("diffusion"):
                return vp_process(self.schedule, self.timesteps, beta_start=self.beta_start, beta_end=self.beta_end)
        if self.family == "flow":
            return FlowProcess()
        if self.family == "mip":
            with naming("diffusion"):
                return TwoStepProcess(self.t_star, self.form)
        if self.family == "shortcut":
            with naming("diffusion"):
                return ShortcutProcess(self.finest)
        if self.sigma_data is None:
            raise UserError(
                "diffusion.sigma_data=null is measured on the data that an image model is trained on; here give a "
                f"number, as {SIGMA_DATA}."
            )
        with naming("diffusion"):
            return SigmaProcess(self.family, sigma_data=self.sigma_data, p_mean=self.p_mean, p_std=self.p_std)

    @property
    def sees_sigma_data(self) -> bool:
        """Whether `sigma_data` has an effect."""
        return self.family == "edm" or (self.family in ("vp", "ve") and self.target == "edm")


@dataclass
class SamplingConfig:
    """How a sample is drawn from a trained model."""

    sampler: str = "ddim"
    """ddpm (stochastic), ddim, dpm_solver++, euler or heun (for edm, vp, ve and flow). The family mip takes mip,
    shortcut euler or ddim."""
    steps: int = 8
    """Steps of a sample; heun evaluates the network 2 steps - 1 times, the others once a step."""
    spacing: str = SPACINGS[0]
    """Which training times of a discrete process they use: leading, trailing or linspace."""
    times: list[int | float] | None = None
    """The times of the steps themselves, noisy to clean, in place of steps and spacing, which then have no effect:
    [99, 25]. Integers below diffusion.timesteps for ddpm, sigma for edm, vp and ve, u in (0, 1] for flow. A time that
    is not below the one before is a restart: noise is added anew to the clean sample of the step before (sampler ddpm
    alone)."""
    clip_sample: float | None = 1.0
    """Bound of the predicted sample, in normalised units; null for none."""
    variance: str = VARIANCES[0]
    """Of the noise of ddpm: small (of the posterior) or large (of the forward process' step), which Ho et al. 2020 take
    for images; with diffusion.learn_sigma the network chooses between the two."""
    churn: float = 0.0
    """Of heun on edm, vp and ve: S_churn of Karras et al. 2022 (algorithm 2), noise that is added before the steps; 0
    for the deterministic sampler. Each step first raises its sigma by churn / steps of it, at most by 0.41."""
    churn_min: float = 0.0
    """S_min: the least sigma at which noise is added."""
    churn_max: float | None = None
    """S_max: the largest; null for any."""
    churn_noise: float = 1.0
    """S_noise: deviation of the noise that is added."""

    def check(self, process: Process) -> None:
        """Raise UserError unless this can sample `process`."""
        one_of("sampling.sampler", self.sampler, (*SAMPLERS, *OWN_SAMPLERS))
        allowed = process.samplers or SAMPLERS
        if self.sampler not in allowed:
            raise UserError(
                f"sampling.sampler={self.sampler} is no sampler of this diffusion.family, which takes "
                f"{', '.join(allowed)}."
            )
        if self.clip_sample is not None and not self.clip_sample > 0:
            raise UserError(f"sampling.clip_sample={self.clip_sample} must be positive, or null for none.")
        if one_of("sampling.variance", self.variance, VARIANCES) != VARIANCES[0] and self.sampler != "ddpm":
            raise UserError(
                f"sampling.variance={self.variance} is of sampling.sampler=ddpm, not of {self.sampler}; leave it at "
                f"{VARIANCES[0]}."
            )
        self._check_churn(process)
        grid = self.grid(process)
        if grid.restart is not None and self.sampler != "ddpm":
            before, behind = grid.restart
            raise UserError(
                f"sampling.times={self.times} goes from {before} to {behind}, where noise is added anew, which "
                f"only sampling.sampler=ddpm does, not {self.sampler}; choose it, or times that fall."
            )
        steps = len(grid.timesteps)
        if process.timesteps is not None and self.sampler == "heun" and steps < HEUN_STEPS:
            first = process.level(grid.timesteps[0])
            if first.sigma > HEUN_RATIO * first.alpha:
                raise UserError(
                    f"sampling.sampler=heun averages slopes along sigma / alpha, which starts at "
                    f"{first.sigma / first.alpha:.0f} on this schedule (EDM's starts at 80) and needs at least "
                    f"{HEUN_STEPS} steps there, not {steps}; choose ddim or dpm_solver++."
                )

    def _check_churn(self, process: Process) -> None:
        if not self.churn:
            others = {field.name for field in fields(self)} - {*CHURN}
            refuse_idle(self, "sampling", others, "sampling.churn=0")
        elif self.sampler != "heun" or not isinstance(process, SigmaProcess):
            raise UserError(
                f"sampling.churn={self.churn} is of sampling.sampler=heun with diffusion.family=edm, vp or ve, not of "
                f"{self.sampler} here; leave it at 0."
            )
        self.churning(1)

    def churning(self, steps: int) -> Churn:
        """The noise that is added before each of `steps` steps.

        Raises:
            UserError: a value out of range.
        """
        highest = math.inf if self.churn_max is None else self.churn_max
        with naming("sampling", amount="churn", lowest="churn_min", highest="churn_max", noise="churn_noise"):
            return Churn.of(self.churn, steps, lowest=self.churn_min, highest=highest, noise=self.churn_noise)

    def by(self, sampler: str) -> Self:
        """The same with another sampler, and without what only the one before does."""
        kept = self if sampler == "heun" else self.without_churn()
        return replace(kept, sampler=sampler, variance=self.variance if sampler == "ddpm" else VARIANCES[0])

    def without_churn(self) -> Self:
        """The same, deterministic where it was so but for churn."""
        plain = type(self)()
        return replace(self, **{name: getattr(plain, name) for name in CHURN})

    def grid(self, process: Process) -> Grid:
        """The times of the steps of a whole sample of `process`.

        Raises:
            UserError: steps, a spacing or times that the process does not have.
        """
        with naming("sampling", timesteps="diffusion.timesteps", finest="diffusion.finest"):
            if self.times is not None:
                return process.grid_of(self.times)
            return process.grid(self.steps, self.spacing)

    def with_steps(self, steps: int) -> Self:
        """The same with a number of `steps` in place of steps or times."""
        return replace(self, steps=steps, times=None)

    def record(self) -> dict[str, Any]:
        """The settings as a result states them: with times of its own, a grid has so many steps and no spacing. Churn
        is left out of samplers without, and the variance where it is small."""
        own = {} if self.times is None else {"steps": len(self.times), "spacing": None}
        stated = {**asdict(self), **own}
        left_out: tuple[str, ...] = () if self.sampler == "heun" else CHURN
        left_out += ("variance",) if self.variance == VARIANCES[0] else ()
        return {name: value for name, value in stated.items() if name not in left_out}

    def distilled(self, times: list[float]) -> Self:
        """The settings of a student that is evaluated at `times`, noisy to clean."""
        return replace(self.by("ddim"), times=times)

    def guided(self, weight: float) -> Self:
        """The same with guidance of this weight, which policies do not have."""
        raise UserError(f"distillation.guidance={weight} is for images; leave it at null.")
