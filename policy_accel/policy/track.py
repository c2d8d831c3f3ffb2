"""The robot track: policies, trained on demonstrations and scored in rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from policy_accel.configuration import SOURCES
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.demonstrations import load_demonstrations
from policy_accel.policy.evaluate import PolicyEvaluator, Recorded
from policy_accel.policy.run import LoadedRun, build_policy, build_sampler, check_config
from policy_accel.policy.score import check_trusted, describe_score, score_run
from policy_accel.policy.task import ChunkTask
from policy_accel.track import Report, Track
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.devices import choose_device
from policy_accel.training.run_directory import checkpoint_path


class RobotTrack(Track[RobotConfig]):
    """See `Track`."""

    source = SOURCES["robot"]
    demo = "demo"
    schema = RobotConfig

    def build(self, config: RobotConfig, *, scored: bool = False) -> ChunkTask:
        """See `Track.build`."""
        objective = check_config(config)
        demonstrations = load_demonstrations(config.task, config.policy)
        policy = build_policy(
            config,
            demonstrations.observations.shape[1],
            demonstrations.actions.shape[1],
            images=None if demonstrations.images is None else demonstrations.images.shapes,
            goal_columns=demonstrations.goal_columns,
        )
        recorded = Recorded(demonstrations.metadata.get("env_args"), demonstrations.action_range)
        evaluator = None
        if scored and config.is_scored():
            evaluator = PolicyEvaluator(config, policy, Path(config.run_dir), recorded)
        return ChunkTask(
            policy,
            objective,
            demonstrations,
            normalization=(config.task.observation_normalization, config.task.action_normalization),
            mask_padding=config.task.mask_padding,
            evaluator=evaluator,
            noise=config.acceleration.noise,
            seed=config.seed,
            crop=config.encoder.crop,
        )

    def load(self, run_dir: Path, checkpoint: str = "last", device: torch.device | str = "cpu") -> LoadedRun:
        """See `Track.load`; the weights are the averaged ones (EMA)."""
        config = self.read(run_dir)
        saved = load_checkpoint(checkpoint_path(run_dir, checkpoint), ("ema",))
        tensors = saved.tensors["ema"]
        data = saved.state.get("task") or {}
        policy = build_policy(
            config,
            tensors["observation_normalizer.scale"].shape[0],
            tensors["action_normalizer.scale"].shape[0],
            images=data.get("images"),
            goal_columns=data.get("goal_columns", ()),
        )
        policy.load_state_dict(tensors)
        policy.to(device).eval().requires_grad_(False)
        return LoadedRun(policy, config, saved.step, build_sampler(config), data.get("env_args"))

    def evaluate(self, run_dir: Path, options: argparse.Namespace, report: Report) -> dict[str, Any]:
        """See `Track.evaluate`."""
        check_trusted(self.read(run_dir).task, run_dir)
        loaded = self.load(run_dir, options.checkpoint, choose_device(options.device, "--device"))
        return score_run(loaded, run_dir, options, report)

    def describe(self, result: dict[str, Any]) -> str:
        """See `Track.describe`."""
        return describe_score(result)


ROBOT = RobotTrack()
