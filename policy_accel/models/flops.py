"""Floating-point operations of a training step, by torch's own formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode


class _Counter(TorchDispatchMode):
    """Adds up what is computed inside of it.

    torch's FlopCounterMode gives the same sum, but loads torch.compile when it begins: over a second of a CPU.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # which loads Triton, where that is installed

        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas, self.total = flop_registry, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        formula = self.formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **given, out_val=result)
        return result


class _Plain(nn.Module):
    """The eager forward pass of a model, also of one that has been compiled in place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, "_orig_mod", model)  # what torch.compile wraps

    def forward(self, *arguments: Tensor | None) -> Tensor:
        """Call the model past its compiled form."""
        output: Tensor = self.model.forward(*arguments)
        return output


def training_flops(model: nn.Module, shape: tuple[int, ...], condition_dim: int = 0) -> float:
    """Operations of one forward and backward pass of `model` for one sample.

    Multiplications and additions count separately, and matrix products, convolutions and attention alone count (what
    they leave out is below one per cent of the arithmetic of the image networks). The pass runs where the model lies,
    which costs less than any update; the model, its gradients and torch's random state stay as they are.

    Args:
        model: a denoiser, called as model(x [1, *shape], t [1], condition [1, condition_dim] or None).
        shape: of one sample: (C, H, W) for an image.
        condition_dim: entries of the condition, 0 for none.
    """
    plain = _Plain(model)
    # Copies, as some networks move their weights in training whenever they are called (`edm2.MPLayer`).
    tensors = {name: value.detach().clone() for name, value in (*plain.named_parameters(), *plain.named_buffers())}
    for name, value in plain.named_parameters():
        tensors[name].requires_grad_(value.requires_grad)
    device = next(iter(tensors.values())).device
    x, t = torch.zeros(1, *shape, device=device), torch.zeros(1, device=device)
    condition = torch.zeros(1, condition_dim, device=device) if condition_dim else None
    moved = [value for value in tensors.values() if value.requires_grad]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad(), _Counter() as counter:
        torch.autograd.grad(functional_call(plain, tensors, (x, t, condition)).sum(), moved, allow_unused=True)
    return float(counter.total)
