"""Muon: momentum whose matrices are orthogonalised before they move the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from policy_accel.diffusion.timesteps import Number
from policy_accel.training.adamw import AdamW, Group

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of x, x^3 and x^5 in a step of the orthogonalisation (Jordan et al. 2024)."""
NEWTON_SCHULZ_STEPS = range(3, 6)
RMS = 0.2
"""Root mean square of an update at learning rate 1, as AdamW's usually is (Liu et al. 2025)."""
STATE = "momentum_buffer"
PRECISIONS = {"cuda": torch.bfloat16}
"""In which the matrices are orthogonalised on a kind of device; float32 on others."""


class Muon:
    """Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", with Nesterov's momentum.

    Decoupled weight decay and the scale of the update, 0.2 sqrt(max(rows, columns)), are Liu et al. 2025's ("Muon is
    Scalable for LLM Training", arXiv 2502.16982), so that one learning rate serves all shapes. A weight [out, in, *k]
    counts as a matrix [out, in * k]. It has what `AdamW` offers to an update.

    Args:
        matrices: what it moves, of two or more axes.
        rest: moves the other parameters.
        lr_ratio: learning rate of the matrices over that of the rest.
        steps: of the orthogonalisation.
    """

    def __init__(self, matrices: Iterable[Group], rest: AdamW, *, lr_ratio: float, steps: int) -> None:
        self.matrices = [group for group in matrices if group.parameters]
        self.rest, self.lr_ratio, self.steps = rest, lr_ratio, steps
        kinds = {parameter.device.type for parameter in self.moved}
        self.dtype = PRECISIONS.get(kinds.pop() if kinds else "cpu", torch.float32)
        self._state: dict[nn.Parameter, Tensor] = {}

    @property
    def moved(self) -> list[nn.Parameter]:
        """The matrices, in the order of their groups."""
        return [parameter for group in self.matrices for parameter in group.parameters]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All: those of the rest, then the matrices."""
        return [*self.rest.parameters, *self.moved]

    @property
    def flops(self) -> int:
        """Floating-point operations of the orthogonalisation in one update, a multiplication and an addition being
        two."""
        shapes = [tuple(parameter.flatten(1).shape) for parameter in self.moved]
        return sum(flops_of(shape, self.steps, by_gram=_by_gram(shape, self.steps, self.dtype)) for shape in shapes)

    @torch.no_grad()
    def step(self, lr: Number, beta: Number, left_out: Tensor | None = None) -> None:
        """Move every parameter that has a gradient; lr is that of the rest, otherwise as `AdamW.step`."""
        self.rest.step(lr, beta, left_out)
        for group in self.matrices:
            given = sorted((p for p in group.parameters if p.grad is not None), key=_shape)
            for _, alike in itertools.groupby(given, key=_shape):
                self._move(list(alike), group.rate(lr) * self.lr_ratio, beta, group.weight_decay, left_out)

    def _move(
        self, parameters: list[Any], lr: Number, beta: Number, weight_decay: float, left_out: Tensor | None
    ) -> None:
        """Move parameters of one shape."""
        gradients = [parameter.grad for parameter in parameters]
        means = [self._mean_of(parameter) for parameter in parameters]
        before = [] if left_out is None else [tensor.clone() for tensor in (*parameters, *means)]
        change = torch._foreach_sub(gradients, means)
        torch._foreach_mul_(change, _float32(1.0 - beta))
        torch._foreach_add_(means, change)
        ahead = torch._foreach_sub(means, gradients)
        torch._foreach_mul_(ahead, _float32(beta))
        torch._foreach_add_(ahead, gradients)
        stack = torch.stack([part.flatten(1) for part in ahead])
        moves = orthogonalised(stack.to(self.dtype), self.steps)
        torch._foreach_mul_(parameters, _float32(1.0 - lr * weight_decay))
        scale = _float32(-lr * RMS * max(stack.shape[1:]) ** 0.5)
        moves = moves.to(stack.dtype) * scale
        torch._foreach_add_(parameters, [move.view(parameters[0].shape) for move in moves])
        if left_out is not None:
            after = [*parameters, *means]
            torch._foreach_copy_(
                after, [torch.where(left_out > 0, old, new) for old, new in zip(before, after, strict=True)]
            )

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """What the rest gives, and `NUMBER.momentum_buffer` of the matrices, numbered as in `parameters`."""
        first = len(self.rest.parameters)
        own = {
            f"{number}.{STATE}": self._state[parameter]
            for number, parameter in enumerate(self.moved, first)
            if parameter in self._state
        }
        return {**self.rest.state_dict(), **own}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        parameters = self.parameters
        own = {key: value for key, value in tensors.items() if key.endswith(f".{STATE}")}
        self.rest.load_state_dict({key: value for key, value in tensors.items() if key not in own})
        self._state = {}
        for key, value in own.items():
            self._mean_of(parameters[int(key.split(".", 1)[0])]).copy_(value)

    def _mean_of(self, parameter: nn.Parameter) -> Tensor:
        if parameter not in self._state:
            self._state[parameter] = torch.zeros_like(parameter, requires_grad=False)
        return self._state[parameter]


def orthogonalised(stack: Tensor, steps: int) -> Tensor:
    """U p(S) V^T for each matrix U S V^T of a stack [N, rows, columns]: singular values near 1, where they are not
    tiny beside the matrix's norm.

    p is the polynomial of `COEFFICIENTS`, `steps` times, of the singular values over their 2-norm (Newton and Schulz's
    iteration; Jordan et al. 2024). Wide matrices in float32 take the same steps on x x^T, which is less work.
    """
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if _by_gram(tuple(x.shape[1:]), steps, x.dtype):
        x = _products_of_gram(x, steps) @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _products_of_gram(x: Tensor, steps: int) -> Tensor:
    """Q [N, n, n] with Q x = `orthogonalised(x)` for x [N, n, m]: the iteration on x x^T alone, a matrix [n, n].

    A step makes x to (a + b G + c G^2) x, and so G = x x^T to P G P with P = a + b G + c G^2; all commute.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial if product is None else polynomial @ product
        if step + 1 < steps:
            gram = polynomial @ gram @ polynomial
    assert product is not None
    return product


def flops_of(shape: tuple[int, ...], steps: int, *, by_gram: bool) -> int:
    """Floating-point operations of orthogonalising a matrix of `shape`, by the iteration on x or by that on x x^T."""
    n, m = sorted(shape)
    if by_gram:
        return 4 * n**2 * m + (8 * steps - 6) * n**3
    return steps * (4 * n**2 * m + 2 * n**3)


def _by_gram(shape: tuple[int, ...], steps: int, dtype: torch.dtype) -> bool:
    """Whether to iterate on x x^T: where it is less work, and in float32, as squaring singular values halves digits."""
    less = flops_of(shape, steps, by_gram=True) < flops_of(shape, steps, by_gram=False)
    return less and dtype == torch.float32


def _shape(parameter: Tensor) -> tuple[int, ...]:
    return tuple(parameter.shape)


def _float32(number: Number) -> Any:
    """A number of the device as foreach kernels of float32 take it; the host's stays."""
    return number.float() if isinstance(number, Tensor) else number
