"""The betas of a scheduler of diffusers, as our schedules by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policy_accel.diffusion.schedules import (
    BETA_END,
    BETA_START,
    MAX_BETA,
    SCHEDULES,
    alpha_bar_of,
    alpha_bar_table,
)


def betas_of(scheduler: Mapping[str, Any], timesteps: int, schedule: str) -> dict[str, Any]:
    """`schedule`, `beta_start` and `beta_end`, as `process_values` takes them.

    Args:
        scheduler: its configuration.
        timesteps: of its process.
        schedule: of a scheduler that names none.

    Raises:
        ValueError: betas of its own that are those of no schedule by name, or that are no betas.
    """
    if scheduler.get("rescale_betas_zero_snr"):
        raise ValueError(
            "its scheduler has rescale_betas_zero_snr, and our schedules end above a signal of 0; use its own library"
        )
    if scheduler.get("trained_betas"):
        return _named(scheduler["trained_betas"], timesteps)
    return {
        "schedule": str(scheduler.get("beta_schedule", schedule)),
        "beta_start": float(scheduler.get("beta_start", BETA_START)),
        "beta_end": float(scheduler.get("beta_end", BETA_END)),
    }


def _named(betas: Any, timesteps: int) -> dict[str, Any]:
    """The schedule by name that has these betas."""
    listed = torch.tensor(betas, dtype=torch.float64)
    alpha_bar = alpha_bar_of(listed, "trained_betas of its scheduler")
    ends = {"beta_start": float(listed.min()), "beta_end": float(listed.max().clamp(max=MAX_BETA))}
    for schedule in SCHEDULES if len(listed) == timesteps else ():
        if torch.allclose(alpha_bar, alpha_bar_table(schedule, timesteps, **ends)):
            return {"schedule": schedule, **ends}
    raise ValueError(
        f"the {len(listed)} trained_betas of its scheduler are those of no schedule by name for its {timesteps} times "
        f"({', '.join(SCHEDULES)}), which ours are; use its own library"
    )
