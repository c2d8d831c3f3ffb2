"""A share of the weights in each process, with its gradients, moments and averages: torch's FSDP2 (`fully_shard`)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard

from policy_accel.errors import UserError
from policy_accel.models.denoiser import Denoiser
from policy_accel.training.ranks import Ranks, noticed
from policy_accel.training.weights import Tensors, Weights


class ShardedWeights(Weights):
    """Each process keeps some rows of every parameter; a part of the network is gathered while it is computed.

    Zhao et al. 2023 (FSDP), Rajbhandari et al. 2020 (ZeRO, stage 3). The parts are those of `Denoiser.units()` and the
    rest. Copies of the model, which score, are whole in every process: no process waits for another to use one.

    Raises:
        UserError: a torch that cannot sum gradients without dividing them.
    """

    scattered = True

    def __init__(self, model: Denoiser, ranks: Ranks, reduced: torch.dtype = torch.float32) -> None:
        if "set_force_sum_reduction_for_comms" not in vars(FSDPModule):
            raise UserError(f"training.shard=true needs a newer torch than {torch.__version__}; install torch>=2.9.")
        device = next(model.parameters()).device
        everyone = distributed.group.WORLD
        assert everyone is not None
        self._mesh = DeviceMesh.from_group(everyone, device.type)
        self._plain, self._given = copy.deepcopy(model).eval().requires_grad_(False), False
        self._buffers = {name for name, _ in model.named_buffers()}
        # The loss reads what the network returns and changes nothing in it.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        policy = MixedPrecisionPolicy(reduce_dtype=reduced)
        for part in (*model.units(), model):
            fully_shard(part, mesh=self._mesh, mp_policy=policy)
        for part in model.modules():
            if isinstance(part, FSDPModule):
                # Each process has its part of a sum over the batch, and gloo knows nothing but sums.
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(model, "encode")
        super().__init__(model, ranks, reduced)

    def _laid_out(self) -> list[Tensor]:
        return [_local(parameter) for parameter in self.model.parameters()]

    def copied(self) -> tuple[Denoiser, list[Tensor]]:
        """See `Weights.copied`: the rows that this process has of each parameter."""
        # The first copy is the one that was made before the model was cut: no more memory than that.
        model = copy.deepcopy(self._plain) if self._given else self._plain
        self._given = True
        return model, [self._rows(parameter) for parameter in model.parameters()]

    def _rows(self, whole: Tensor) -> Tensor:
        """The own rows, as torch deals them out: the last processes may have fewer, or none."""
        size = -(-len(whole) // self.ranks.count)
        begin = min(len(whole), self.ranks.rank * size)
        return whole[begin : min(len(whole), begin + size)]

    def _share(self, whole: Tensor) -> DTensor:
        """The own rows as a share of `whole`."""
        return DTensor.from_local(
            self._rows(whole), self._mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
        )

    @torch.no_grad()
    def refresh(self, model: Denoiser) -> None:
        """See `Weights.refresh`."""
        with noticed():
            for parameter in model.parameters():
                parameter.copy_(self._share(parameter.contiguous()).full_tensor())

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """See `Weights.exchanged`."""
        with noticed(whatever=False):
            yield

    def sum_gradients_(self) -> None:
        """Nothing: the backward pass has done it."""

    def clip_gradients_(self, largest: float) -> Tensor:
        """See `Weights.clip_gradients_`."""
        with noticed():
            norm = nn.utils.clip_grad_norm_(self.parameters, largest, foreach=True)
            assert isinstance(norm, DTensor)
            return norm.full_tensor()

    def finite(self) -> Tensor:
        """See `Weights.finite`; all processes call it together."""
        return self.ranks.sum_((~super().finite()).int()) == 0

    def whole(self, tensors: Tensors) -> Tensors:
        """See `Weights.whole`: on the host, since the device need not hold them all."""
        with noticed():
            return {
                name: value.full_tensor().cpu() if isinstance(value, DTensor) else value
                for name, value in tensors.items()
            }

    def own(self, tensors: Tensors) -> Tensors:
        """See `Weights.own`."""
        device = self.live[0].device
        return {
            name: value if value.ndim == 0 or name in self._buffers else self._share(value.to(device))
            for name, value in tensors.items()
        }


def _local(parameter: Tensor) -> Tensor:
    assert isinstance(parameter, DTensor)
    return parameter.to_local().detach()
