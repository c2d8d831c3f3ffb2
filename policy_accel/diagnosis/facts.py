"""The figures of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

from policy_accel.acceleration.diagnostics import Leak, SnrCoverage
from policy_accel.policy.recurrence import Recurrence

LEAK_P = 1e-3  # up to this p-value a choice leaks
DOUBTFUL_P = 0.05  # and up to this one it may, and more rows will tell
INDEPENDENT = "independent"


@dataclass(frozen=True)
class DataFacts:
    """The training windows, normalised.

    effective_dimension: participation ratio tr(C)^2 / tr(C^2) of the chunks' covariance, 1 .. entries.
    explained_linear, explained_neighbours: share of the chunks' variance predicted from the observation in other
        episodes than those of the prediction, by ridge regression and by the mean of the 8 nearest; None with one
        episode.
    action_std: of each dimension. action_rms: over all of them. constant_*: dimensions that never change.
    recurrence: whether observations come again.
    """

    windows: int
    episodes: int
    horizon: int
    action_dim: int
    observation_dim: int
    n_obs_steps: int
    effective_dimension: float
    explained_linear: float | None
    explained_neighbours: float | None
    action_std: tuple[float, ...]
    action_rms: float
    constant_actions: tuple[int, ...]
    constant_observations: tuple[int, ...]
    recurrence: Recurrence


@dataclass(frozen=True)
class NoiseFacts:
    """One way of choosing noise.

    overrides: what `train` takes for it. distance_before, distance_after: mean L2 distance of chunk and noise, of
    independent noise and of the chosen one. mean_square: of the noise, 1 for N(0, I). divergence: of its marginal from
    N(0, I), nats. rows_moved: share, of assignments. milliseconds: median over batches, draw and choice.
    candidates: of nearest noise, else None.
    """

    name: str
    overrides: tuple[str, ...]
    distance_before: float
    distance_after: float
    mean_square: float
    divergence: float
    rows_moved: float | None
    leak: Leak
    milliseconds: float
    candidates: int | None

    @property
    def drop(self) -> float:
        """Relative decrease of the transport distance."""
        return 1.0 - self.distance_after / self.distance_before

    @property
    def leaks(self) -> bool:
        """Whether the noise tells the observation."""
        return self.leak.p_value <= LEAK_P

    @property
    def doubtful(self) -> bool:
        """At chance, and not by far: a leak that is small for the number of rows looks like this too."""
        return not self.leaks and self.leak.p_value <= DOUBTFUL_P


@dataclass(frozen=True)
class LevelFacts:
    """By noise level, cleanest first: log_snr [L]; own_probability: of a choice, [L]; floors: of a target, [L]."""

    rows: int
    log_snr: tuple[float, ...]
    own_probability: dict[str, tuple[float, ...]]
    floors: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class ScheduleFacts:
    """coverage: by distribution of the times. start_snr: alpha / sigma where the sampler starts from pure noise.
    spacing: None where sampling.times is set."""

    family: str
    target: str
    sampler: str
    spacing: str | None
    evaluations: int
    start_time: float
    start_snr: float
    useful_log_snr: tuple[float, float]
    coverage: dict[str, SnrCoverage]


@dataclass(frozen=True)
class Diagnosis:
    """All that was measured. train: the overrides of `train` that lead to it, without those of the noise."""

    dataset: str
    train: tuple[str, ...]
    rows: int
    batch_size: int
    seed: int
    data: DataFacts
    noise: tuple[NoiseFacts, ...]
    refused: dict[str, str]
    levels: LevelFacts
    schedule: ScheduleFacts
