"""Which setting or choice somebody meant that the configuration does not have."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from policy_accel.errors import UserError, close_to, did_you_mean

ALIASES = {
    "training.optimizer.lr": ("lr", "learning_rate", "learningrate"),
    "training.optimizer.weight_decay": ("wd", "decay"),
    "training.optimizer.warmup_steps": ("warmup", "lr_warmup_steps", "num_warmup_steps"),
    "training.optimizer.clip_grad_norm": ("grad_clip", "clip_grad", "max_grad_norm", "gradient_clip_val"),
    "training.optimizer.schedule": ("lr_schedule", "lr_scheduler", "scheduler"),
    "training.batch_size": ("batch_size", "batch", "bs", "train_batch_size"),
    "training.accumulate": ("gradient_accumulate_every", "gradient_accumulation_steps", "grad_accum"),
    "training.steps": (
        *("steps", "num_steps", "max_steps", "train_steps", "training_steps", "iterations", "iters", "max_iters"),
        *("updates", "num_updates", "epochs", "num_epochs", "n_epochs", "max_epochs"),
    ),
    "training.device": ("device", "gpu", "cuda"),
    "training.precision": ("precision", "amp", "dtype", "fp16", "bf16", "mixed_precision"),
    "training.checkpoint.every": ("save_every", "save_freq", "checkpoint_every", "checkpoint_freq", "save_interval"),
    "training.evaluate_every": ("eval_every", "eval_freq", "rollout_every", "eval_interval"),
    "training.logging.wandb": ("wandb", "logger", "use_wandb"),
    "training.ema": ("ema", "use_ema"),
    "seed": ("seed", "random_seed", "manual_seed"),
    "run_dir": ("output_dir", "out_dir", "outdir", "output", "out", "log_dir", "logdir", "save_dir", "exp_dir"),
    "label": ("exp_name", "run_name", "experiment", "tag"),
    "task.data": ("data", "dataset", "data_dir", "data_path", "dataset_path", "path", "zarr_path"),
    "task.observation": ("obs", "observations", "obs_keys", "state", "states", "low_dim", "obs_key"),
    "task.images": ("image", "images", "cameras", "camera_keys", "rgb", "image_keys", "rgb_keys"),
    "task.action": ("action", "actions", "action_key"),
    "task.environment": ("env", "environment", "env_id", "env_name", "gym_id", "env_runner"),
    "task.val_ratio": ("val_fraction", "validation_split", "val_split", "test_split"),
    "policy.horizon": ("horizon", "chunk_size", "pred_horizon"),
    "policy.n_obs_steps": ("obs_steps", "obs_horizon", "observation_steps"),
    "policy.n_action_steps": ("action_steps", "action_horizon", "act_horizon"),
    "sampling.steps": ("num_inference_steps", "inference_steps", "sampling_steps", "ddim_steps", "nfe"),
    "sampling.sampler": ("sampler", "noise_scheduler"),
    "diffusion.timesteps": ("num_train_timesteps", "num_timesteps", "timesteps", "diffusion_steps"),
    "diffusion.schedule": ("beta_schedule", "noise_schedule"),
    "diffusion.target": ("prediction_type", "pred_type", "parameterization", "objective"),
    "evaluation.episodes": ("episodes", "n_episodes", "num_episodes", "n_test", "eval_episodes"),
    "evaluation.workers": ("workers", "num_workers", "n_workers", "num_envs", "n_envs"),
}
"""Setting -> what other programs call it."""
YAML_ALONE = ("task", "recipe", "method")
"""Groups to which users add choices by YAML files, and not by modules; to `model` they add by both."""
MANY, NEAREST = 12, 4
"""Choices that are not all named in a sentence, and those that are named then."""


def key_hint(key: str, known: Collection[str]) -> str:
    """What to write in place of `key`: the nearest of the `known` keys by its last part, or the keys of its section."""
    section, _, name = key.lower().replace("-", "_").rpartition(".")
    below = sorted(one for one in known if one.startswith(f"{key}."))
    if below:
        return f"it is a section; set one of its keys: {', '.join(below)}."
    called = [one for one, names in ALIASES.items() if name in names and (one in known or _section(one, known))]
    if called:
        counted = " (it counts updates, not epochs)" if "epoch" in name else ""
        return f"did you mean '{called[0]}'{counted}?"
    names: dict[str, list[str]] = {}
    for one in sorted(known, key=lambda one: (not one.startswith(f"{section}."), one.count("."), one)):
        names.setdefault(one.rpartition(".")[2], []).append(one)
    inside = [one for one in known if section and one.startswith(f"{section}.")]
    nearest = (
        (name if name in names else None)
        or close_to(name, {one.rpartition(".")[2] for one in inside})
        or close_to(name, names, cutoff=0.75)
    )
    if nearest is not None:
        return f"did you mean '{names[nearest][0]}'?"
    if inside:
        names_inside = sorted({one.removeprefix(f"{section}.").partition(".")[0] for one in inside})
        return f"the keys of {section} are: {', '.join(names_inside)}."
    top = sorted({one.partition(".")[0] for one in known if "/" not in one})
    return f"settings begin with {', '.join(top)}; `policy-accel train --print-config` lists all keys."


def unknown_choice(group: str, name: str, known: Collection[str]) -> UserError:
    """What to write in place of `group=name`: a module of the user's by `plugins`, the closest of the `known` names, or
    the nearest few and where all are listed."""
    if name.endswith(".py"):
        takes = "a name or a YAML file" if group in (*YAML_ALONE, "model") else "the name of what it registers"
        return UserError(
            f"{group}={name} is a Python file, and {group} takes {takes}; plugins=[{Path(name).stem}] imports the "
            "module from the current folder (docs/how_to/extend.md)."
        )
    unknown = f"{group}={name} is unknown"
    if close_to(name, known):
        return UserError(f"{unknown}; {did_you_mean(name, known)}")
    own = _own(group)
    if len(known) <= MANY:
        return UserError(f"{unknown}; known are: {', '.join(sorted(known))}{own}.")
    nearest = difflib.get_close_matches(name, sorted(known), n=NEAREST, cutoff=0.3)
    near = f"the nearest are {', '.join(nearest)}, " if nearest else ""
    kind = group if "/" in group or group == "training" else f"{group}s"
    return UserError(f"{unknown}; {near}`policy-accel list {kind}` names all {len(known)}{own}.")


def _own(group: str) -> str:
    """How a choice of the user's own is named; the presets of `training` are those that are shipped."""
    ways = [f"one of your own is {group}=FILE.yaml"] if group in (*YAML_ALONE, "model") else []
    ways += ["those of a plugin need plugins=[MODULE]"] if group not in (*YAML_ALONE, "training") else []
    return "".join(f"; {way}" for way in ways)


def _section(key: str, known: Collection[str]) -> bool:
    return any(one.startswith(f"{key}.") for one in known)
