"""Momentum that decays during training, with the learning rate that goes with it.

Xu, Mi, Wang & Chen 2024, "Towards Faster Training of Diffusion Models: An Inspiration of A Consistency Phenomenon"
(arXiv 2404.07946): on the smooth loss of a diffusion model a large momentum slows convergence, so it decays, and the
learning rate is scaled by (1 - beta_0) / (1 - beta), so that the newest gradient keeps its coefficient lr (1 - beta).
The factor and the Demon schedule are known from re-implementations. With that schedule the factor is exactly
1 - beta_0 * progress; hence the control `hold_beta`, the same learning rates at constant momentum.

`decay_at` is a pure function of the step, for loops that set the optimiser's groups themselves; `MomentumDecay` keeps
the state and sets the groups of any loop.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from policy_accel.errors import check_choice

COMPOSITIONS = ("multiply", "replace")
NEGLIGIBLE = 2.0**-54


@dataclass(unsafe_hash=True)
class MomentumDecayConfig:
    """Constant momentum: the baseline, and the base of the schedules."""

    name: str = "none"


@dataclass(unsafe_hash=True)
class DecaySchedule(MomentumDecayConfig):
    """How the momentum decays and what the learning rate does meanwhile."""

    compensate: bool = True
    """Scale the learning rate by (1 - beta_0) / (1 - beta)."""
    compose: str = "replace"
    """What the compensation does to the learning rate in a run: from start_step on replace the schedule, or multiply
    it."""
    start_step: int | None = None
    """First update of the decay in a run; null for the end of the warm-up."""
    beta_min: float = 0.0
    """Lower bound of beta."""
    hold_beta: bool = False
    """The control: the learning rates of the schedule at constant beta_0."""
    exact_bias_correction: bool = False
    """Undo, through the learning rate, that Adam divides by 1 - beta^k, where a changing beta asks for one minus the
    product of all betas so far (derived). 5 % in runs of 50 steps at beta_0 = 0.9, 0.3 % in runs of 1000."""

    @abstractmethod
    def momentum(self, progress: float, beta_0: float, step: int) -> float:
        """beta at `progress` in [0, 1] of the decay, its `step`-th step, before the bound. Raises ValueError for
        settings out of range."""

    def at(self, progress: float, beta_0: float, step: int) -> tuple[float, float]:
        """Momentum and learning-rate factor at `progress` of the decay: (beta, (1 - beta_0) / (1 - beta)).

        The factor is that of a momentum which averages, (1 - beta) g + beta m, as in Adam. A heavy ball, g + beta m
        (SGD with dampening 0), needs none: with compensate=False it is 1.

        Args:
            progress: share of the decay that is done before this step, clamped to [0, 1]; at 1 demon reaches 0.
            beta_0: momentum at the start, in (0, 1).
            step: steps of the decay before this one, which the exponential schedule counts.

        Raises:
            ValueError: a number out of range.
        """
        if not 0.0 < beta_0 < 1.0:
            raise ValueError(
                f"beta_0={beta_0} must lie between 0 and 1 (both excluded); it is the momentum to decay from."
            )
        if not 0.0 <= self.beta_min <= beta_0:
            raise ValueError(f"beta_min={self.beta_min} must lie between 0 and the first momentum, {beta_0}.")
        beta = max(self.momentum(min(max(progress, 0.0), 1.0), beta_0, step), self.beta_min)
        return beta, (1.0 - beta_0) / (1.0 - beta) if self.compensate else 1.0


@dataclass(unsafe_hash=True)
class DemonDecay(DecaySchedule):
    """beta / (1 - beta) falls linearly to 0 (Chen et al. 2019, arXiv 1910.04952)."""

    name: str = "demon"

    def momentum(self, progress: float, beta_0: float, step: int) -> float:
        """See the base class."""
        return beta_0 * (1.0 - progress) / ((1.0 - beta_0) + beta_0 * (1.0 - progress))


@dataclass(unsafe_hash=True)
class LinearDecay(DecaySchedule):
    """beta falls linearly to beta_end."""

    name: str = "linear"
    beta_end: float = 0.5
    """beta at the end of the run."""

    def momentum(self, progress: float, beta_0: float, step: int) -> float:
        """See the base class."""
        if not 0.0 <= self.beta_end <= beta_0:
            raise ValueError(f"beta_end={self.beta_end} must lie between 0 and the first momentum, {beta_0}.")
        return beta_0 + (self.beta_end - beta_0) * progress


@dataclass(unsafe_hash=True)
class ExponentialDecay(DecaySchedule):
    """beta_0 * rate^k at the k-th step of the decay, no lower than floor."""

    name: str = "exponential"
    rate: float = 0.9995
    """Factor on beta of each update of the decay."""
    floor: float = 0.4
    """beta falls no lower."""

    def momentum(self, progress: float, beta_0: float, step: int) -> float:
        """See the base class."""
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"rate={self.rate} must lie in (0, 1].")
        if not 0.0 <= self.floor <= beta_0:
            raise ValueError(f"floor={self.floor} must lie between 0 and the first momentum, {beta_0}.")
        return max(beta_0 * self.rate ** max(step, 0), self.floor)


@dataclass(unsafe_hash=True)
class MatchedCosineDecay(DecaySchedule):
    """The learning-rate factor is a half cosine from 1 to 1 - beta_0, and beta what goes with it (derived)."""

    name: str = "matched_cosine"

    def momentum(self, progress: float, beta_0: float, step: int) -> float:
        """See the base class."""
        return 1.0 - (1.0 - beta_0) / ((1.0 - beta_0) + beta_0 * 0.5 * (1.0 + math.cos(math.pi * progress)))


MOMENTUM_DECAY_CONFIGS: tuple[type[MomentumDecayConfig], ...] = (
    MomentumDecayConfig,
    DemonDecay,
    LinearDecay,
    ExponentialDecay,
    MatchedCosineDecay,
)


def momentum_decay(
    progress: float,
    beta_0: float,
    *,
    law: str = DemonDecay.name,
    compensate: bool = True,
    step: int = 0,
    **settings: Any,
) -> tuple[float, float]:
    """Momentum and learning-rate factor at `progress` of the schedule called `law`: see `DecaySchedule.at`.

    Args:
        progress, beta_0, step: as there.
        law: demon, linear, exponential or matched_cosine.
        compensate: as of `DecaySchedule`.
        settings: the others of that schedule.

    Raises:
        ValueError: an unknown schedule, or a number out of range.
    """
    schedules = {config.name: config for config in MOMENTUM_DECAY_CONFIGS if issubclass(config, DecaySchedule)}
    schedule = schedules[check_choice("law", law, schedules)]
    return schedule(compensate=compensate, **settings).at(progress, beta_0, step)


def decay_at(
    step: int, steps: int, beta_0: float, schedule: DecaySchedule | None = None, *, start_step: int = 0
) -> tuple[float, float]:
    """(beta, learning-rate factor) for the optimiser step with number `step` (from 0) of `steps`; demon by default.

    Nothing changes before `start_step`; then progress is (step - start_step) / (steps - start_step). A pure function of
    its arguments: a resumed run gets the same numbers. With `exact_bias_correction` the first step must be the
    optimiser's first.

    Raises:
        ValueError: a setting out of range, start_step outside [0, steps), or settings that would change nothing.
    """
    schedule = schedule or DemonDecay()
    if schedule.hold_beta and not schedule.compensate:
        raise ValueError("hold_beta=True changes nothing with compensate=False; leave one of them out.")
    if not 0 <= start_step < steps:
        raise ValueError(f"start_step={start_step} must be at least 0 and less than {steps}, the steps of the run.")
    beta, factor = _at_step(schedule, step, steps, beta_0, start_step)
    if schedule.hold_beta:
        return beta_0, factor
    if schedule.exact_bias_correction:
        products = beta_products(steps, beta_0, schedule, start_step)
        product = products[step] if step < len(products) else 0.0
        factor *= (1.0 - beta ** (step + 1)) / (1.0 - product)
    return beta, factor


def _at_step(schedule: DecaySchedule, step: int, steps: int, beta_0: float, start_step: int) -> tuple[float, float]:
    return schedule.at((step - start_step) / (steps - start_step), beta_0, step - start_step)


@lru_cache(maxsize=16)
def beta_products(steps: int, beta_0: float, schedule: DecaySchedule, start_step: int = 0) -> tuple[float, ...]:
    """Products of beta over the steps 0 .. k, for k = 0, 1, ... until one minus the product is 1 in float64."""
    betas = (_at_step(schedule, step, steps, beta_0, start_step)[0] for step in itertools.count())
    products = []
    for product in itertools.accumulate(betas, lambda product, beta: product * beta):
        products.append(product)
        if product < NEGLIGIBLE:
            break
    return tuple(products)


def _momentum(optimizer: Optimizer, group: dict[str, Any]) -> tuple[float, bool]:
    """Momentum of a group, and whether it averages, (1 - beta) g + beta m, rather than sums, g + beta m."""
    if "betas" in group:
        return float(group["betas"][0]), True
    name = type(optimizer).__name__
    momentum, dampening = float(group.get("momentum") or 0.0), group.get("dampening")
    if dampening is None or momentum == 0.0:
        raise ValueError(f"optimizer: {name} has no momentum to decay; use the Adam family, or SGD with momentum.")
    if dampening not in (0, momentum):
        raise ValueError(
            f"optimizer: {name} with dampening={dampening} is neither a heavy ball (0) nor an average "
            f"(momentum={momentum}), the two that momentum decay is defined for; set dampening to one of them."
        )
    return momentum, dampening != 0


@dataclass
class _First:
    """A parameter group as it was before the decay: momentum, learning rate, what decays them, `_momentum`'s answer."""

    beta: float
    lr: float
    schedule: DecaySchedule
    averages: bool


