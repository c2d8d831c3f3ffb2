"""What a reader of a comparison should know beside its figures, a sentence each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from policy_accel.comparison.arms import printable
from policy_accel.comparison.result import Arm
from policy_accel.comparison.scores import ScoredRun

OF_METHODS = ("acceleration.", "diffusion.", "training.optimizer.momentum_decay.")
"""Settings that methods consist of: that these differ needs no word."""
SHOWN = 4
CAP = "acceleration.momentum.cap_warmup"


def notes_of(
    runs: Sequence[ScoredRun],
    scored: Sequence[ScoredRun],
    shared: Sequence[int],
    arms: Sequence[Arm],
    *,
    asked: str | None,
    baseline: str,
) -> list[str]:
    """Sentences on runs that are left out, episodes that are not shared, wide intervals, other settings that differ.

    Args:
        runs: all that were given.
        scored: those with a score, of which there is one at least.
        shared: evaluation seeds that all of them have.
        arms: that they make.
        asked: the baseline that was asked for.
        baseline: the one that was taken.
    """
    notes = []
    left = [run for run in runs if run.score is None]
    if left:
        shown = ", ".join(f"{run.run_dir.name} ({run.missing})" for run in left[:SHOWN])
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        notes.append(f"Left out, without a score: {shown}{more}.")
    if asked is None and baseline != "baseline":
        notes.append(f"No arm is called baseline, so {baseline} is taken for it; --baseline names another.")
    most = max(len(run.scores or {}) for run in scored)
    if most > len(shared):
        notes.append(f"Only the {len(shared)} evaluation seeds that all runs share count; some runs have {most}.")
    failed = sum(len((run.evaluation or {}).get("failed_seeds", [])) for run in scored)
    if failed:
        notes.append(f"Episodes that failed twice and count as score 0: {failed}.")
    notes += _capped(scored)
    notes += _few_real_images(scored)
    seeds = {
        arm: sorted(int(run.seed or 0) for run in scored if run.arm == arm) for arm in dict.fromkeys(_arms(scored))
    }
    alone = [arm for arm, found in seeds.items() if len(found) == 1]
    if len(alone) == len(seeds):
        notes.append(
            "One training seed each: intervals and p-values are of these very networks, and know nothing of the luck "
            "of training; another seed may turn them over."
        )
    elif alone:
        notes.append(
            f"One training seed alone: {', '.join(alone)}. Its interval knows nothing of the luck of training; in a "
            "difference it is taken to vary as the other arm does."
        )
    return [*notes, *_beyond_range(scored, shared, arms), *_other_settings(scored)]


def _few_real_images(scored: Sequence[ScoredRun]) -> list[str]:
    """A sentence where the floor in a score is a Fréchet distance of too few images, as `evaluate` says it."""
    for made in (run.made_of for run in scored):
        if made is not None and made.real is not None and made.real < made.dimension:
            return [
                f"FEW REAL IMAGES: the floor of {made.measure} in these scores is of {made.real}, on features of "
                f"{made.dimension} numbers, and means little: hold out more, and score as many."
            ]
    return []


def _beyond_range(scored: Sequence[ScoredRun], shared: Sequence[int], arms: Sequence[Arm]) -> list[str]:
    """A sentence where an interval passes what all scores keep to: 0, and of episodes 1."""
    by_episode = scored[0].scores is not None
    values = [score for run in scored for score in (run.scores.values() if run.scores else [run.score or 0.0])]
    if min(values) < 0:
        return []
    high = 1.0 if by_episode and max(values) <= 1 else math.inf
    beyond = [arm for arm in arms if arm.interval and (arm.interval[0] < 0 or arm.interval[1] > high)]
    if not beyond:
        return []
    names, seeds = ", ".join(arm.name for arm in beyond), max(len(arm.runs) for arm in beyond)
    few = f"{seeds} training seeds" if seeds > 1 else f"{len(shared)} episodes"
    return [
        f"Wide, since of {few}: an interval knows nothing of the range of all scores "
        f"({'0 to 1' if high == 1 else '0 and more'}), and passes it for {names}."
    ]


def _capped(scored: Sequence[ScoredRun]) -> list[str]:
    """A sentence where FDM's cap on the loss weight was never off before the score."""
    ends = [(run, (run.config or {}).get(CAP) or 0) for run in scored]
    capped = [(run, end) for run, end in ends if end >= (run.evaluation or {}).get("step", math.inf)]
    if not capped:
        return []
    longest = max(end for _, end in capped)
    names = ", ".join(dict.fromkeys(_arms([run for run, _ in capped])))
    return [
        f"FDM's cap on the loss weight was still on when these were scored: {names}; train for more than {longest} "
        f"updates ({CAP}), or lower that."
    ]


def _arms(scored: Sequence[ScoredRun]) -> list[str]:
    return [run.arm for run in scored]


def _other_settings(scored: Sequence[ScoredRun]) -> list[str]:
    """Settings that differ between methods though they are no part of one, and are in no arm's name."""
    named = {key for run in scored for key in run.named}
    keys = dict.fromkeys(key for run in scored for key in run.settings or {})
    found = []
    for key in keys:
        values = {run.arm: _shown((run.settings or {}).get(key)) for run in scored}
        if len(set(values.values())) > 1 and key not in named and not key.startswith(OF_METHODS):
            first = {value: arm for arm, value in reversed(values.items())}
            found.append(f"{key} ({', '.join(f'{value} of {arm}' for value, arm in reversed(first.items()))})")
    if not found:
        return []
    more = f" and {len(found) - SHOWN} more settings" if len(found) > SHOWN else ""
    return [f"The arms also differ in {', '.join(found[:SHOWN])}{more}."]


def _shown(value: Any) -> str:
    return "null" if value is None else printable(value)
