"""AdamW on torch's fused kernel, and not torch.optim's: making one of those loads torch's compiler, which takes longer
than everything else before the first update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from policy_accel.diffusion.timesteps import Number

STATE = ("exp_avg", "exp_avg_sq", "step")
"""What is kept of a parameter, in torch.optim's words: averages of gradient and square [its shape], and its steps."""


@dataclass(frozen=True)
class Group:
    """Parameters that decay alike and learn alike: lr_factor times the learning rate."""

    parameters: Sequence[nn.Parameter]
    weight_decay: float
    lr_factor: float = 1.0

    def rate(self, lr: Number) -> Number:
        """The learning rate of these parameters where that of an update is `lr`."""
        return lr if self.lr_factor == 1.0 else lr * self.lr_factor


class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2, bit for bit as torch.optim.AdamW(fused=True).

    Args:
        groups: the parameters; those without any are left out.
        betas: of the averages; a step may have another first one.
        eps: added to the root of the average square.
    """

    def __init__(self, groups: Iterable[Group], *, betas: Sequence[float], eps: float) -> None:
        self.groups = [group for group in groups if group.parameters]
        self.betas, self.eps = tuple(betas), eps
        self._state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All, in the order of the groups."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @torch.no_grad()
    def step(self, lr: Number, beta: Number, left_out: Tensor | None = None) -> None:
        """Move every parameter that has a gradient.

        Args:
            lr: learning rate.
            beta: the first of the betas. torch's kernel takes it as a number of the host alone, so that of the device
                is not read: see `DecayingAdamW`.
            left_out: 0-dim float32 on the device; where it is 1, parameters, averages and steps stay as they are.
        """
        for group in self.groups:
            parameters = [parameter for parameter in group.parameters if parameter.grad is not None]
            if parameters:
                states = [self._state_of(parameter) for parameter in parameters]
                self._move(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    *([state[name] for state in states] for name in STATE),
                    lr=group.rate(lr),
                    beta=beta,
                    weight_decay=group.weight_decay,
                    left_out=left_out,
                )

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """`NUMBER.NAME` for each of `STATE` of the parameters that have moved, numbered as in `parameters`."""
        return {
            f"{number}.{name}": value
            for number, parameter in enumerate(self.parameters)
            for name, value in self._state.get(parameter, {}).items()
        }

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self._state = {}
        parameters = self.parameters
        for key, value in tensors.items():
            number, name = key.split(".", 1)
            parameter = parameters[int(number)]
            like = value if name == "step" else parameter  # which may lie in another order here
            own = torch.empty_like(like, device=parameter.device, requires_grad=False)
            self._state.setdefault(parameter, {})[name] = own.copy_(value)

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self._state:
            self._state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self._state[parameter]

    def _move(
        self,
        parameters: list[Any],
        gradients: list[Any],
        means: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
        *,
        lr: Number,
        beta: Number,
        weight_decay: float,
        left_out: Tensor | None,
    ) -> None:
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            found_inf=left_out,
            amsgrad=False,
            maximize=False,
            lr=lr.float() if isinstance(lr, Tensor) else lr,
            beta1=self.betas[0] if isinstance(beta, Tensor) else beta,
            beta2=self.betas[1],
            weight_decay=weight_decay,
            eps=self.eps,
        )
