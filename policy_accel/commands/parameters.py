"""`policy-accel list parameters`: the weights of a run, and what moves each."""

from __future__ import annotations

import argparse
import sys

from torch import nn

from policy_accel.configuration import source_of
from policy_accel.track import track
from policy_accel.training.adamw import Group
from policy_accel.training.muon import Muon
from policy_accel.training.optimizer import build_optimizer


def run_parameters(options: argparse.Namespace) -> int:
    """Print the parameters of the network that `train` with the same settings would begin with, a line each."""
    chosen = track(source_of(options.overrides, options.config_dir).track)
    config = chosen.config(options.overrides, options.config_dir, lambda line: print(line, file=sys.stderr))
    chosen.check(config)
    model = chosen.build(config).model
    optimizer = build_optimizer(config.training.optimizer, model)
    rest, matrices = (optimizer.rest, optimizer.matrices) if isinstance(optimizer, Muon) else (optimizer, [])
    lr = config.training.optimizer.lr
    moved = _moved("AdamW", rest.groups, lr)
    if isinstance(optimizer, Muon):
        moved |= _moved("Muon", matrices, lr * optimizer.lr_ratio)
    print("\n".join(parameter_lines(model, moved)))
    return 0


def _moved(by: str, groups: list[Group], lr: float) -> dict[nn.Parameter, str]:
    return {
        parameter: f"{by}, lr {group.rate(lr):g}, weight decay {group.weight_decay:g}"
        for group in groups
        for parameter in group.parameters
    }


def parameter_lines(model: nn.Module, moved: dict[nn.Parameter, str]) -> list[str]:
    """A line for each parameter of `model`: name, shape and what `moved` says of it; then how many numbers each moves.

    A parameter that nobody moves is frozen.
    """
    named = [
        (name, " x ".join(map(str, p.shape)), moved.get(p, "frozen"), p.numel()) for name, p in model.named_parameters()
    ]
    longest, widest = max(len(row[0]) for row in named), max(len(row[1]) for row in named)
    lines = [f"{name:<{longest}}  {shape:>{widest}}  {by}" for name, shape, by, _ in named]
    total = sum(row[3] for row in named)
    for by in dict.fromkeys(row[2] for row in named):
        own = [row[3] for row in named if row[2] == by]
        lines.append(f"{len(own)} parameters, {sum(own):,} of {total:,} numbers: {by}")
    return lines
