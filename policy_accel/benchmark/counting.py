"""What an update costs at least, counted without computing anything: the update itself, run on the meta device."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from policy_accel.benchmark.operations import Operations
from policy_accel.diffusion import Batch, Noised
from policy_accel.diffusion.deferred import Deferred
from policy_accel.training.build import order_of
from policy_accel.training.config import TrainingConfig
from policy_accel.training.devices import choose_device
from policy_accel.training.feed import Begun, Feed
from policy_accel.training.muon import PRECISIONS, Muon
from policy_accel.training.randomness import Generators
from policy_accel.training.task import Task
from policy_accel.training.update import Update

CPU, META = torch.device("cpu"), torch.device("meta")
CAST_BYTES = 6
"""Of a weight that is read as float32 and written in half as many bytes."""
MUON_BYTES = 20
"""Of a weight that Muon moves: weight and momentum are read and written, the gradient is read, all in float32."""
D = TypeVar("D", Batch, Noised)


@dataclass(frozen=True)
class Counted:
    """Work of one update (forward, backward, optimiser, averages) for a batch. Drawing the batch and clipping the
    gradient are left out, which a GPU can do along with the rest.

    parameters: of the network. rows: noised samples of the batch. flops: of matrix products, convolutions and
    attention, a multiplication and an addition being two; muon_flops: of them those of Muon. adamw_bytes, muon_bytes,
    averages_bytes: read and written by the optimisers (Muon's: weights and momentum read and written, gradients read)
    and by the averages of the weights. gradient_bytes: written by the backward pass. cast_bytes: weights read
    as float32 and written in half as many bytes, where training is in bf16 or fp16. activation_bytes: kept from the
    forward pass for the backward pass, in float32.
    """

    parameters: int
    rows: int
    flops: float
    adamw_bytes: int
    averages_bytes: int
    gradient_bytes: int
    cast_bytes: int
    activation_bytes: int
    muon_flops: float = 0.0
    muon_bytes: int = 0

    @property
    def state_bytes(self) -> int:
        """What has to pass through memory however well everything else is fused; activations are not in it."""
        return self.adamw_bytes + self.muon_bytes + self.averages_bytes + self.gradient_bytes + self.cast_bytes


def count_update(task: Task, config: TrainingConfig, seed: int) -> Counted:
    """Count an update of `task`, which is on the CPU and of no more use afterwards: its tensors go to the meta device.

    FLOPs are torch's own count; bytes are those of the operands and results of the operations that the optimiser and
    the averages are made of.
    """
    task.to(CPU)
    order, generators = order_of(task, config, seed, CPU), Generators(seed, CPU)
    begun = _on_meta(Feed(task, order, generators, steps=1, average=task.model)(0))
    task.to(META)
    generators.device = META  # it says where the update's own tensors go
    optimizer = replace(config.optimizer, clip_grad_norm=None)
    update = Update(task, order, optimizer, config.ema, steps=config.steps, generators=generators)
    muon = update.optimizer if isinstance(update.optimizer, Muon) else None
    if muon:  # which takes other steps where the run will be
        muon.dtype = PRECISIONS.get(choose_device(config.device).type, torch.float32)
    kept = _Kept(update)
    with FlopCounterMode(display=False) as flops, Operations() as operations, kept.hooks:
        update.learn(begun, config.optimizer.lr, config.optimizer.betas[0], [0.1] * len(update.ema.models()))
    trained = sum(parameter.numel() for parameter in update.parameters)
    return Counted(
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        rows=begun.examples()[1].x_t.shape[0],
        flops=float(flops.get_total_flops()),
        adamw_bytes=operations.bytes["_fused_adamw_"],
        averages_bytes=operations.bytes["lerp_"],
        gradient_bytes=4 * trained,
        cast_bytes=CAST_BYTES * trained if config.precision_on(choose_device(config.device)) != "fp32" else 0,
        activation_bytes=kept.bytes,
        muon_flops=float(muon.flops) if muon else 0.0,
        muon_bytes=MUON_BYTES * sum(parameter.numel() for parameter in muon.moved) if muon else 0,
    )


def _on_meta(begun: Begun) -> Begun:
    batch, noised = begun.examples()
    return Begun(begun.step, _moved(batch), Deferred.of(_moved(noised)))


def _moved(part: D) -> D:
    values: dict[str, Any] = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(part, **tree_map_only(Tensor, lambda tensor: tensor.to(META), values))


class _Kept:
    """Counts what autograd keeps for the backward pass, but the weights: each memory once."""

    def __init__(self, update: Update) -> None:
        self._seen: dict[int, Tensor] = {tensor.untyped_storage()._cdata: tensor for tensor in update.parameters}
        self.bytes = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory._cdata not in self._seen:
            self._seen[memory._cdata] = tensor
            self.bytes += memory.nbytes()
        return tensor
