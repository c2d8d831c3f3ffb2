"""What the objects of a robot run look like under a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from support.batches import batch_of
from support.config_fields import count
from support.simulated_cuda import SimulatedCuda

from policy_accel.errors import UserError
from policy_accel.evaluation import EnvironmentSpec, EpisodeResult, RolloutPool
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.evaluate import PolicyEvaluator, environment_spec
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.run import build_policy, build_sampler
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import checkpoint_steps, read_metrics
from policy_accel.training import train
from policy_accel.training.build import build_update
from policy_accel.training.distillation import RefiningTimes, distilled_objective
from policy_accel.training.ema import EMA
from policy_accel.training.loop import Run

BATCH = torch.arange(8)
Probe = Callable[[RobotConfig], Any]


def task_probe(look: Callable[[Any], Any]) -> Probe:
    return lambda config: look(ROBOT.build(config))


def run_probe(look: Callable[[Run], Any]) -> Probe:
    def probe(config: RobotConfig) -> Any:
        run = Run(ROBOT.build(config), config.training, config.seed, Path(config.run_dir), {})
        try:
            return look(run)
        finally:
            run.close()

    return probe


def environment_probe(look: Callable[[EnvironmentSpec], Any]) -> Probe:
    """Looks at the environment of a task whose data describe the one that they were recorded in."""

    def probe(config: RobotConfig) -> Any:
        return look(environment_spec(config.task, 2, config.evaluation.camera, {"env_name": "Lift"}))

    return probe


def evaluator_of(config: RobotConfig) -> tuple[PolicyEvaluator, DiffusionPolicy]:
    policy = build_policy(config, 5, 2)
    evaluator = PolicyEvaluator(config, policy, Path(config.run_dir))
    return evaluator, policy


def predicted(config: RobotConfig) -> np.ndarray:
    """Actions that the evaluator gets for fixed observations."""
    evaluator, policy = evaluator_of(config)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    observations = np.linspace(-1, 1, 2 * config.policy.n_obs_steps * 5, dtype=np.float32)
    act = evaluator._act(policy)
    return act(observations.reshape(2, config.policy.n_obs_steps, 5), np.array([3, 4]), np.array([0, 1]))


def lesson(config: RobotConfig) -> Any:
    """How the teacher of a student of this configuration is sampled, and what else the student learns."""
    student, settings = build_sampler(config), config.distillation
    objective = distilled_objective(student.objective, student, settings.refine_below)
    assert isinstance(objective.times, RefiningTimes)
    return str(settings.sampler_of(student).config), objective.times.bound


def asked_of_the_pool(config: RobotConfig) -> Any:
    """What the evaluator asks the rollout pool for, and the interval it reports."""
    asked: list[Any] = []

    def run(self: RolloutPool, act: Any, seeds: Any, *, video_dir: Path, videos: int, progress: Any) -> Any:
        asked.append((list(seeds), self.slots, self.workers, videos))
        return [EpisodeResult(seed, 0.1 * (seed % 7), False, 1) for seed in seeds]

    with mock.patch.object(RolloutPool, "run", run):
        evaluator, policy = evaluator_of(config)
        result = evaluator(policy, print)
    return asked, result["score_interval"], result["success_interval"]


def trace(config: RobotConfig) -> Any:
    """What a short run leaves behind: rows, checkpoints, files."""
    ROBOT.train(config)
    run_dir = Path(config.run_dir)
    rows = [(row["step"], *sorted(set(row) - {"step"})) for row in read_metrics(run_dir / "metrics.jsonl")]
    wandb = [json.loads(file.read_text()) for file in run_dir.glob("wandb/*/files/wandb-metadata.json")]
    elsewhere = len(list(run_dir.glob("wandb/offline*"))), len(wandb), len(list(run_dir.glob("tensorboard/*")))
    return rows, checkpoint_steps(run_dir / "checkpoints"), *elsewhere


def wandb_project(config: RobotConfig) -> Any:
    import wandb

    original = wandb.init
    disabled = mock.patch.object(wandb, "init", side_effect=lambda **given: original(**{**given, "mode": "disabled"}))
    with disabled as init:
        run_probe(lambda run: None)(config)
    return [call.kwargs["project"] for call in init.call_args_list]


def determinism(config: RobotConfig) -> list[Any]:
    config.training.device = "cuda"
    with SimulatedCuda(), mock.patch("torch.use_deterministic_algorithms") as wanted:
        build_update(ROBOT.build(config), config.training, config.seed)
    return wanted.call_args_list


def decays(run: Run) -> list[float]:
    values = []
    for updates in range(0, 40):
        run.update.ema.updates = updates
        values.append(run.update.ema.decay())
    assert isinstance(run.update.ema, EMA)
    return values


def first_frames(task: Any) -> Any:
    condition = batch_of(task, BATCH, torch.Generator().manual_seed(0)).condition
    assert isinstance(condition, dict)
    return condition


def seen_frames(config: RobotConfig) -> Any:
    """Shapes of the first training frames and of their features."""
    task = ROBOT.build(config)
    frames = first_frames(task)
    return frames["img"].shape, task.policy.encode(frames).shape


def encoded_frames(config: RobotConfig) -> Any:
    """Features of the first training frames, from the weights that the seed gives."""
    task = ROBOT.build(config)
    return task.policy.eval().encode(first_frames(task))


def encoder_parameters(config: RobotConfig) -> int:
    encoder = ROBOT.build(config).policy.encoder
    assert encoder is not None
    return count(encoder)


def norm_groups(config: RobotConfig) -> list[int]:
    encoder = ROBOT.build(config).policy.encoder
    assert encoder is not None
    return [part.num_groups for part in encoder.modules() if isinstance(part, torch.nn.GroupNorm)]


def stays_or_ends(config: RobotConfig) -> str:
    """What the data are refused for, or nothing."""
    try:
        ROBOT.build(config)
    except UserError as error:
        return str(error)
    return ""


def drawn(step: int = 0, progress: float = 0.5) -> Probe:
    """What a batch of forty is trained on."""

    def look(task: Any) -> Any:
        time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
        batch = task.batch(torch.arange(40) % task.samples)
        noised = task.objective.draw(batch, time, noise, step=step, progress=progress)
        weight = torch.ones(1) if noised.weight is None else noised.weight
        return noised.t, noised.x_t, noised.model_input, weight

    return task_probe(look)


def trace_with_scores(config: RobotConfig) -> Any:
    """Checkpoints that are kept when the first of four has the best score."""
    task = ROBOT.build(config)
    scores = iter([0.9, 0.1, 0.2, 0.3])
    task.evaluate = lambda model, report, *, step: {"score": next(scores)}  # type: ignore[method-assign]
    train(task, config.training, seed=0, run_dir=Path(config.run_dir), run_config={})
    return checkpoint_steps(Path(config.run_dir) / "checkpoints")
