"""Group normalisation of images that lie channels last, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.simulated_cuda import CUDA, SimulatedCuda
from torch import Tensor

from policy_accel.models import group_norm
from policy_accel.models.group_norm import group_norm_channels_last
from policy_accel.models.layers import GroupNorm


def given(dtype: torch.dtype = torch.float32, mean: float = 0.5) -> list[Tensor]:
    """An image, weights, biases, and a gradient of the result."""
    draws = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(3, 12, 5, 4, generator=draws).to(memory_format=torch.channels_last) for _ in range(2))
    weight, bias = torch.randn(2, 12, generator=draws)
    return [(x + mean).to(dtype), weight, bias, gradient.to(dtype) / x[0].numel()]


def results(norm: object, x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> list[Tensor]:
    leaves = [part.clone().requires_grad_() for part in (x, weight, bias)]
    out = norm(leaves[0], 4, *leaves[1:], 1e-5)  # type: ignore[operator]
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-6), (3.0, 4e-6)])
def test_values_and_gradients_are_torchs(mean: float, tolerance: float) -> None:
    found, expected = (results(norm, *given(mean=mean)) for norm in (group_norm_channels_last, F.group_norm))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert found[0].stride() == found[1].stride() == given()[0].stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, weight, bias, gradient = given(dtype)
    found = results(group_norm_channels_last, x, weight, bias, gradient)
    exact = results(F.group_norm, x.float(), weight, bias, gradient.float())
    assert [part.dtype for part in found] == [dtype, dtype, torch.float32, torch.float32]
    for place in (0, 1):
        torch.testing.assert_close(found[place], exact[place].to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(found[2:], exact[2:], rtol=1e-5, atol=1e-6)


def test_it_is_for_cuda_and_images_that_lie_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    own = group_norm.group_norm_channels_last
    monkeypatch.setattr(
        "policy_accel.models.layers.group_norm_channels_last", lambda *args: calls.append(1) or own(*args)
    )
    norm, (x, *_) = GroupNorm(4, 12), given()
    norm(x)
    with SimulatedCuda():
        norm.to(CUDA)
        norm(x.contiguous().to(CUDA))
        assert not calls
        torch.testing.assert_close(norm(x.to(CUDA)).cpu(), F.group_norm(x, 4), rtol=1e-6, atol=1e-6)
    assert calls == [1]


def test_it_compiles_whole() -> None:
    compiled = torch.compile(group_norm_channels_last, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(compiled, *given()), results(F.group_norm, *given()), rtol=1e-6, atol=1e-6)
