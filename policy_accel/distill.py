"""A student of a trained run: its configuration, and the task that it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from policy_accel.acceleration.build import build_objective
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.path import PathConfig
from policy_accel.acceleration.timesteps import TimestepsConfig
from policy_accel.diffusion import Sampler
from policy_accel.diffusion.alike import asked_alike
from policy_accel.errors import UserError, one_of
from policy_accel.groups import flatten, groups_of
from policy_accel.key_hints import key_hint
from policy_accel.run_sampling import AS_TRAINED
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.config import RunConfig
from policy_accel.training.devices import choose_device
from policy_accel.training.distillation import Distillation, DistillationConfig, distilled_objective, student_times
from policy_accel.training.optimizer import OptimizerConfig
from policy_accel.training.run_directory import checkpoint_path, differences
from policy_accel.training.task import Task
from policy_accel.typed_values import UnknownKeyError, check_finite, check_form, literal, put

if TYPE_CHECKING:
    from policy_accel.track import Track

STEPS, LR, WARM_UP = 300, 1e-3, 20
SCHEDULE = ("lr", "schedule", "warmup_steps", "clip_grad_norm")
OWN = ("training", "sampling", "evaluation", "distillation", "seed", "run_dir", "label")
"""Settings that a student may have otherwise than its teacher."""
SAME = ("task", "model", "policy", "encoder", "diffusion")
"""Settings that a student shares with its teacher, of those that its track has; the data are compared by content."""


def student_config(
    track: Track[Any], run_dir: Path, checkpoint: str, evaluations: int, overrides: Sequence[str]
) -> RunConfig:
    """The settings of a student of the run in `run_dir`: the teacher's but for how it is trained and sampled.

    Args:
        track: of the run.
        run_dir: of the teacher.
        checkpoint: of the teacher: last, best or a step.
        evaluations: of the student's network for a sample.
        overrides: settings on top of these.

    Raises:
        UserError: not a run, no such checkpoint, an override that is not the student's to choose.
    """
    config = track.read(run_dir)
    step = int(checkpoint_path(run_dir, checkpoint).name)
    acceleration = replace(
        config.acceleration,
        noise=NoiseConfig(),
        path=PathConfig(),
        timesteps=TimestepsConfig(),
        momentum=replace(config.acceleration.momentum, cap_warmup=0),
    )
    objective = build_objective(config.diffusion, acceleration)
    if objective.process.samplers:
        raise UserError(
            f"{run_dir} was trained with diffusion.family={config.diffusion.family}, whose sampler has nothing to "
            "teach in fewer evaluations; distill a run of ddpm, edm, vp, ve or flow."
        )
    times = student_times(objective, evaluations)
    if len(set(times)) < evaluations:
        raise UserError(
            f"--evaluations {evaluations} is more than the times of the process below a quarter of its range; give "
            f"fewer, {len(set(times))} for example."
        )
    given = config.training.optimizer
    optimizer = OptimizerConfig(
        lr=min(LR, given.lr), schedule="linear", warmup_steps=WARM_UP, clip_grad_norm=given.clip_grad_norm
    )
    training = replace(
        config.training,
        steps=STEPS,
        optimizer=optimizer,
        validate_every=0,
        evaluate_every=0,
        checkpoint=replace(config.training.checkpoint, at=[]),
    )
    student = replace(
        config,
        acceleration=acceleration,
        training=training,
        sampling=config.sampling.distilled(times),
        evaluation=replace(config.evaluation, overlap=False),
        distillation=DistillationConfig(teacher=str(run_dir), checkpoint=str(step)),
        label=f"{config.label}-distilled{evaluations}",
        run_dir=f"{run_dir}-distilled{evaluations}",
    )
    changed = _overridden(track, student, overrides)
    own = track.record(changed)["sampling"]["times"]
    if own is None or len(own) != evaluations:
        raise UserError(
            f"--evaluations {evaluations} and sampling.times={own} do not agree; a student is taught at the times at "
            "which it is evaluated."
        )
    return changed


def _overridden(track: Track[Any], config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    node = OmegaConf.merge(OmegaConf.structured(config), literal(track.record(config)))
    assert isinstance(node, DictConfig)
    groups = {group.name: group for group in groups_of(track.name)}
    check_form(overrides)
    for override in sorted(overrides, key=lambda one: one.partition("=")[0] not in groups):  # what a choice has, later
        key, _, text = override.partition("=")
        if key.replace("/", ".").split(".")[0] not in OWN:
            raise UserError(
                f"{override}: a student has the data, the network and the process of its teacher; what may differ is "
                f"{', '.join(OWN)}."
            )
        if key in groups:
            choice = one_of(key, text, groups[key].choices)
            chosen = OmegaConf.structured(groups[key].choices[choice])
            if key == "training/optimizer":  # as short a training, whatever moves the weights
                chosen.update({name: node.training.optimizer[name] for name in SCHEDULE})
            OmegaConf.update(node, groups[key].path, chosen, merge=False)
            continue
        try:
            put(node, key, text)
        except UnknownKeyError as error:
            keys = [name for name in (*flatten(_plain(node)), *groups) if name.replace("/", ".").split(".")[0] in OWN]
            raise UserError(f"The configuration of a student has no key '{key}'; {key_hint(key, keys)}") from error
        except ValueError as error:
            raise UserError(f"{override}{error}") from error
    changed = OmegaConf.to_object(node)
    assert isinstance(changed, RunConfig)
    check_finite(changed)
    return changed


def _plain(node: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(node)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def teach(track: Track[Any], config: RunConfig, task: Task, sampler: Sampler) -> None:
    """Give `task` the lesson of `config.distillation`, if it names a teacher, whose averaged weights it begins with.

    Args:
        track: of the run.
        config: of the run.
        task: of the run, as it is without a teacher.
        sampler: of the student, at whose times it is taught.

    Raises:
        UserError: no such teacher, or one of other data, another network or another process.
    """
    settings = config.distillation
    if not settings.teacher:
        return
    if task.lesson is not None:
        raise UserError(
            f"distillation.teacher={settings.teacher} cannot teach a network whose targets are made by itself; "
            "distill a run of another objective."
        )
    run_dir = Path(settings.teacher)
    try:
        path = checkpoint_path(run_dir, settings.checkpoint)
        loaded = track.load(run_dir, settings.checkpoint, choose_device(config.training.device), asked=AS_TRAINED)
    except UserError as error:
        raise UserError(f"distillation.teacher={settings.teacher} cannot be read: {error}") from error
    state = load_checkpoint(path, ()).state
    _check_alike(track, config, task, loaded, state)
    if sampler.noise_count > 1 or sampler.network_evaluations() != len(sampler.grid.timesteps):
        raise UserError(
            f"sampling.sampler={sampler.config.sampler} is not taught: a student evaluates its network once at each "
            "time, and draws no noise on the way; choose ddim."
        )
    teaching = settings.sampler_of(loaded.sampler)
    task.objective = distilled_objective(task.objective, sampler, settings.refine_below)
    task.model.load_state_dict(loaded.model.state_dict())
    task.lesson = Distillation(loaded.model, teaching, sampler, state["files"]["ema.safetensors"])


def _check_alike(track: Track[Any], config: RunConfig, task: Task, loaded: Any, state: dict[str, Any]) -> None:
    """Raise UserError unless the teacher has the student's data, network and process."""
    teacher = config.distillation.teacher
    if state["data"] != task.fingerprint:
        raise UserError(
            f"distillation.teacher={teacher} was trained on other data than the task has now (another file, or a "
            "changed one); put the data back."
        )
    own, its = (
        {name: part for name, part in track.record(given).items() if name in SAME} for given in (config, loaded.config)
    )
    changed = [line for line in differences(its, own) if not line.startswith("task.data:")]
    if changed or not asked_alike(task.objective, loaded.sampler.objective):
        what = "; ".join(changed[:5]) or "the accelerations of its forward process"
        raise UserError(
            f"distillation.teacher={teacher} has another network or process than its student ({what}); give the "
            "student the same, or another teacher."
        )
