"""An image run as a folder of diffusers: UNet2DModel, scheduler and pipeline, which plain diffusers opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from policy_accel.acceleration.path import SharedPathConfig, TruncatedPathConfig
from policy_accel.diffusion.continuous import SigmaProcess
from policy_accel.diffusion.grid import timestep_grid
from policy_accel.diffusion.karhunen_loeve import KarhunenLoeveProcess
from policy_accel.diffusion.processes import DiscreteProcess, vp_process
from policy_accel.errors import UserError
from policy_accel.files import new_path
from policy_accel.foreign.kinds import CONFIG, UNET2D, UNET2D_CLASS
from policy_accel.foreign.stored import TARGETS
from policy_accel.images.foreign.unet2d import ATTENDS, FIXED, INDEX, PADDED
from policy_accel.images.foreign.unet2d_names import CONDITION, layers, to_theirs
from policy_accel.images.foreign.unet2d_process import SCHEDULER
from policy_accel.images.run import LoadedImageRun
from policy_accel.models.images import DdpmConfig

VERSION = "0.30.0"
"""Of diffusers, whose form of these files it is."""
SCHEDULERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler"}
OURS = "policy_accel.diffusion.schedulers"
OWN_PIPELINE = "ImagePipeline"
PIPELINE = Path(__file__).with_name("pipeline.py")


def write_pipeline(run: LoadedImageRun, folder: Path) -> dict[str, Any]:
    """Write a run as it is sampled to a new folder; returns what it says, JSON-able: "pipeline" and "scheduler" are the
    classes, "needs" the packages that open it.

    Raises:
        UserError: the folder is there; a network, a process or a sampling that diffusers has no form of.
    """
    network, attended = _network(run)
    scheduler = _scheduler(run)
    ours, classes = not isinstance(scheduler, dict), list(run.classes)
    name = type(scheduler).__name__ if ours else scheduler["_class_name"]
    simple = not (ours or classes or run.representation.latents)
    index: dict[str, Any] = {
        "_class_name": name.replace("Scheduler", "Pipeline") if simple else [PIPELINE.stem, OWN_PIPELINE],
        "_diffusers_version": VERSION,
        "scheduler": [OURS if ours else "diffusers", name],
        "unet": ["diffusers", UNET2D_CLASS],
    }
    steps = run.sampler.config.steps
    if not simple:
        encoding = run.representation.encoding
        latents = None if encoding is None else [list(encoding.scale), list(encoding.shift)]
        index |= {"classes": classes, "guidance": run.sampler.config.guidance, "steps": steps, "latents": latents}
    with new_path(folder) as made:
        for part in ("unet", "scheduler"):
            (made / part).mkdir(parents=True)
        _write(made / INDEX, index)
        _write(made / "unet" / CONFIG, network)
        safetensors.torch.save_file(_state(run, network, attended), made / "unet" / UNET2D[0])
        if ours:
            scheduler.save_config(made / "scheduler")
        else:
            _write(made / "scheduler" / SCHEDULER, scheduler)
        if not simple:
            shutil.copyfile(PIPELINE, made / PIPELINE.name)
    return {
        "pipeline": index["_class_name"] if simple else OWN_PIPELINE,
        "scheduler": name,
        "steps": steps,
        "needs": ["diffusers", "policy_accel"] if ours else ["diffusers"],
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def _network(run: LoadedImageRun) -> tuple[dict[str, Any], list[bool]]:
    """The config of the UNet2DModel, and which resolutions have attention."""
    model = run.config.model
    if not isinstance(model, DdpmConfig):
        raise UserError(
            f"{run.source} is a network of model={model.name}, which none of diffusers computes: model=ddpm alone is "
            "exported so; give --to safetensors (save_pretrained in Python), which policy_accel opens."
        )
    channels, side, _ = run.shape
    levels = model.levels(side)
    attended = [heads > 0 for _, heads in levels]
    widths = [width for width, _ in levels]
    attending = {width for width, attends in zip(widths, attended, strict=True) if attends} | {widths[-1]}
    if model.head_channels is None and model.heads > 1 and len(attending) > 1:
        raise UserError(
            f"model.heads={model.heads} has heads of several widths, and those of a UNet2DModel are of one; use --to "
            "safetensors."
        )
    down, up = ([name for name, attends in ATTENDS.items() if way in name] for way in ("Down", "Up"))
    return {
        "_class_name": UNET2D_CLASS,
        "_diffusers_version": VERSION,
        **{name: ours for name, (_, ours) in FIXED.items()},
        "sample_size": side,
        "in_channels": channels,
        "out_channels": 2 * channels if _learns(run) else channels,
        "block_out_channels": widths,
        "layers_per_block": model.blocks,
        "down_block_types": [down[attends] for attends in attended],
        "up_block_types": [up[attends] for attends in attended[::-1]],
        "attention_head_dim": model.head_channels or (None if model.heads == 1 else widths[-1] // model.heads),
        "norm_num_groups": model.norm_groups,
        "norm_eps": model.eps,
        "downsample_padding": next(theirs for theirs, ours in PADDED.items() if ours == model.padding),
        "flip_sin_to_cos": False,
        "freq_shift": model.frequency_shift,
        "dropout": model.dropout,
        "num_class_embeds": len(run.classes) + 1 if run.classes else None,
    }, attended


def _learns(run: LoadedImageRun) -> bool:
    """Whether the sampler takes the variance that the network has learned."""
    return run.config.diffusion.learn_sigma and run.sampler.config.sampler == "ddpm"


def _state(run: LoadedImageRun, network: dict[str, Any], attended: list[bool]) -> dict[str, torch.Tensor]:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in run.model.state_dict().items()}
    if CONDITION in state:  # without the parameters of an augmentation, which are 0 for the images that are drawn
        state[CONDITION] = state[CONDITION][:, : len(run.classes)].contiguous()
        if not run.classes:
            del state[CONDITION]
    for part in ("output.weight", "output.bias"):
        state[part] = state[part][: network["out_channels"]].contiguous()
    return to_theirs(state, layers(attended, network["layers_per_block"]))


def _scheduler(run: LoadedImageRun) -> Any:
    """The config of a scheduler of diffusers as a dictionary, or a scheduler of ours."""
    sampling, process = run.sampler.config, run.sampler.objective.process
    if run.config.acceleration.data_scale != 1.0:
        raise UserError(
            f"acceleration.data_scale={run.config.acceleration.data_scale} has no place in a pipeline; use --to "
            "safetensors."
        )
    if sampling.times is not None:
        raise UserError(f"sampling.times={sampling.times} has no place in a pipeline; give --sampling-steps.")
    if sampling.guidance_interval is not None:
        raise UserError(
            f"sampling.guidance_interval={sampling.guidance_interval} has no place in a pipeline; use --to safetensors."
        )
    clip = {"clip_sample": sampling.clip_sample is not None, "clip_sample_range": sampling.clip_sample or 1.0}
    if isinstance(process, SigmaProcess):
        return _sigma_scheduler(run, process, clip)
    if not isinstance(process, DiscreteProcess):
        raise UserError(
            f"diffusion.family={run.config.diffusion.family} is exported to no pipeline, those of ddpm, edm, vp and ve "
            "are; use --to safetensors."
        )
    diffusion, momentum = run.config.diffusion, run.config.acceleration.momentum
    target = {ours: theirs for theirs, ours in TARGETS.items()}[diffusion.target]
    same = {"num_train_timesteps": process.timesteps, "prediction_type": target, "timestep_spacing": sampling.spacing}
    same |= clip
    ends = {"beta_start": diffusion.beta_start, "beta_end": diffusion.beta_end}
    base = {"beta_schedule": diffusion.schedule, **ends}
    raw = isinstance(process, KarhunenLoeveProcess) and not _unit(process)
    if momentum.name != "none" or raw:
        return _our_scheduler(run, process, {**same, **base}, raw=raw)
    if sampling.sampler not in SCHEDULERS:
        raise UserError(
            f"sampler {sampling.sampler} is exported to no pipeline, {' and '.join(SCHEDULERS)} are; give --sampler."
        )
    if sampling.sampler == "ddim":
        _check_strides(process, sampling.steps, sampling.spacing)
    named = vp_process(
        diffusion.schedule, process.timesteps, beta_start=diffusion.beta_start, beta_end=diffusion.beta_end
    )
    betas = None if torch.allclose(named.alphas, process.alphas, rtol=1e-9) else _betas(process)
    own: dict[str, Any] = {"variance_type": "learned_range" if _learns(run) else f"fixed_{sampling.variance}"}
    if sampling.sampler == "ddim":
        own = {"set_alpha_to_one": True}
    head = {"_class_name": SCHEDULERS[sampling.sampler], "_diffusers_version": VERSION}
    return {**head, **same, **base, "trained_betas": betas, "steps_offset": 0, **own}


def _our_scheduler(run: LoadedImageRun, process: DiscreteProcess, same: dict[str, Any], *, raw: bool) -> Any:
    from policy_accel.diffusion import schedulers

    sampling, momentum, path = run.sampler.config, run.config.acceleration.momentum, run.config.acceleration.path
    if sampling.sampler != "ddim":
        raise UserError(
            f"sampler {sampling.sampler} of this process is exported to no pipeline, whose scheduler of ours is DDIM; "
            "give --sampler ddim."
        )
    if raw:
        assert isinstance(path, TruncatedPathConfig | SharedPathConfig)
        how = {"modes": path.modes or process.timesteps, "marginal": path.marginal, "clock": path.clock}
        made = schedulers.KarhunenLoeveScheduler(**same, **how)
    else:
        strength = getattr(momentum, "multiplier", getattr(momentum, "strength", 1.0))
        made = schedulers.MomentumScheduler(**same, kind=momentum.name, strength=strength)
    for table in ("alphas", "sigmas", "input_scales"):
        if not torch.allclose(getattr(made.process, table), getattr(process, table), rtol=1e-9):
            raise UserError(
                f"acceleration.path={path.name} with acceleration.momentum={momentum.name} is a process that no "
                "scheduler has; use --to safetensors."
            )
    return made


def _sigma_scheduler(run: LoadedImageRun, process: SigmaProcess, clip: dict[str, Any]) -> Any:
    from policy_accel.diffusion.schedulers import MomentumEDMScheduler

    sampling = run.sampler.config
    if sampling.sampler not in ("heun", "euler") or sampling.churn:
        raise UserError(
            f"sampler {sampling.sampler} (sampling.churn={sampling.churn:g}) of diffusion.family={process.family} is "
            "exported to no pipeline, heun and euler without churn are; give --sampler heun."
        )
    return MomentumEDMScheduler(
        family=process.family,
        input_scale=process.input_scale,
        multiplier=process.multiplier,
        solver=sampling.sampler,
        prediction_type=run.config.diffusion.target,
        sigma_data=process.sigma_data,
        **clip,
    )


def _unit(process: DiscreteProcess) -> bool:
    return torch.allclose(process.alphas**2 + process.sigmas**2, torch.ones_like(process.alphas), rtol=1e-9)


def _betas(process: DiscreteProcess) -> list[float]:
    alpha_bar = process.alphas.double() ** 2
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return (1.0 - alpha_bar / before).tolist()


def _check_strides(process: DiscreteProcess, steps: int, spacing: str) -> None:
    """diffusers' DDIM steps back by T // n whatever its next time is."""
    grid, stride = timestep_grid(process.timesteps, steps, spacing), process.timesteps // steps
    if any(max(t - stride, -1) != to for t, to in zip(grid.timesteps, grid.next_timesteps, strict=True)):
        raise UserError(
            f"--sampling-steps {steps} with spacing {spacing} is sampled otherwise by diffusers' DDIMScheduler, which "
            f"steps back by {stride} of {process.timesteps} times; give a divisor of {process.timesteps}, and the "
            "spacing trailing or leading."
        )
