"""The search for the times of a sampler's steps, by a score of each window of demonstrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

RUNGS = 20
"""Times that a search chooses from: those of the process' own grid of so many steps."""
SWEEPS = 3
BLOCKS = 16


@dataclass(frozen=True)
class Candidate:
    """A sampler at given times, and the score of each window [W], lower is better."""

    sampler: str
    times: tuple[float, ...]
    scores: Tensor

    @property
    def score(self) -> float:
        """The mean over the windows."""
        return float(self.scores.mean())


class GridSearch:
    """Finds good times for one evaluation of the network after another.

    The grid of n evaluations is that of n - 1 with one time more, put where the score is best; then every time but the
    first is moved between its neighbours as long as that helps, which need not end at the best grid of all. The first
    is always the noisiest, where a sample is pure noise. The best grid is tried with the other samplers too, and the
    one of n - 1 with a restart at its end.

    Args:
        score: of a sampler at given times, [W].
        ladder: the times to choose from, noisy to clean.
        sampler: a deterministic one, for the search.
        others: samplers to try on what it finds; ddpm among them tries restarts.
    """

    def __init__(
        self,
        score: Callable[[str, tuple[float, ...]], Tensor],
        ladder: Sequence[float],
        sampler: str,
        others: Sequence[str] = (),
    ) -> None:
        self.score, self.ladder, self.sampler, self.others = score, tuple(ladder), sampler, tuple(others)
        self._known: dict[tuple[str, tuple[float, ...]], Candidate] = {}

    def run(self, evaluations: Sequence[int]) -> dict[int, list[Candidate]]:
        """The candidates that were scored for each number of evaluations, the best one first."""
        best = self.ladder[:1]
        found = {}
        for number in range(1, max(evaluations) + 1):
            before = best
            if number > 1:
                inserted = (tuple(sorted({*best, time}, reverse=True)) for time in self.ladder if time not in best)
                best = self._swept(self._best(inserted))
            self.scored(self.sampler, best)
            if number in evaluations:
                self._try_others(best, before)
                found[number] = sorted(
                    (one for one in self._known.values() if len(one.times) == number), key=lambda one: one.score
                )
        return found

    def scored(self, sampler: str, times: tuple[float, ...]) -> Candidate:
        """A candidate, scored at most once."""
        key = (sampler, times)
        if key not in self._known:
            self._known[key] = Candidate(sampler, times, self.score(sampler, times))
        return self._known[key]

    def _best(self, grids: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return min((self.scored(self.sampler, times) for times in grids), key=lambda one: one.score).times

    def _swept(self, times: tuple[float, ...]) -> tuple[float, ...]:
        """`times` after each but the first was moved between its neighbours, until nothing gets better."""
        for _ in range(SWEEPS):
            before = times
            for place in range(1, len(times)):
                above, below = times[place - 1], times[place + 1] if place + 1 < len(times) else -math.inf
                between = [time for time in self.ladder if below < time < above]
                times = self._best([(*times[:place], time, *times[place + 1 :]) for time in between])
            if times == before:
                break
        return times

    def _try_others(self, best: tuple[float, ...], before: tuple[float, ...]) -> None:
        for sampler in self.others:
            if len(best) > (2 if sampler == "dpm_solver++" else 1):  # whose first and last steps are of first order
                self.scored(sampler, best)
            if sampler == "ddpm" and len(best) > 2:
                for time in self.ladder[1:]:
                    if time >= before[-1]:
                        self.scored(sampler, (*before, time))

    def few(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """The best of them that are more than a rung of the ladder from each other, or take another sampler."""
        kept: list[Candidate] = []
        for one in candidates:
            if len(kept) < count and not any(self._alike(one, other) for other in kept):
                kept.append(one)
        return kept

    def _alike(self, one: Candidate, other: Candidate) -> bool:
        rungs = {time: rung for rung, time in enumerate(self.ladder)}
        pairs = zip(one.times, other.times, strict=True)
        return one.sampler == other.sampler and all(abs(rungs[a] - rungs[b]) <= 1 for a, b in pairs)


def standard_error(differences: Tensor) -> float:
    """Of the mean of differences [W] in the order of the demonstrations, whose neighbours are alike: from the means of
    16 blocks (batch means; Law and Carson, 1979)."""
    bounds = torch.linspace(0, len(differences), min(BLOCKS, len(differences)) + 1).round().int().tolist()
    means = torch.stack([differences[begin:end].mean() for begin, end in pairwise(bounds)])
    return float(means.std() / math.sqrt(len(means))) if len(means) > 1 else math.nan
