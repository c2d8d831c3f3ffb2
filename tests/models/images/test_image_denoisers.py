"""What every image denoiser promises, whatever its architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from policy_accel.models import build_denoiser
from policy_accel.models.images import AdmConfig, DdpmConfig, DitConfig, Edm2Config, EdmConfig
from policy_accel.models.images.edm2 import MPLayer
from policy_accel.models.layout import lay_out

CONFIGS = {
    "ddpm": DdpmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[8], heads=2),
    "ddpmpp": EdmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[8]),
    "ncsnpp": EdmConfig(
        channels=8,
        multipliers=[2, 2],
        blocks=1,
        attention_resolutions=[16],
        embedding="fourier",
        time_multiplier=2,
        encoder="residual",
        resample_filter=[1, 3, 3, 1],
    ),
    "adm": AdmConfig(channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[8], head_channels=4),
    "edm2": Edm2Config(
        channels=8, multipliers=[1, 2], blocks=1, attention_resolutions=[8], head_channels=4, uncertainty=0, dropout=0.1
    ),
    "dit": DitConfig(patch=4, depth=2, width=16, heads=2),
}
CLASSES = 4


@pytest.fixture(params=CONFIGS)
def net(request) -> nn.Module:
    """A small network in eval mode whose zero-initialised layers have been moved, so that everything matters."""
    torch.manual_seed(0)
    built = build_denoiser(CONFIGS[request.param], channels=3, resolution=16, condition_dim=CLASSES).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return built


def inputs(batch: int = 3, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, 16, 16, generator=generator)
    t = (torch.rand(batch, generator=generator) * 1000).to(dtype)
    return x, t, torch.eye(CLASSES)[torch.arange(batch) % CLASSES]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_predicts_the_shape_of_the_images_for_both_kinds_of_time(net, dtype):
    x, t, condition = inputs(dtype=dtype)
    out = net(x, t, condition)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous()


def test_each_number_that_is_told_counts(net):
    x, _, condition = inputs()
    told = torch.tensor([[1000.0, 0.0], [500.0, 1.0], [7.8125, 7.0]])
    prediction = net(x, told, condition)
    for changed in (told + torch.tensor([100.0, 0.0]), told + torch.tensor([0.0, 1.0]), told.flip(1)):
        assert (prediction - net(x, changed, condition)).flatten(1).abs().amax(1).min() > 1e-6


def test_images_of_a_batch_do_not_see_each_other(net):
    x, t, condition = inputs()
    torch.testing.assert_close(net(x, t, condition)[1:2], net(x[1:2], t[1:2], condition[1:2]), atol=1e-5, rtol=1e-4)


def test_every_input_matters_everywhere(net):
    x, t, condition = inputs(1)
    base = net(x, t, condition)
    moved = x.clone()
    moved[:, :, 0, 0] += 5.0
    for other in (net(moved, t, condition), net(x, t + 0.25, condition), net(x, t, condition.roll(1, dims=1))):
        assert ((other - base).abs() > 1e-6).float().mean() > 0.95


def test_no_condition_is_the_zero_row_and_an_unwanted_one_is_an_error(net):
    x, t, condition = inputs()
    torch.testing.assert_close(net(x, t), net(x, t, torch.zeros_like(condition)), atol=0, rtol=0)
    for config in CONFIGS.values():
        unconditional = build_denoiser(config, channels=3, resolution=16)
        with pytest.raises(ValueError, match="condition_dim=0"):
            unconditional(x, t, condition)


def test_every_parameter_gets_a_finite_gradient(net):
    net.train()
    (net(*inputs()) ** 2).mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


def test_dropout_acts_in_training_alone(net):
    x, t, condition = inputs()
    assert torch.equal(net(x, t, condition), net(x, t, condition))
    net.train()
    has_dropout = any(isinstance(module, nn.Dropout) for module in net.modules())
    assert torch.equal(net(x, t, condition), net(x, t, condition)) != has_dropout


def test_autocast_computes_in_bf16_and_returns_float32(net):
    x, t, condition = inputs()
    dtypes = set()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm | MPLayer):
            module.register_forward_hook(lambda module, given, out: dtypes.add(out[0].dtype))
    net.train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    exact = net(x, t, condition)
    dtypes.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x, t, condition)
    assert dtypes == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert 0.0 < (rough - exact).std() < 0.05 * exact.std()
    rough.square().mean().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters()
    )


def test_reads_nothing_back_from_the_device(net):
    # The meta device has no values, so that any read of one raises.
    net = net.to("meta").train()
    out = net(*(value.to("meta") for value in inputs()))
    out.sum().backward()
    assert out.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("name", ["ddpm", "ddpmpp", "ncsnpp", "adm", "edm2"])
def test_channels_last_changes_the_layout_alone(name):
    torch.manual_seed(0)
    plain = build_denoiser(CONFIGS[name], channels=3, resolution=16, condition_dim=CLASSES).eval()
    with torch.no_grad():
        for p in plain.parameters():
            p.add_(0.1 * torch.randn_like(p))
    other = copy.deepcopy(plain)
    lay_out(other, "cpu", "true")
    outs = [built(*inputs()) for built in (plain, other)]
    assert outs[1].is_contiguous()
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=1e-4)
    for out in outs:
        out.square().mean().backward()
    for (key, p), q in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3, msg=key)


@pytest.mark.parametrize("resolution", [12, 20])
def test_any_resolution_that_can_be_halved_fits(resolution):
    for config in (
        DdpmConfig(channels=8, multipliers=[1, 2, 2], blocks=1, attention_resolutions=[resolution // 4]),
        EdmConfig(channels=8, multipliers=[1, 2, 2], blocks=1, attention_resolutions=[]),
        DitConfig(patch=4, depth=1, width=16, heads=2),
    ):
        net = build_denoiser(config, channels=1, resolution=resolution)
        assert net(torch.randn(2, 1, resolution, resolution), torch.tensor([0, 9])).shape[2:] == (
            resolution,
            resolution,
        )
