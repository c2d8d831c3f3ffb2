"""How a trained run is sampled: as its configuration says, as `tune-sampling` chose, or as somebody asks."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from policy_accel.diffusion.config import CHURN, SamplingConfig
from policy_accel.errors import UserError
from policy_accel.files import explained, replace_text
from policy_accel.parsing import from_yaml

TUNED = "sampling.yaml"
HEADER = (
    "# How this run is sampled, as `policy-accel tune-sampling` chose. Without this file, or with --untuned, it is\n"
    "# sampled as config.yaml says.\n"
)
DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What reading a file of other content may raise."""
S = TypeVar("S", bound=SamplingConfig)


@dataclass(frozen=True)
class TunedSampling:
    """What `tune-sampling` chose for a run.

    Attributes:
        step: of the checkpoint that it was chosen with.
        use: evaluations of the network that a sample takes when nobody asks for another number; None for the run's own
            sampling.
        grids: number of evaluations -> {"sampler", "times"}, and figures of the choice, which nothing here reads.
    """

    step: int
    use: int | None
    grids: Mapping[int, Mapping[str, Any]]

    @classmethod
    def read(cls, run_dir: Path) -> TunedSampling | None:
        """Of a run; None where nothing was tuned.

        Raises:
            UserError: a damaged file.
        """
        path = run_dir / TUNED
        with explained(path, "read"):
            if not path.is_file():
                return None
            try:
                values = from_yaml(path.read_bytes())
                found = cls(int(values["step"]), values["use"], dict(values["grids"]))
                for evaluations, grid in found.grids.items():
                    if not (
                        isinstance(evaluations, int) and isinstance(grid["sampler"], str) and _numbers(grid["times"])
                    ):
                        raise ValueError(f"grid {evaluations}")
                if found.use is not None and found.use not in found.grids:
                    raise ValueError(f"use {found.use}")
            except DAMAGED as error:
                raise UserError(
                    f"{path} is damaged ({type(error).__name__}); remove it, or run `policy-accel tune-sampling` again."
                ) from error
        return found

    def write(self, run_dir: Path) -> Path:
        """Put it into the run, whole or not at all; returns where."""
        path = run_dir / TUNED
        values = dataclasses.asdict(self)
        replace_text(path, HEADER + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120))
        return path


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)


@dataclass(frozen=True)
class AskedSampling:
    """What somebody asks of the sampling of a trained run; None leaves it to the run.

    Args:
        sampler: its name.
        steps: of an even grid, or of the grid that was tuned for so many evaluations.
        spacing: of an even grid.
        times: of the steps.
        untuned: whether what was tuned is left aside.
        churn: first values of `CHURN`, as many as are asked for; (0,) for none.

    Raises:
        UserError: times beside steps or a spacing.
    """

    sampler: str | None = None
    steps: int | None = None
    spacing: str | None = None
    times: Sequence[int | float] | None = None
    untuned: bool = False
    churn: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "spacing"):
            if self.times is not None and getattr(self, name) is not None:
                raise UserError(
                    f"sampling times {list(self.times)} say which steps are taken, so that {name}="
                    f"{getattr(self, name)} has no effect; leave out one of the two."
                )

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """What the arguments of a command ask."""
        untuned = getattr(options, "untuned", False)
        churn = getattr(options, "churn", None)
        return cls(options.sampler, options.sampling_steps, options.spacing, options.sampling_times, untuned, churn)

    def of_run(self, trained: S, tuned: TunedSampling | None = None) -> tuple[S, str | None]:
        """The settings `trained` of a run as asked, or `tuned` where that has what is asked, and a sentence on why."""
        steps_alone = (self.sampler, self.spacing, self.times, self.churn) == (None, None, None, None)
        if tuned is not None and not self.untuned and steps_alone:
            number = tuned.use if self.steps is None else self.steps
            if number is not None and number in tuned.grids:
                grid = tuned.grids[number]
                times = list(grid["times"])
                settings = dataclasses.replace(trained.by(grid["sampler"]), times=times)
                return settings, f"Sampled as tuned at step {tuned.step}: {grid['sampler']} at times {times} ({TUNED})."
        changed: dict[str, Any] = {
            name: value for name in ("steps", "spacing") if (value := getattr(self, name)) is not None
        }
        if self.times is not None:
            changed["times"] = list(self.times)
        elif self.steps is not None or self.spacing is not None:
            changed["times"] = None
        chosen = trained if self.sampler is None else trained.by(self.sampler)
        if self.churn is not None:
            chosen = chosen.without_churn()
            changed.update(zip(CHURN, self.churn, strict=False))
        return dataclasses.replace(chosen, **changed), None


def sampling_record(config: SamplingConfig) -> dict[str, Any]:
    """`SamplingConfig.record` by the keys of evaluation.json."""
    plain = ("sampler", "guidance")
    return {name if name in plain else f"sampling_{name}": value for name, value in config.record().items()}


AS_CHOSEN, AS_TRAINED = AskedSampling(), AskedSampling(untuned=True)
