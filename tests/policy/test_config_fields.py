"""Every field of the configuration reaches the object that it configures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.config_fields import fields_of, freeze
from support.overlap import scored_beside
from support.policy_probes import (
    BATCH,
    Probe,
    asked_of_the_pool,
    decays,
    determinism,
    drawn,
    encoded_frames,
    encoder_parameters,
    environment_probe,
    lesson,
    norm_groups,
    predicted,
    run_probe,
    seen_frames,
    stays_or_ends,
    task_probe,
    trace,
    trace_with_scores,
    wandb_project,
)
from support.pretrained import write_resnet18

from policy_accel.acceleration.config import GROUPS
from policy_accel.data import read_episodes
from policy_accel.groups import flatten
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.run import build_policy
from policy_accel.policy.track import ROBOT
from policy_accel.training.optimizer import lr_factor
from policy_accel.training.ranks import Ranks

from .conftest import write_demonstrations

Build = Callable[..., RobotConfig]


def _with_a_bad_episode(folder: Path) -> Path:
    data = read_episodes(write_demonstrations(folder / "sound.zarr.zip"))
    arrays = {key: values.copy() for key, values in data.arrays.items()}
    arrays["action"][0] = np.nan
    np.savez(folder / "bad.npz", **arrays, episode_ends=data.episode_ends)
    return folder / "bad.npz"


COLOURS = ("brightness", "contrast", "saturation", "hue")
FILMED = ["task.images=[img]", "encoder.crop=36", "encoder.resnet.width=16", "encoder.resnet.keypoints=4"]
VIEWED = ["task.images=[img]", "encoder.name=vit_small", "encoder.crop=36", "encoder.vit.patch=12"]
VIEWED += ["encoder.vit.dim=12", "encoder.vit.depth=2", "encoder.vit.heads=2"]
GOAL = ["task.goal=['keypoint[:2]']"]
PLANNED = [*GOAL, "policy.conditioning=planning", "task.goal_state='state[:2]'"]
POSED = ["task.action=pose"]
SCORED = ["evaluation.episodes=3"]
CADENCE = ["training.checkpoint.every=1", "training.evaluate_every=0"]
CHURNED = ["method=edm", "sampling.churn=1.0"]
LINEAR = ["diffusion.schedule=linear"]
GROUPED = ["acceleration/noise=assignment_in_groups", "acceleration.noise.groups=3"]

# field -> (new value, what looks at the object, overrides on both sides)
FIELDS: dict[str, tuple[str, Probe, list[str]]] = {
    "task.name": ("other", lambda config: Path(config.run_dir).name, ["run_dir=x/${task.name}"]),
    "task.data": ("OTHER_DATA", task_probe(lambda task: task.actions), []),
    "task.observation": ("[state,keypoint]", task_probe(lambda task: task.observations), []),
    "task.layout": ("LAYOUT", task_probe(lambda task: task.observations), ["task.data=FILTERED_DATA"]),
    "task.filter_key": ("half", task_probe(lambda task: task.samples), ["task.data=FILTERED_DATA"]),
    "task.episodes": ("[0,'2:4']", task_probe(lambda task: task.samples), []),
    "task.skip_bad_episodes": ("true", stays_or_ends, ["task.data=BAD_DATA"]),
    "task.images": ("[img,img2]", seen_frames, FILMED),
    "task.image_ranges": ("{img: [0, 100]}", task_probe(lambda task: task.fingerprint), FILMED),
    "task.goal": ("['keypoint[:2]']", task_probe(lambda task: task.observations), []),
    "task.goal_state": ("'state[1:3]'", task_probe(lambda task: task.known), PLANNED),
    "task.environment_keys": ("{state: pose}", lambda config: observation_layout(config.task).entry("state")[0], []),
    "task.environment_from_data": ("true", environment_probe(lambda e: str(e.kwargs)), []),
    "task.action_rotation": ("rotation_6d", task_probe(lambda task: task.actions), POSED),
    "task.action": ("'state[:2]'", task_probe(lambda task: task.actions), []),
    "task.observation_normalization": ("gaussian", task_probe(lambda task: task.observations), []),
    "task.action_normalization": ("identity", task_probe(lambda task: task.actions), []),
    "task.val_ratio": ("0.4", task_probe(lambda task: task.validation_samples), []),
    "task.min_val_episodes": (
        "3",
        task_probe(lambda task: task.validation_samples),
        ["task.data=MANY_DATA", "task.val_ratio=0.02"],
    ),
    "task.max_train_episodes": ("2", task_probe(lambda task: task.samples), []),
    "task.split_seed": ("7", task_probe(lambda task: task.train.indices), []),
    "task.padding": ("false", task_probe(lambda task: task.samples), []),
    "task.mask_padding": ("true", task_probe(lambda task: task.batch(BATCH).counted), []),
    "task.environment": ("policy_accel/Other-v0", environment_probe(lambda e: e.id), []),
    "task.environment_module": ("mine.envs", environment_probe(lambda e: e.module), []),
    "task.environment_options": ("{observation:image}", environment_probe(lambda e: str(e.kwargs)), []),
    "task.max_steps": ("17", environment_probe(lambda e: e.max_steps), []),
    "task.score": ("return", environment_probe(lambda e: e.score), []),
    "encoder.name": ("vit_small", encoder_parameters, [FILMED[0], "encoder.crop=42"]),
    "encoder.crop": ("40", seen_frames, FILMED),
    "encoder.resize": ("[40,42]", task_probe(lambda task: task.store.frames["img"].shape), FILMED),
    "encoder.share_cameras": ("true", encoder_parameters, [*FILMED, "task.images=[img,img2]"]),
    "encoder.feature_dim": ("7", seen_frames, FILMED),
    "encoder.weights": ("OTHER_WEIGHTS", encoded_frames, FILMED[:2]),
    "encoder.lr_factor": ("0.1", task_probe(lambda task: task.model.lr_factors()), FILMED),
    "encoder.augmentation.shift": ("4", encoded_frames, [*FILMED, "encoder.crop=null"]),
    **{f"encoder.augmentation.{name}": ("0.3", encoded_frames, FILMED) for name in COLOURS},
    "encoder.crop_width": ("40", stays_or_ends, FILMED),
    "encoder.statistics": ("{img: [[0, 0, 0], [1, 1, 1]]}", encoded_frames, FILMED),
    "encoder.resnet.rectify": ("true", encoded_frames, FILMED),
    "encoder.resnet.width": ("32", encoder_parameters, FILMED),
    "encoder.resnet.group_channels": ("8", norm_groups, FILMED),
    "encoder.resnet.keypoints": ("6", encoder_parameters, FILMED),
    "encoder.vit.patch": ("18", encoder_parameters, VIEWED),
    "encoder.vit.dim": ("16", encoder_parameters, VIEWED),
    "encoder.vit.depth": ("1", encoder_parameters, VIEWED),
    "encoder.vit.heads": ("3", encoded_frames, VIEWED),
    "encoder.vit.mlp_ratio": ("2.0", encoder_parameters, VIEWED),
    "policy.horizon": ("32", task_probe(lambda task: task.batch(BATCH).x0), []),
    "policy.n_obs_steps": ("3", task_probe(lambda task: task.batch(BATCH).condition), []),
    "policy.n_action_steps": ("4", predicted, SCORED),
    "policy.conditioning": ("inpainting", task_probe(lambda task: task.batch(BATCH).x0), []),
    "task.group": ("'state[:1]'", task_probe(lambda task: task.groups), GROUPED),
    "diffusion.family": ("edm", drawn(), ["diffusion.target=sample"]),
    "diffusion.schedule": ("linear", task_probe(lambda task: task.objective.process.alphas), []),
    "diffusion.timesteps": ("50", task_probe(lambda task: task.objective.process.alphas), []),
    "diffusion.beta_start": ("0.001", task_probe(lambda task: task.objective.process.alphas), LINEAR),
    "diffusion.beta_end": ("0.03", task_probe(lambda task: task.objective.process.alphas), LINEAR),
    "diffusion.t_star": ("0.7", task_probe(lambda task: task.objective.process.level(0).sigma), ["method=mip"]),
    "diffusion.form": ("paper", task_probe(lambda task: task.objective.process.level(0).alpha), ["method=mip"]),
    "diffusion.finest": ("16", task_probe(lambda task: task.objective.process.timesteps), ["method=shortcut"]),
    "diffusion.sigma_data": ("0.7", drawn(), ["method=edm"]),
    "diffusion.p_mean": ("-0.4", drawn(), ["method=edm"]),
    "diffusion.p_std": ("1.0", drawn(), ["method=edm"]),
    "diffusion.loss_reduction": ("sum", task_probe(lambda task: task.objective.reduction), []),
    "diffusion.target": ("v", task_probe(lambda task: task.objective.target), []),
    "sampling.clip_sample": ("0.01", predicted, SCORED),
    "acceleration.data_scale": ("2.0", drawn(), []),
    "sampling.sampler": ("ddpm", predicted, SCORED),
    "sampling.steps": ("5", predicted, SCORED),
    "sampling.spacing": ("leading", predicted, SCORED),
    "sampling.times": ("[90,10]", predicted, SCORED),
    "sampling.variance": ("large", predicted, [*SCORED, "sampling.sampler=ddpm"]),
    "sampling.churn": ("1.0", predicted, [*SCORED, "method=edm"]),
    "sampling.churn_min": ("1.0", predicted, [*SCORED, *CHURNED]),
    "sampling.churn_max": ("1.0", predicted, [*SCORED, *CHURNED]),
    "sampling.churn_noise": ("1.1", predicted, [*SCORED, *CHURNED]),
    "training.steps": ("6", trace, []),
    "training.batch_size": ("4", run_probe(lambda run: run.order.batch(0)), []),
    "training.accumulate": ("4", run_probe(lambda run: run.update.pieces), []),
    "training.reduce_precision": ("bf16", run_probe(lambda run: run.update.weights.gradients.dtype), []),
    "training.shard": ("true", lambda config: config.training.shards(Ranks(0, 2), torch.device("cpu")), []),
    "training.device": ("meta", lambda config: str(config.training.device), []),
    "training.threads": ("3", run_probe(lambda run: torch.get_num_threads()), []),
    "training.precision": ("bf16", run_probe(lambda run: type(run.update.autocast()).__name__), []),
    "training.matmul_precision": ("high", run_probe(lambda run: torch.get_float32_matmul_precision()), []),
    "training.deterministic": ("true", determinism, []),
    "training.channels_last": (
        "true",
        run_probe(lambda run: next(p.stride(1) for p in run.update.parameters if p.dim() == 4)),
        FILMED,
    ),
    "training.compile": ("true", run_probe(lambda run: hasattr(run.update.loss, "_torchdynamo_orig_callable")), []),
    "training.capture": ("false", lambda config: config.training.captures(torch.device("cuda", 0)), []),
    "training.validate_every": ("1", trace, []),
    "training.evaluate_every": ("2", trace, ["training.checkpoint.every=3", "training.checkpoint.keep_last=4"]),
    "training.optimizer.lr": ("0.5", run_probe(lambda run: run.update.config.lr), []),
    "training.optimizer.betas": ("[0.1,0.2]", run_probe(lambda run: run.update.optimizer.betas), []),
    "training.optimizer.eps": ("0.5", run_probe(lambda run: run.update.optimizer.eps), []),
    "training.optimizer.weight_decay": (
        "0.5",
        run_probe(lambda run: run.update.optimizer.groups[0].weight_decay),
        [],
    ),
    "training.optimizer.schedule": ("constant", lambda c: lr_factor(c.training.optimizer, 300, 400), []),
    "training.optimizer.decay_share": (
        "0.5",
        lambda c: lr_factor(c.training.optimizer, 300, 400),
        ["training.optimizer.schedule=warmup_stable_decay"],
    ),
    "training.optimizer.reference_steps": (
        "100",
        lambda c: lr_factor(c.training.optimizer, 300, 400),
        ["training.optimizer.schedule=inverse_sqrt", "training.optimizer.warmup_steps=0"],
    ),
    "training.optimizer.warmup_steps": ("7", lambda c: lr_factor(c.training.optimizer, 5, 100), []),
    "training.optimizer.clip_grad_norm": ("0.5", trace, []),
    "training.ema.power": ("0.5", run_probe(decays), []),
    "training.ema.inv_gamma": ("2.0", run_probe(decays), []),
    "training.ema.update_after_step": ("3", run_probe(decays), []),
    "training.ema.min_decay": ("0.5", run_probe(decays), []),
    "training.ema.max_decay": ("0.6", run_probe(decays), []),
    "training.ema.half_life": ("100", run_probe(decays), []),
    "training.ema.half_life_ramp": ("null", run_probe(decays), ["training.ema.half_life=100"]),
    "training.ema.lengths": ("[0.1]", run_probe(lambda run: sorted(run.update.tensors())), []),
    "distillation.steps": ("4", lesson, []),
    "distillation.times": ("[99,25]", lesson, []),
    "distillation.sampler": ("euler", lesson, []),
    "distillation.refine_below": ("0.5", lesson, []),
    "training.checkpoint.every": ("1", trace, ["training.checkpoint.keep_last=4"]),
    "training.checkpoint.keep_last": ("3", trace, CADENCE),
    "training.checkpoint.keep_best": (
        "0",
        trace_with_scores,
        ["training.evaluate_every=1", "training.checkpoint.keep_best=1"],
    ),
    "training.checkpoint.at": ("[1]", trace, ["training.checkpoint.every=0"]),
    "training.checkpoint.keep_every": ("1", trace, CADENCE),
    "training.logging.every": ("3", trace, []),
    "training.logging.wandb": ("offline", trace, []),
    "training.logging.tensorboard": ("true", trace, []),
    "training.logging.wandb_project": ("mine", wandb_project, ["training.logging.wandb=offline"]),
    "evaluation.episodes": ("5", asked_of_the_pool, SCORED),
    "evaluation.start_seed": ("11", asked_of_the_pool, SCORED),
    "evaluation.noise_seed": ("1", predicted, SCORED),
    "evaluation.slots": ("2", asked_of_the_pool, SCORED),
    "evaluation.workers": ("1", asked_of_the_pool, [*SCORED, "evaluation.workers=0"]),
    "evaluation.videos": ("1", asked_of_the_pool, SCORED),
    "evaluation.camera": ("side", environment_probe(lambda e: str(e.film_kwargs)), []),
    "evaluation.confidence": ("0.5", asked_of_the_pool, SCORED),
    "evaluation.overlap": ("true", scored_beside, [*SCORED, "training.evaluate_every=2"]),
    "method": ("clts", lambda config: Path(config.run_dir).name, ["run_dir=x/${method}"]),
    "label": ("mine", lambda config: Path(config.run_dir).name, ["run_dir=x/${label}"]),
    "seed": ("1", lambda config: next(build_policy(config, 5, 2).parameters()), []),
    "run_dir": ("OTHER_DIR", lambda config: trace(config) and Path(config.run_dir).is_dir() and config.run_dir, []),
}


WITH_TESTS_OF_THEIR_OWN = (
    "model",
    "track",
    "plugins",
    "init_from",
    "init_normalizer",
    "training.optimizer.name",
    "diffusion.learn_sigma",  # tests/images/test_learned_variance.py
    *(f"distillation.{name}" for name in ("teacher", "checkpoint", "guidance")),
)


def test_the_table_names_every_field(tiny_config: Build) -> None:
    choices = [group.replace("/", ".") for group in GROUPS]  # which have tests of their own
    assert set(fields_of(tiny_config(), [*WITH_TESTS_OF_THEIR_OWN, *choices])) == set(FIELDS)


@pytest.mark.parametrize("key", [key for key in FIELDS if key != "training.device"])
def test_a_field_changes_what_it_configures(key: str, tiny_config: Build, tmp_path: Path) -> None:
    value, probe, overrides = FIELDS[key]
    if value == "OTHER_DATA":
        value = str(write_demonstrations(tmp_path / "other.zarr.zip", seed=5))
    if value == "OTHER_WEIGHTS":
        value = str(write_resnet18(tmp_path / "resnet18.pth"))
    if value == "LAYOUT":
        value = str(tmp_path / "layout.yaml")
        Path(value).write_text("{episodes: data/demo_*, keys: {action: actions, state: obs/pose}}")
    if "task.data=FILTERED_DATA" in overrides:
        overrides = [f"task.data={write_demonstrations(tmp_path / 'filtered.hdf5')}"]
    if "task.data=MANY_DATA" in overrides:
        data = write_demonstrations(tmp_path / "many.zarr.zip", episodes=20)
        overrides = [f"task.data={data}", *overrides[1:]]
    if "task.data=BAD_DATA" in overrides:
        overrides = [f"task.data={_with_a_bad_episode(tmp_path)}"]
    if value == "OTHER_DIR":
        value = str(tmp_path / "elsewhere")
    directories = [] if key == "run_dir" or any(o.startswith("run_dir") for o in overrides) else ["run_dir={}"]
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    seen = []
    try:
        for side, change in (("before", []), ("after", [f"{key}={value}"])):
            places = [directory.format(tmp_path / side) for directory in directories]
            seen.append(freeze(probe(tiny_config(*overrides, *places, *change))))
            torch.set_float32_matmul_precision(before)
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(threads)
    assert seen[0] != seen[1]


def test_the_device_is_where_the_model_goes(tiny_config: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    import policy_accel.training.build as build

    asked: list[str] = []

    def choose(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(build, "choose_device", choose)
    run_probe(lambda run: None)(tiny_config("training.device=cuda:3"))
    assert asked == ["cuda:3"]


def test_flatten_agrees_with_the_fields(tiny_config: Build) -> None:
    free = ("task.environment_options", "task.environment_keys", "task.image_ranges")  # of any keys
    recorded = {
        key
        for key in flatten(ROBOT.record(tiny_config()))
        if key not in WITH_TESTS_OF_THEIR_OWN
        and not key.startswith(("model.", *free))
        and key.rsplit(".", 1)[0].replace(".", "/") not in GROUPS
    }
    assert recorded | set(free) == set(FIELDS)