class MomentumDecay:
    """Momentum decay for any training loop.

        decay = MomentumDecay(optimizer, steps=steps, start_step=warmup)
        ...
        decay.step()        # immediately before optimizer.step()
        optimizer.step()

    Works with optimisers of the Adam family (`betas` in their groups) and with SGD with momentum; other optimisers are
    refused. SGD with dampening 0 needs no learning-rate factor and gets none; with dampening equal to the momentum both
    decay together.

    Only from `step()` to the end of `optimizer.step()` do the groups hold the changed learning rate; a hook then
    restores the loop's. So every kind of learning-rate scheduler composes with it, also those that work from the
    group's present value, and nothing compounds. Schedulers that also move the momentum (OneCycleLR, CyclicLR) need
    cycle_momentum=False. Decoupled weight decay is lr * weight_decay, so it fades with lr.

    Args:
        optimizer: freshly made, with its first momentum and learning rate.
        steps: length of the run; beyond it the momentum stays at its end.
        schedule: of the momentum; demon by default. Its own `compose` and `start_step` are those of a run.
        start_step: first step of the decay, for instance the end of the warm-up.
        compose: "multiply" the loop's learning rate by the factor, or "replace" it, from start_step on, by the
            optimiser's first learning rate times the factor.

    Raises:
        ValueError: an optimiser without momentum, a setting out of range, or settings that would change nothing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        schedule: DecaySchedule | None = None,
        *,
        start_step: int = 0,
        compose: str = "multiply",
    ) -> None:
        check_choice("compose", compose, COMPOSITIONS)
        self.optimizer, self.steps, self.start_step, self.compose = optimizer, steps, start_step, compose
        self.step_count = 0
        self._firsts = [self._first(group, schedule or DemonDecay()) for group in optimizer.param_groups]
        self._changed: list[tuple[Any, Any]] = []
        optimizer.register_step_post_hook(lambda *_: self._restore())

    def _first(self, group: dict[str, Any], schedule: DecaySchedule) -> _First:
        beta_0, averages = _momentum(self.optimizer, group)
        name = type(self.optimizer).__name__
        if schedule.exact_bias_correction and "betas" not in group:
            raise ValueError(
                f"exact_bias_correction=True is for optimisers that divide by 1 - beta^k, as AdamW; {name} does not."
            )
        if not averages:
            if schedule.hold_beta:
                raise ValueError(
                    f"hold_beta=True changes nothing for {name} with dampening=0, whose learning rate stays as it is; "
                    "leave it out."
                )
            schedule = replace(schedule, compensate=False)
        decay_at(0, self.steps, beta_0, schedule, start_step=self.start_step)
        # A scheduler that was made earlier has already moved "lr" and kept the first value.
        return _First(beta_0, float(group.get("initial_lr", group["lr"])), schedule, averages)

    def step(self) -> None:
        """Set momentum and learning rate of every group for the optimiser step that follows."""
        self._restore()
        if len(self.optimizer.param_groups) != len(self._firsts):
            raise ValueError("optimizer: it has gained parameter groups; make MomentumDecay after adding them.")
        replaces = self.compose == "replace" and self.step_count >= self.start_step
        for group, first in zip(self.optimizer.param_groups, self._firsts, strict=True):
            beta, factor = decay_at(self.step_count, self.steps, first.beta, first.schedule, start_step=self.start_step)
            given = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
            changed = (first.lr if replaces else given) * factor
            _assign(group, "lr", changed)
            self._changed.append((given, changed))
            _set_momentum(group, beta, first.averages)
        self.step_count += 1

    def _restore(self) -> None:
        """Give every group the loop's learning rate back, unless someone has set another one since."""
        for group, (given, changed) in zip(self.optimizer.param_groups, self._changed, strict=False):
            if isinstance(given, Tensor) or group["lr"] == changed:
                _assign(group, "lr", given)
        self._changed = []

    def state_dict(self) -> dict[str, Any]:
        """Step, first momenta and first learning rates: JSON-able."""
        firsts = self._firsts
        return {"step": self.step_count, "beta_0": [f.beta for f in firsts], "lr_0": [f.lr for f in firsts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave, whatever the optimiser's groups hold by now.

        Raises:
            ValueError: the state of an optimiser with another number of groups.
        """
        if len(state["beta_0"]) != len(self._firsts):
            raise ValueError(
                f"state: it is of {len(state['beta_0'])} parameter groups, and the optimiser has {len(self._firsts)}; "
                "build it as in the run that was saved."
            )
        self.step_count = int(state["step"])
        for first, beta, lr in zip(self._firsts, state["beta_0"], state["lr_0"], strict=True):
            first.beta, first.lr = beta, lr


def _assign(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a number of a group; one that is a tensor keeps its identity, for captured optimisers."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def _set_momentum(group: dict[str, Any], beta: float, averages: bool) -> None:
    if "betas" not in group:
        group["momentum"] = beta
        group["dampening"] = beta if averages else group["dampening"]
    elif isinstance(group["betas"][0], Tensor):
        group["betas"][0].fill_(beta)
    else:
        group["betas"] = (beta, group["betas"][1])
