"""What a comparison finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MADE_BY = "policy-accel compare"
"""Stands near the beginning of every file that holds a comparison."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: of the arm.
        runs: mean score of each run, by training seed.
        run_dirs: their directories, by training seed.
        mean: over runs and episodes.
        interval: of the mean; None for one run without episodes. With one training seed it knows nothing of how much
            another seed would change.
    """

    name: str
    runs: dict[int, float]
    run_dirs: dict[int, str]
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline, on the same evaluation seeds.

    Attributes:
        arm: the arm.
        value: its mean less that of the baseline.
        interval: of the difference, not corrected for several tests; None where nothing tells chance.
        p: two-sided, of no difference; None like the interval.
        corrected: p after Holm, over all arms.
        found: whether `corrected` lies below 1 - confidence.
        better: whether the arm is the better one by `value`; None where the measure does not say what is better.
        detectable: the smallest true difference that is found with probability `Comparison.power`, after Holm; None
            like p.
        error_of_runs: standard error from having few training seeds.
        error_of_episodes: the same of episodes.
        seeds_needed: training seeds with which `Comparison.difference` would be found (80 %), with as many episodes;
            None where it is, or where 200 would not do or cannot be told.
        episodes_needed: episodes a run with which it would, with as many seeds; None where it is, or 100,000 would not.
        knows_training: whether there are training seeds enough to tell luck of the training from a difference.
        sentence: all that in words.
    """

    arm: str
    value: float
    interval: Interval | None
    p: float | None
    corrected: float | None
    found: bool
    better: bool | None
    detectable: float | None
    error_of_runs: float
    error_of_episodes: float
    seeds_needed: int | None
    episodes_needed: int | None
    knows_training: bool
    sentence: str = ""


@dataclass(frozen=True)
class Comparison:
    """What several arms reach, and how they differ from the baseline.

    Attributes:
        task: of all runs.
        track: of all runs: robot or images.
        measure: what was compared.
        better: "higher" or "lower"; "" where the measure does not say.
        baseline: name of the arm that the others are compared with.
        confidence: of intervals; 1 less it is the level of the tests.
        power: probability of finding a difference as large as `Difference.detectable`.
        difference: that should be seen; None where none was named.
        pooled: whether all arms are taken to vary alike from training seed to training seed.
        evaluation_seeds: of the episodes that all runs share; empty for images.
        arms: in the order of the runs, the baseline first.
        differences: of all arms but the baseline.
        notes: what a reader should know, a sentence each.
        scored_by: how a score of images is made: "floor / fd_random_conv of 240 images"; "" of any other measure.
        data: name of their data, where the task, `custom` or `custom_images`, is of any; "" elsewhere.
        summary: what is known of all arms, in words.
    """

    task: str
    track: str
    measure: str
    better: str
    baseline: str
    confidence: float
    power: float
    difference: float | None
    pooled: bool
    evaluation_seeds: list[int]
    arms: list[Arm]
    differences: list[Difference]
    notes: list[str]
    data: str = ""
    scored_by: str = ""
    summary: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"made_by": MADE_BY, **asdict(self)}

    def of_task(self) -> str:
        """The task, and the data where it does not say them."""
        return f"{self.task} ({self.data})" if self.data else self.task

    def measured(self) -> str:
        """The measure, and what is better."""
        measure = f"{self.measure} = {self.scored_by}" if self.scored_by else self.measure
        return f"{measure} ({self.better} is better)" if self.better else measure

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)
