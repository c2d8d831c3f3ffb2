from __future__ import annotations

import pytest
import torch

from policy_accel.training.decaying_adamw import DecayingAdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_torchs_own_under_changing_momentum(weight_decay: float) -> None:
    """Learning rate and beta change at every step; a parameter without a gradient stays."""
    draws = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draws) for shape in ((3, 4), (5,), (2,))]
    sides = []
    for kind in (torch.optim.AdamW, DecayingAdamW):
        parameters = [part.clone().requires_grad_() for part in start]
        sides.append((parameters, kind(parameters, weight_decay=weight_decay, eps=1e-8, foreach=False)))
    for step in range(60):
        lr, beta = 1e-2 * (1 + step % 7), 0.95 - 0.015 * step
        gradients = [torch.randn(part.shape, generator=draws) for part in start[:2]]
        for (parameters, optimizer), as_tensor in zip(sides, (False, True), strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()
            group = optimizer.param_groups[0]
            numbers = [torch.tensor(x, dtype=torch.float64) if as_tensor else x for x in (lr, beta)]
            group["lr"], group["betas"] = numbers[0], (numbers[1], 0.999)
            optimizer.step()
    (theirs, other), (ours, mine) = sides
    for one, same in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours[2], start[2])
    for one, same in zip(mine.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        assert one.keys() == same.keys()
        for name, value in one.items():
            torch.testing.assert_close(value, same[name], rtol=1e-5, atol=1e-7)
