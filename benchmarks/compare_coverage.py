"""Do the intervals of `policy-accel compare` cover, how often does it find what is not there, and does it see what is?

Scores are made up, with known means: six arms on the same episodes, whose difficulty all arms share. Of each design
many repetitions are compared as the command does it. Nothing is trained.

OMP_NUM_THREADS=1 python benchmarks/compare_coverage.py --output benchmarks/results/compare_coverage.json
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from results import write_result

from policy_accel.comparison.power import Design, detectable
from policy_accel.comparison.statistics import TwoLevels, holm

LEVEL = 0.05
RESAMPLES = 1000
DIFFERENCE = 0.03


@dataclass(frozen=True)
class Made:
    """Scores that are made up: mean + training luck + episode + (arm x episode) + rest, standard deviations of each.

    Attributes:
        seeds: training seeds of each arm.
        episodes: that all runs share.
        training: of the luck of training.
        difficulty: of the episodes, the same for all arms.
        interaction: of how much an episode suits an arm.
        rest: of a single score.
        form: normal; clipped to [0, 1], more than a third of them at 1; or success (0 or 1).
        unsteady: arm whose training luck is three times as large; None for none.
        alike: correlation of the luck of equal training seeds between arms.
        arms: how many.
    """

    seeds: tuple[int, ...]
    episodes: int
    training: float
    difficulty: float = 0.2
    interaction: float = 0.05
    rest: float = 0.15
    form: str = "normal"
    unsteady: int | None = None
    alike: float = 0.0
    arms: int = 6

    def luck(self, arm: int) -> float:
        return self.training * (3 if arm == self.unsteady else 1)

    def mean(self, arm: int) -> float:
        """The true mean of an arm without a shift."""
        spread = float(np.sqrt(self.luck(arm) ** 2 + self.difficulty**2 + self.interaction**2 + self.rest**2))
        normal = scipy.stats.norm
        if self.form == "success":
            return float(normal.cdf(0.3))
        if self.form == "clipped":  # the mean of a rectified normal variable
            low, high = -0.9 / spread, 0.1 / spread
            inside = 0.9 * (normal.cdf(high) - normal.cdf(low)) + spread * (normal.pdf(low) - normal.pdf(high))
            return float(inside + normal.sf(high))
        return 0.7

    def draw(self, generator: np.random.Generator, shift: float = 0.0) -> list[np.ndarray]:
        """Scores [S, E] of each arm; the mean of the last is shifted."""
        difficulty = generator.normal(0, self.difficulty, self.episodes)
        shared = generator.normal(0, 1, (max(self.seeds), 1))
        found = []
        for arm in range(self.arms):
            count = self.seeds[arm % len(self.seeds)]
            own = generator.normal(0, 1, (count, 1))
            luck = self.luck(arm) * (np.sqrt(self.alike) * shared[:count] + np.sqrt(1 - self.alike) * own)
            around = luck + difficulty + generator.normal(0, self.interaction, self.episodes)
            around = around + generator.normal(0, self.rest, (count, self.episodes))
            if self.form == "success":
                total = np.sqrt(self.luck(arm) ** 2 + self.difficulty**2 + self.interaction**2 + self.rest**2)
                scores = (0.3 * total + around > 0).astype(float)
            elif self.form == "clipped":
                scores = np.clip(0.9 + around, 0, 1)
            else:
                scores = 0.7 + around
            found.append(scores + (shift if arm == self.arms - 1 else 0.0))
        return found

    def detectable(self, *, pooled: bool) -> float:
        """The detectable difference, from the variances that are known here."""
        design = Design(self.training**2, self.rest**2, 2 * self.interaction**2, self.arms if pooled else 2)
        return detectable(design.errors(self.seeds[0], self.episodes), LEVEL / (self.arms - 1))


def plain_percentile(scores: np.ndarray, generator: np.random.Generator, *, episodes: bool) -> tuple[float, float]:
    """The usual percentile interval, from runs resampled, and from runs and episodes resampled: what not to do."""
    count, size = scores.shape
    times = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    rows = times @ scores
    if episodes:
        rows = (rows * generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)).sum(1) / size
    else:
        rows = rows.mean(axis=1)
    low, high = np.quantile(rows, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def covered(interval: tuple[float, float] | None, truth: float) -> bool:
    assert interval is not None
    return interval[0] <= truth <= interval[1]


def compared(levels: TwoLevels) -> tuple[list[Any], list[Any], list[float], float]:
    """Estimates of means and of differences from the first arm, p after Holm, and what could be seen of the last."""
    unit = np.eye(len(levels.arms))
    means = [levels.estimate(row) for row in unit]
    differences = [levels.estimate(row - unit[0]) for row in unit[1:]]
    corrected = holm([one.p for one in differences if one.p is not None])
    return means, differences, corrected, detectable(differences[-1].errors, LEVEL / len(differences))


def levels_of(made: Made, seed: int, shift: float = 0.0) -> TwoLevels:
    return TwoLevels(made.draw(np.random.default_rng(seed), shift), resamples=RESAMPLES, seed=seed)


def coverage(made: Made, repetitions: int) -> dict[str, Any]:
    """Of a design in which no arm differs from another but by its unsteadiness."""
    truth = [made.mean(arm) for arm in range(made.arms)]
    kept: dict[str, tuple[list[bool], list[bool], list[bool]]] = {"separate": ([], [], []), "pooled": ([], [], [])}
    for seed in range(repetitions):
        levels = levels_of(made, seed)
        for name, (means, differences, false) in kept.items():
            levels.pooled = name == "pooled"
            found = compared(levels)
            means += [covered(one.interval, truth[arm]) for arm, one in enumerate(found[0])]
            differences += [covered(one.interval, truth[arm] - truth[0]) for arm, one in enumerate(found[1], 1)]
            false.append(min(found[2]) < LEVEL)
    names = ("coverage_of_means", "coverage_of_differences", "false_positive_rate")
    figures: dict[str, Any] = {
        name: {key: round(float(np.mean(values)), 4) for key, values in zip(names, lists, strict=True)}
        for name, lists in kept.items()
    }
    plain: dict[str, list[bool]] = {"runs_resampled": [], "runs_and_episodes_resampled": []}
    for seed in range(repetitions):
        generator = np.random.default_rng(seed)
        scores = made.draw(generator)[0]
        for name, hits in plain.items():
            interval = plain_percentile(scores, generator, episodes="episodes" in name)
            hits.append(covered(interval, truth[0]))
    return {**figures, "plain_percentile_coverage": {name: round(float(np.mean(v)), 4) for name, v in plain.items()}}


def power(made: Made, repetitions: int) -> dict[str, Any]:
    """Of a design in which the last arm is better: by `DIFFERENCE`, and by what should be seen four times in five."""
    figures: dict[str, Any] = {}
    for pooled in (False, True):
        expected = made.detectable(pooled=pooled)
        found = dict.fromkeys((DIFFERENCE, expected), 0)
        unseeable, printed = 0, []
        for shift in found:
            for seed in range(repetitions):
                levels = levels_of(made, seed, shift)
                levels.pooled = pooled
                _, _, corrected, smallest = compared(levels)
                found[shift] += corrected[-1] < LEVEL
                if shift == DIFFERENCE:
                    unseeable += corrected[-1] >= LEVEL and smallest > DIFFERENCE
                    printed.append(smallest)
        figures["pooled" if pooled else "separate"] = {
            "found_of_a_difference_of_0.03": round(found[DIFFERENCE] / repetitions, 4),
            "else_declared_unseeable": round(unseeable / repetitions, 4),
            "detectable_from_the_true_variances": round(expected, 4),
            "detectable_printed": [round(float(q), 4) for q in np.quantile(printed, [0.1, 0.5, 0.9])],
            "found_of_a_detectable_difference": round(found[expected] / repetitions, 4),
        }
    return figures


BASE = Made((3,), 200, 0.02)
DESIGNS = [
    *(replace(BASE, seeds=(s,), episodes=e, training=t) for s in (2, 3, 5) for e in (50, 500) for t in (0.01, 0.03)),
    *(replace(BASE, difficulty=d, rest=r) for d, r in ((0.15, 0.05), (0.3, 0.3))),
    *(replace(BASE, form=form, seeds=(s,)) for form in ("clipped", "success") for s in (2, 5)),
    replace(BASE, seeds=(5, 2), episodes=200),
    replace(BASE, alike=0.5),
    replace(BASE, unsteady=5),
    replace(BASE, unsteady=0),
    replace(BASE, arms=2),
]
POWERS = [
    replace(BASE, seeds=(3,), episodes=200, training=0.01),
    replace(BASE, seeds=(3,), episodes=1000, training=0.005),
    replace(BASE, seeds=(5,), episodes=500, training=0.01),
    replace(BASE, seeds=(10,), episodes=500, training=0.01),
    replace(BASE, seeds=(5,), episodes=500, training=0.03),
    replace(BASE, seeds=(5,), episodes=500, training=0.01, arms=2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {"no_difference": [], "a_difference": []}
    for kind, designs, measure in (("no_difference", DESIGNS, coverage), ("a_difference", POWERS, power)):
        for made in designs:
            rows[kind].append({"design": asdict(made), **measure(made, options.repetitions)})
            print(rows[kind][-1], flush=True)
    error = float(np.sqrt(LEVEL * (1 - LEVEL) / options.repetitions))
    figures = {
        "repetitions": options.repetitions,
        "resamples": RESAMPLES,
        "confidence": 1 - LEVEL,
        "standard_error_of_a_rate_of_0.05": round(error, 4),
        **rows,
    }
    write_result(options.output, figures)


if __name__ == "__main__":
    main()
