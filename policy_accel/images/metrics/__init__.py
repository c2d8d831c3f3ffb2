"""How good generated images are: distances to a reference set, each beside the floor that real held-out images give."""

from __future__ import annotations

from policy_accel.images.metrics.config import MetricsConfig
from policy_accel.images.metrics.measure import CHEAP, SCORED, Quality
from policy_accel.images.metrics.table import score, table

__all__ = ["CHEAP", "SCORED", "MetricsConfig", "Quality", "score", "table"]
