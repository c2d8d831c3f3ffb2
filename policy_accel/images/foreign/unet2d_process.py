"""The process of diffusers' scheduler that lies beside a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from policy_accel.diffusion.schedules import MAX_BETA, SCHEDULES, alpha_bar_of, alpha_bar_table
from policy_accel.foreign.kinds import REMEDY
from policy_accel.foreign.stored import clip_bound, process_values, whole_number
from policy_accel.parsing import read_record

SCHEDULER = "scheduler_config.json"
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpm_solver++"}
VARIANCES, LEARNED = {"fixed_small": "small", "fixed_large": "large"}, "learned_range"
STEPS = {"ddim": 50, "dpm_solver++": 20}


def read_process(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Our settings of the process of the scheduler beside the weights in `path`, and what it does otherwise.

    Raises:
        UserError: a file that is damaged.
        ValueError: a process that ours does not have.
    """
    record = next(
        (
            place / SCHEDULER
            for place in (path.parent.parent / "scheduler", path.parent)
            if (place / SCHEDULER).is_file()
        ),
        None,
    )
    said = {"_class_name": "DDPMScheduler"} if record is None else read_record(record, REMEDY)
    kind = str(said.get("_class_name"))
    if kind not in SAMPLERS:
        raise ValueError(
            f"its scheduler {kind} is none of {', '.join(SAMPLERS)}; put the {SCHEDULER} of one of these beside it"
        )
    if said.get("rescale_betas_zero_snr"):
        raise ValueError(
            "its scheduler has rescale_betas_zero_snr, and ours a schedule by name; sample it with diffusers"
        )
    sampler, timesteps = SAMPLERS[kind], whole_number("num_train_timesteps", said.get("num_train_timesteps", 1000))
    if said.get("trained_betas"):
        said |= _named(said["trained_betas"], timesteps)
    values = process_values(
        timesteps=timesteps,
        schedule=str(said.get("beta_schedule", "linear")),
        beta_start=float(said.get("beta_start", 1e-4)),
        beta_end=float(said.get("beta_end", 0.02)),
        prediction=str(said.get("prediction_type", "epsilon")),
        sampler=sampler,
        steps=min(timesteps, STEPS.get(sampler, timesteps)),
        clip=clip_bound(
            said.get("clip_sample", kind != "DPMSolverMultistepScheduler"), said.get("clip_sample_range", 1.0)
        ),
    )
    values["sampling"]["spacing"] = str(
        said.get("timestep_spacing", "leading" if kind != "DPMSolverMultistepScheduler" else "linspace")
    )
    differences = [] if record is not None else ["no scheduler is beside it; taken is DDPM's with the linear schedule."]
    if sampler == "ddpm":
        variance = str(said.get("variance_type", "fixed_small"))
        values["sampling"]["variance"] = VARIANCES.get(variance, "small")
        values["diffusion"]["learn_sigma"] = variance == LEARNED
        if variance not in (*VARIANCES, LEARNED):
            differences.append(f"its scheduler has variance_type={variance}, and our ddpm fixed_small.")
    if sampler == "dpm_solver++":
        differences.append(f"its scheduler {kind} takes other times than our {sampler}.")
    if said.get("steps_offset"):
        differences.append(f"its scheduler has steps_offset={said['steps_offset']}, and our times none.")
    if said.get("thresholding"):
        differences.append("its scheduler has thresholding, which ours does not have.")
    return values, differences


def _named(betas: Any, timesteps: int) -> dict[str, Any]:
    """The schedule by name that has these betas, as diffusers calls it."""
    listed = torch.tensor(betas, dtype=torch.float64)
    alpha_bar = alpha_bar_of(listed, "trained_betas of its scheduler")
    ends = {"beta_start": float(listed.min()), "beta_end": float(listed.max().clamp(max=MAX_BETA))}
    for schedule in SCHEDULES if len(listed) == timesteps else ():
        if torch.allclose(alpha_bar, alpha_bar_table(schedule, timesteps, **ends)):
            return {"beta_schedule": schedule, **ends}
    raise ValueError(
        f"the {len(listed)} trained_betas of its scheduler are those of no schedule by name for its {timesteps} times "
        f"({', '.join(SCHEDULES)}), which ours are; sample it with diffusers"
    )
