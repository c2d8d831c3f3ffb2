"""The process of diffusers' scheduler that lies beside a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_accel.foreign.betas import betas_of
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
    sampler, timesteps = SAMPLERS[kind], whole_number("num_train_timesteps", said.get("num_train_timesteps", 1000))
    values = process_values(
        timesteps=timesteps,
        **betas_of(said, timesteps, "linear"),
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
