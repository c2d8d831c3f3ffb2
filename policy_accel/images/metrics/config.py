"""Settings of the image quality measures."""

from __future__ import annotations

from dataclasses import dataclass

from policy_accel.errors import UserError


@dataclass
class MetricsConfig:
    """Which measures, and on how many images."""

    inception: str | None = None
    """Path of torch-fidelity's or NVIDIA's Inception weights for the FID; null reads the variable
    POLICY_ACCEL_INCEPTION, and without that there is no FID."""
    reference: str | None = None
    """Path of a file of statistics against which the FID is taken: an NPZ with mu and sigma, such as EDM's fid-refs;
    null takes it against the training images."""
    mirrored_reference: bool = False
    """Whether Fréchet distances are taken against the training images and their mirror images, as some papers do."""
    resnet: str | None = None
    """Path of a CIFAR ResNet's weights (npz) for its Fréchet distance; images of other sizes than
    32x32 are resized to it."""
    neighbours: int = 5
    """k of precision, recall, density and coverage."""
    neighbour_samples: int = 2000
    """At most this many images of each side enter precision, recall, density, coverage and the copy check."""
    sliced_samples: int = 10_000
    """At most this many images of each side enter the sliced Wasserstein distance."""
    projections: int = 256
    """Directions of the sliced Wasserstein distance."""
    copy_quantile: float = 0.05
    """A sample counts as a copy when it is as near to a training image as this share of the training images are to
    another one."""
    batch_size: int = 256
    """Images that go through a feature network at once."""

    def check(self) -> None:
        """Raise UserError for a value out of its range."""
        prefix = "evaluation.metrics"
        for name in ("neighbours", "projections", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{prefix}.{name}={getattr(self, name)}: must be at least 1.")
        if self.neighbour_samples <= self.neighbours:
            raise UserError(
                f"{prefix}.neighbour_samples={self.neighbour_samples}: must be more than {prefix}.neighbours="
                f"{self.neighbours}."
            )
        if self.sliced_samples < 2:
            raise UserError(f"{prefix}.sliced_samples={self.sliced_samples}: must be at least 2.")
        if not 0 < self.copy_quantile < 1:
            raise UserError(
                f"{prefix}.copy_quantile={self.copy_quantile}: must lie between 0 and 1, both excluded, for example "
                "0.05."
            )
