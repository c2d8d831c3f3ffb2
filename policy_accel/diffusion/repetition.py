"""How often one update uses a clean sample."""

from __future__ import annotations

from dataclasses import dataclass

from policy_accel.errors import check_choice

COUPLINGS = ("shared", "independent", "fresh")


@dataclass(frozen=True)
class Repetition:
    """How many times of one clean sample are trained on in one update, and how their noises belong together.

    shared: one Karhunen-Loeve path for all times. independent: each time its own noise. fresh: each time its own clean
    sample (a batch `times_per_sample` times as large), the control at equal network evaluations.
    `evaluations` of the times are evaluated, a random subset for each sample (unbiased); None for all.

    Raises:
        ValueError: an unknown coupling, or a number out of range.
    """

    times_per_sample: int = 1
    coupling: str = "shared"
    evaluations: int | None = None

    def __post_init__(self) -> None:
        times, evaluations = self.times_per_sample, self.evaluations
        check_choice("coupling", self.coupling, COUPLINGS)
        if times < 1:
            raise ValueError(f"times_per_sample={times} must be at least 1.")
        if evaluations is not None and not 1 <= evaluations <= times:
            raise ValueError(f"evaluations={evaluations} must lie between 1 and times_per_sample={times}.")
        if evaluations is not None and self.coupling == "fresh":
            raise ValueError(
                f"evaluations={evaluations} leaves out times of a sample, and coupling=fresh has one for each; omit it."
            )

    @property
    def times_of_a_sample(self) -> int:
        """Times that are drawn for each clean sample."""
        return 1 if self.coupling == "fresh" else self.times_per_sample

    @property
    def shares_path(self) -> bool:
        """Whether the noises at several times of a sample come from one path."""
        return self.coupling == "shared" and self.times_per_sample > 1

    @property
    def repeats(self) -> int:
        """Network evaluations for each clean sample."""
        return 1 if self.coupling == "fresh" else self.evaluations or self.times_per_sample

    @property
    def samples_factor(self) -> int:
        """Clean samples of an update, in units of the batch size."""
        return self.times_per_sample if self.coupling == "fresh" else 1
