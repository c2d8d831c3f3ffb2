"""Samplers as plain functions of (predictor, x_T, process, grid).

Every coefficient is a Python float taken from the float64 tables before the loop, so no step waits for the device.
The steps themselves (`ddim_step`, `euler_step`, `heun_correction`) are functions too: schedulers take the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from policy_accel.diffusion.by_level import ByLevel, Denoiser, denoiser_at
from policy_accel.diffusion.churn import NO_CHURN, Churn
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.learned_variance import learned_log_variance, split_variance, step_variances
from policy_accel.diffusion.predictions import x0_and_epsilon
from policy_accel.diffusion.processes import CLEAN, Level, Process

SMALLEST_VARIANCE = 1e-20

Known = Callable[[Tensor, Level], Tensor]


def start_scale(process: Process, grid: Grid) -> float:
    """Standard deviation of the x_T that the grid starts from: x_T = start_scale * N(0, I).

    1 where the process preserves variance (also flow at u = 1); elsewhere the sigma of the first time, as for EDM.
    """
    first = process.level(grid.timesteps[0])
    preserves = math.isclose(first.alpha**2 + first.sigma**2, 1.0, rel_tol=1e-9)
    return 1.0 if preserves else first.sigma


def levels_of(process: Process, grid: Grid) -> list[tuple[Level, Level]]:
    """Where each step starts and where it leads, read without a wait per value."""
    process = process.to("cpu")
    return [(process.level(t), process.level(to)) for t, to in zip(grid.timesteps, grid.next_timesteps, strict=True)]


def unchanged(x: Tensor, level: Level) -> Tensor:
    """The `known` of a sample of which nothing is given."""
    return x


@dataclass(frozen=True)
class Predictor:
    """A denoiser as samplers ask it: `predict(x, level)` gives the clean sample and the noise that it sees in x.

    Args:
        denoise: `denoise(input [B, *S], t)` is given x_t times the process' input scale and what the process tells the
            network, [B] or [B, n] (int64 for a discrete process, float32 for the others).
        target: what it returns, see also `split_variance`.
        clip: bound of the clean sample, None for none.
        known: for in-painting, `known(x, level)` puts the given entries into x = alpha x_0 + sigma epsilon, with alpha
            and sigma of `level`. It is applied to the state before every evaluation, to the scaled input of the network
            (the level then has the input scale in alpha and sigma), and to the result (at the clean level). It may give
            entries as they are at every level (Janner et al. 2022, section 3.2), or at the noise level of the state
            (Song et al. 2021b, appendix I.2).
    """

    denoise: Denoiser | ByLevel
    target: str = "epsilon"
    clip: float | None = 1.0
    known: Known = unchanged

    def __call__(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The clipped clean sample and the noise, each [B, *S], that the denoiser sees in x [B, *S] at `level`."""
        x0, epsilon, _ = self.with_variance(x, level)
        return x0, epsilon

    def with_variance(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same, and what the denoiser says of the variance of the step, [B, *S] or None."""
        times = level.told(x)
        model_input, scale = x, level.input_scale
        if scale != 1.0:
            # Asked again, because entries that are given as they are must not be scaled: s falls to zero.
            scaled = Level(scale * level.alpha, scale * level.sigma, 1.0, level.time)
            model_input = self.known(scale * x, scaled)
        output = denoiser_at(self.denoise, level)(model_input, times).to(x.dtype)
        prediction, variance = split_variance(output, x)
        return *x0_and_epsilon(prediction, x, level, self.target, self.clip), variance


def _noised_again(x: Tensor, reached: Level, level: Level, noise: Tensor) -> Tensor:
    """x of the level `reached` taken up to a noisier one, by the forward process between the two."""
    ratio = level.alpha / reached.alpha
    return ratio * x + math.sqrt(level.sigma**2 - ratio**2 * reached.sigma**2) * noise


def ddim_step(x0: Tensor, epsilon: Tensor, there: Level) -> Tensor:
    """x [B, *S] at the level `there`, of x0 and epsilon [B, *S]: DDIM with eta = 0 (Song et al. 2021, equation 12)."""
    return there.alpha * x0 + there.sigma * epsilon if there.sigma > 0 else x0


def euler_step(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
    """Keep x0 and the noise direction (x - alpha x0) / sigma while alpha and sigma go from `here` to `there`."""
    kept = there.sigma / here.sigma
    return kept * x + (there.alpha - kept * here.alpha) * x0


def heun_correction(
    x: Tensor, x0: Tensor, here: Level, moved: Tensor, moved_x0: Tensor, there: Level, *, straight: bool = False
) -> Tensor:
    """Euler's step from x at `here` to `moved` at `there`, taken with the mean of the slopes at both (Karras et al.
    2022, algorithm 1).

    Args:
        x, x0: where the step started [B, *S], and the clean sample predicted there.
        moved, moved_x0: the same of where Euler's step led.
        here, there: their levels, both with noise.
        straight: average the slopes of x along sigma, for levels whose alpha and sigma add up to 1; else those of the
            unscaled state x / alpha along sigma / alpha.
    """
    if straight:
        slope, moved_slope = (x - x0) / here.sigma, (moved - moved_x0) / there.sigma
        interval = there.sigma - here.sigma
    else:
        slope = (x - here.alpha * x0) / here.sigma
        moved_slope = (moved - there.alpha * moved_x0) / there.sigma
        interval = there.sigma - here.sigma * there.alpha / here.alpha
    return moved + 0.5 * interval * (moved_slope - slope)


def ddpm(
    predict: Predictor, x: Tensor, process: Process, grid: Grid, *, noise: Iterable[Tensor], large: bool = False
) -> Tensor:
    """Ancestral sampling with the small posterior variance, the `large` one of the forward process' step, or a learned
    one between the two (Ho et al. 2020, equations 6-7 and algorithm 2; for general alpha and sigma Kingma et al. 2021,
    equations 26-27; Nichol & Dhariwal 2021, equation 15).

    `noise` gives the fresh noise [B, *S] of each step but those to the clean sample, which add none. On a grid that
    goes back up (a restart, see `Grid.of`, or steps taken again, see `Sampler`), x is noised again from where the last
    step led, with a draw more. Returns x_0 [B, *S].
    """
    draws = iter(noise)
    reached: Level | None = None
    for here, there in levels_of(process, grid):
        if reached is not None and reached != here:
            x = _noised_again(x, reached, here, next(draws))
        reached = there
        x = predict.known(x, here)
        x0, _, learned = predict.with_variance(x, here)
        ratio = here.alpha / there.alpha
        step_variance, posterior_variance = step_variances(here.alpha, here.sigma, there.alpha, there.sigma)
        x0_weight = there.alpha * step_variance / here.sigma**2
        x_weight = ratio * there.sigma**2 / here.sigma**2
        x = x0_weight * x0 + x_weight * x
        if there.sigma > 0:
            variance = max(posterior_variance, SMALLEST_VARIANCE)
            deviation: Tensor | float = math.sqrt(step_variance if large else variance)
            if learned is not None:
                high = math.log(max(step_variance, variance))
                deviation = (0.5 * learned_log_variance(learned, math.log(variance), high)).exp()
            x = x + deviation * next(draws)
    return predict.known(x, CLEAN)


def ddim(predict: Predictor, x: Tensor, process: Process, grid: Grid) -> Tensor:
    """Deterministic DDIM, eta = 0 (Song et al. 2021, equation 12). Returns x_0 [B, *S].

    The clean sample is clipped, the direction keeps the network's own epsilon, as diffusers does by default.
    """
    for here, there in levels_of(process, grid):
        x = predict.known(x, here)
        x0, epsilon = predict(x, here)
        x = ddim_step(x0, epsilon, there)
    return predict.known(x, CLEAN)


def dpm_solver_pp(predict: Predictor, x: Tensor, process: Process, grid: Grid) -> Tensor:
    """DPM-Solver++(2M): second-order multistep in the data prediction (Lu et al. 2022b, algorithm 2).

    The first and the last step are first order; the last one leads to sigma = 0. A step from pure noise (alpha = 0) is
    the limit of an infinite step in log-SNR, after which the next one is first order too. Returns x_0 [B, *S].
    """
    last_x0: Tensor | None = None
    last_step = math.nan
    for here, there in levels_of(process, grid):
        x = predict.known(x, here)
        x0, _ = predict(x, here)
        if there.sigma == 0:
            x = x0
            continue
        step = there.half_log_snr - here.half_log_snr if here.alpha > 0 else math.inf
        direction = x0
        if last_x0 is not None:
            direction = x0 + 0.5 * (step / last_step) * (x0 - last_x0)
        x = there.sigma / here.sigma * x - there.alpha * math.expm1(-step) * direction
        last_x0, last_step = x0, step
    return predict.known(x, CLEAN)


def euler(predict: Predictor, x: Tensor, process: Process, grid: Grid) -> Tensor:
    """Euler's method on the probability-flow ODE, one evaluation a step. Returns x_0 [B, *S].

    It is the same step whether the ODE is written for x / alpha along sigma / alpha (Karras et al. 2022, equation 1) or
    for a flow's x along u: x0 and epsilon are held. Without clipping it therefore equals DDIM; with it the direction
    follows the clipped sample instead of the network's own epsilon.
    """
    for here, there in levels_of(process, grid):
        x = predict.known(x, here)
        x0, _ = predict(x, here)
        x = euler_step(x, x0, here, there)
    return predict.known(x, CLEAN)


def heun(
    predict: Predictor,
    x: Tensor,
    process: Process,
    grid: Grid,
    *,
    churn: Churn = NO_CHURN,
    noise: Iterable[Tensor] = (),
) -> Tensor:
    """Heun's second-order method (Karras et al. 2022, algorithm 1, or 2 with `churn`). Returns x_0 [B, *S].

    2 N - 1 evaluations for N steps: the last one, to the clean sample, is Euler's. The slopes are averaged in the
    unscaled state x / alpha along sigma / alpha, where an exact denoiser's paths are straightest, or, where alpha and
    sigma add up to 1 (flow, which starts at alpha = 0), in x along sigma: those averages differ.

    `noise` gives a draw [B, *S] for each step that `churn` takes back, which is for times that are sigmas.
    """
    draws = iter(noise)
    levels = levels_of(process, grid)
    straight = all(math.isclose(here.alpha + here.sigma, 1.0, rel_tol=1e-9) for here, _ in levels)
    for time, (here, there) in zip(grid.timesteps, levels, strict=True):
        raised = churn.raised(time)
        if raised is not None:
            reached, here = here, process.level(raised)
            x = _noised_again(x, reached, here, churn.noise * next(draws))
        x = predict.known(x, here)
        x0, _ = predict(x, here)
        moved = euler_step(x, x0, here, there)
        if there.sigma > 0:
            moved = predict.known(moved, there)
            moved_x0, _ = predict(moved, there)
            moved = heun_correction(x, x0, here, moved, moved_x0, there, straight=straight)
        x = moved
    return predict.known(x, CLEAN)


def mip(predict: Predictor, x: Tensor, process: Process, grid: Grid) -> Tensor:
    """Each step starts from the sample that the one before predicted, times its alpha, without noise (Pan et al. 2025,
    arXiv 2512.01809). Returns x_0 [B, *S]."""
    for here, there in levels_of(process, grid):
        x = predict.known(x, here)
        x0, _ = predict(x, here)
        x = there.alpha * x0
    return predict.known(x, CLEAN)


DETERMINISTIC_SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "ddim": ddim,
    "dpm_solver++": dpm_solver_pp,
    "euler": euler,
    "heun": heun,
}
OWN_SAMPLERS: dict[str, Callable[..., Tensor]] = {"mip": mip}
"""Deterministic too, for the processes alone that name them (`Process.samplers`)."""
SAMPLERS = ["ddpm", *DETERMINISTIC_SAMPLERS]


def register_sampler(name: str, solve: Callable[..., Tensor]) -> None:
    """Make a deterministic sampler known by its name.

    Args:
        name: of the sampler.
        solve: as `ddim`, with one evaluation of the denoiser a step. `levels_of` gives the levels of its steps.

    Raises:
        ValueError: another sampler has this name.
    """
    if name in (*SAMPLERS, *OWN_SAMPLERS):
        raise ValueError(f"name={name} is another sampler; choose another name.")
    DETERMINISTIC_SAMPLERS[name] = solve
    SAMPLERS.append(name)


def network_evaluations(sampler: str, steps: int) -> int:
    """Evaluations of the denoiser that `steps` steps cost: 2 steps - 1 for heun, else one each."""
    return 2 * steps - 1 if sampler == "heun" else steps
