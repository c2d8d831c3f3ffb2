"""What a run trains with: its update, the order of its samples, and what made it."""

from __future__ import annotations

import platform

import torch

from policy_accel.machine import package_version
from policy_accel.training.config import TrainingConfig
from policy_accel.training.devices import choose_device, device_name, use_device
from policy_accel.training.randomness import DataOrder, Generators
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.task import Task
from policy_accel.training.update import Update


def order_of(task: Task, config: TrainingConfig, seed: int, device: torch.device) -> DataOrder:
    """Which samples make up the batch of each step: on the device, or on the host where that reads them."""
    place = device if task.resident else torch.device("cpu")
    return DataOrder(
        task.samples,
        config.batch_size * task.objective.repetition.samples_factor,
        seed,
        place,
        groups=None if task.groups is None else task.groups.to(place),
        run=task.group_run,
    )


def build_update(task: Task, config: TrainingConfig, seed: int, ranks: Ranks = ALONE) -> Update:
    """The update of a run on the device that `config` names, where `task` goes; `ranks` share its batches."""
    config.check()
    pieces = config.pieces(ranks)
    device = choose_device(config.device)
    use_device(
        device,
        threads=config.threads,
        matmul_precision=config.matmul_precision,
        deterministic=config.deterministic,
    )
    task.to(device)
    config.lay_out(task.model, device)
    sharded = config.shards(ranks, device)
    return Update(
        task,
        order_of(task, config, seed, device),
        config.optimizer,
        config.ema,
        steps=config.steps,
        generators=Generators(seed, device),
        precision=config.precision_on(device),
        compiled=config.compile,
        captured=config.captures(device) and not sharded,
        log_every=config.logging.every,
        ranks=ranks,
        pieces=pieces,
        reduced=torch.bfloat16 if config.reduce_precision == "bf16" else torch.float32,
        sharded=sharded,
    )


def made_with(device: torch.device) -> dict[str, str]:
    """Name of the device and versions, for who reads a checkpoint."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "policy-accel": package_version("policy-accel"),
        "python": platform.python_version(),
    }
