"""What a run says before its first update: on what it trains, on which data, which network, by which method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policy_accel.diffusion.config import SamplingConfig
from policy_accel.training.config import RunConfig, TrainingConfig
from policy_accel.training.devices import device_name
from policy_accel.training.muon import Muon
from policy_accel.training.optimizer import step_values
from policy_accel.training.ranks import Ranks
from policy_accel.training.run_directory import in_words
from policy_accel.training.task import Task
from policy_accel.training.update import Update


def heading(task: Task, config: TrainingConfig, update: Update, ranks: Ranks, step: int) -> str:
    """The lines of a run that stands after `step` updates: the device, `task.heading`, the network and the updates."""
    name, count = device_name(update.device), ranks.count
    place = f"{update.device} ({name})" if count == 1 else f"{count} processes ({update.device.type}: {name})"
    idle = f"; no effect in one process: {', '.join(config.idle_alone())}" if count == 1 and config.idle_alone() else ""
    first = (
        f"train: on {place}, with {torch.get_num_threads()} CPU threads, in {update.precision} (float32 products: "
        f"{torch.get_float32_matmul_precision()}){idle}"
    )
    parts = {**task.heading, "network": _network(task, update), "updates": _updates(task, config, update, step)}
    said = {word: text for word, text in parts.items() if text}
    width = max(map(len, said))
    return "\n".join([first, *(f"  {word:<{width}}  {text}" for word, text in said.items())])


def going_on(config: TrainingConfig, changes: Mapping[str, tuple[Any, Any]], step: int) -> str:
    """What a run that stands after `step` updates has otherwise from now on, and what a new end does to its schedules:
    they are those of a run of that length."""
    text = f"train: going on from step {step:,} with other settings than before: {'; '.join(in_words(changes))}"
    if "training.steps" not in changes:
        return text
    before, after = (step_values(config.optimizer, step, steps)[0] for steps in changes["training.steps"])
    return (
        f"{text}\ntrain: the learning rate, and whatever else moves over a run, is from now on that of a run of "
        f"{config.steps:,} updates ({before:.3g} -> {after:.3g})"
    )


def _network(task: Task, update: Update) -> str:
    weights = sum(parameter.numel() for parameter in task.model.parameters())
    moved = sum(parameter.numel() for parameter in update.parameters)
    text = f"{weights:,} parameters" + (f", {weights - moved:,} of them frozen" if moved < weights else "")
    if isinstance(update.optimizer, Muon):
        matrices = update.optimizer.moved
        share = sum(map(torch.Tensor.numel, matrices)) / moved
        text += f"; Muon moves {len(matrices)} matrices with {share:.0%} of the weights"
    return text


def _updates(task: Task, config: TrainingConfig, update: Update, step: int) -> str:
    batch = update.feed.order.batch_size
    passes = config.steps * batch / task.samples
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
    text = f"{config.steps:,} of {batch:,} samples each, {times} times through the {task.samples:,}"
    return text + (f"; going on from step {step:,}" if step else "")


def method_of(config: RunConfig) -> str:
    """Recipe and method of a run, what its network learns, and the accelerations that are not off."""
    diffusion, taken = config.diffusion, config.acceleration
    chosen = [(group, getattr(taken, group).name) for group in ("noise", "path", "momentum", "timesteps")]
    plain = type(taken)()
    named = [f"{group} {name}" for group, name in chosen if name != getattr(plain, group).name]
    taught = [f"taught by {config.distillation.teacher}"] if config.distillation.teacher else []
    learnt = f"{diffusion.family} with target {diffusion.target}"
    return ", ".join([f"{config.label}, {config.method}: {learnt}", *named, *taught])


def sampled_by(sampling: SamplingConfig) -> str:
    """The sampler of a run and its steps."""
    steps: int = sampling.record()["steps"]
    return f"sampled by {sampling.sampler} in {steps} step" + "s" * (steps != 1)
