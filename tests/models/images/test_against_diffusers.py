"""The U-Nets against diffusers' networks of the same architecture, with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.downsampling import downsample_2d
from diffusers.models.upsampling import upsample_2d
from torch import nn

from policy_accel.models import build_denoiser
from policy_accel.models.images import DdpmConfig, EdmConfig
from policy_accel.models.images.resampling import Resample


def diffusers_unet(channels: int, attended_level: int = 1, groups: int = 32) -> UNet2DModel:
    """The published CIFAR-10 architecture, [1, 2, 2, 2] times `channels` with attention at one level."""
    down = ["DownBlock2D"] * 4
    down[attended_level] = "AttnDownBlock2D"
    up = ["UpBlock2D"] * 4
    up[3 - attended_level] = "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=32,
        block_out_channels=tuple(channels * multiplier for multiplier in (1, 2, 2, 2)),
        layers_per_block=2,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=None,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
        norm_num_groups=groups,
        dropout=0.1,
    )


def copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def copy_block(resnet: nn.Module, attention: nn.Module | None, block: nn.Module) -> None:
    names = {
        "norm1": "norm_in",
        "conv1": "conv_in",
        "time_emb_proj": "embedding",
        "norm2": "norm_out",
        "conv2": "conv_out",
        "conv_shortcut": "residual",
    }
    for theirs, layer in resnet.named_children():
        if theirs in names:
            copy(layer, getattr(block, names[theirs]))
    assert (attention is None) == (block.attention is None)
    if attention is not None:
        copy(attention.group_norm, block.attention.norm)
        copy(attention.to_out[0], block.attention.out)
        thirds = [attention.to_q, attention.to_k, attention.to_v]
        block.attention.qkv.weight.copy_(torch.cat([layer.weight for layer in thirds]))
        block.attention.qkv.bias.copy_(torch.cat([layer.bias for layer in thirds]))


@torch.no_grad()
def copy_diffusers(theirs: UNet2DModel, ours: nn.Module) -> None:
    """Give `ours` the weights of `theirs`, layer by layer in the order of the forward pass."""
    copy(theirs.conv_in, ours.input)
    copy(theirs.time_embedding.linear_1, ours.embed[0])
    copy(theirs.time_embedding.linear_2, ours.embed[2])
    for blocks, layers in ((theirs.down_blocks, iter(ours.down)), (theirs.up_blocks, iter(ours.up))):
        for block in blocks:
            attentions = getattr(block, "attentions", [None] * len(block.resnets))
            for resnet, attention in zip(block.resnets, attentions, strict=True):
                copy_block(resnet, attention, next(layers))
            for resample in getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or []:
                copy(resample.conv, next(layers))
        assert next(layers, None) is None
    copy_block(theirs.mid_block.resnets[0], theirs.mid_block.attentions[0], ours.middle[0])
    copy_block(theirs.mid_block.resnets[1], None, ours.middle[1])
    copy(theirs.conv_norm_out, ours.norm)
    copy(theirs.conv_out, ours.output)


def test_published_net_has_the_size_of_diffusers():
    with torch.device("meta"):
        ours = build_denoiser(DdpmConfig(), channels=3, resolution=32)
        theirs = diffusers_unet(128)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("attended_level", [1, 2])
def test_equals_diffusers_with_the_same_weights(attended_level):
    torch.manual_seed(0)
    theirs = diffusers_unet(16, attended_level, groups=4).eval()
    config = DdpmConfig(channels=16, attention_resolutions=[32 >> attended_level])
    ours = build_denoiser(config, channels=3, resolution=32).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.05 * torch.randn_like(p))
    copy_diffusers(theirs, ours)
    x, t = torch.randn(3, 3, 32, 32), torch.tensor([0, 421, 999])
    with torch.no_grad():
        expected, found = theirs(x, t).sample, ours(x, t)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


class NoAttention(nn.Module):
    def forward(self, x, **_):
        return x


def diffusers_ddpmpp(channels: int) -> UNet2DModel:
    """DDPM++ with two blocks, out of diffusers' parts: resampling residual blocks, sums divided by the root of 2."""
    net = UNet2DModel(
        sample_size=32,
        block_out_channels=(channels, 2 * channels, 2 * channels),
        layers_per_block=2,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=None,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=1,
        mid_block_scale_factor=math.sqrt(2.0),
    )
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels // 4
        if hasattr(module, "output_scale_factor"):
            module.output_scale_factor = math.sqrt(2.0)
        if hasattr(module, "rescale_output_factor"):
            module.rescale_output_factor = math.sqrt(2.0)
        for resample in getattr(module, "downsamplers", None) or getattr(module, "upsamplers", None) or []:
            resample.conv_shortcut = nn.Conv2d(resample.in_channels, resample.out_channels, 1)
    # The decoder attends after the last block of the resolution alone.
    attended = net.up_blocks[1]
    attended.attentions[0], attended.attentions[1] = NoAttention(), NoAttention()
    return net.eval()


@torch.no_grad()
def copy_ddpmpp(theirs: UNet2DModel, ours: nn.Module) -> None:
    copy(theirs.conv_in, ours.input)
    copy(theirs.time_embedding.linear_1, ours.embed[0])
    copy(theirs.time_embedding.linear_2, ours.embed[2])
    for blocks, layers in ((theirs.down_blocks, iter(ours.down)), (theirs.up_blocks, iter(ours.up))):
        for block in blocks:
            for index, resnet in enumerate(block.resnets):
                attention = block.attentions[index] if hasattr(block, "attentions") else None
                copy_block(resnet, None if isinstance(attention, NoAttention) else attention, next(layers))
            for resample in getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or []:
                layer = next(layers)
                assert layer.resample is not None
                copy_block(resample, None, layer)
        assert next(layers, None) is None
    copy_block(theirs.mid_block.resnets[0], theirs.mid_block.attentions[0], ours.middle[0])
    copy_block(theirs.mid_block.resnets[1], None, ours.middle[1])
    copy(theirs.conv_norm_out, ours.norm)
    copy(theirs.conv_out, ours.output)


def test_ddpmpp_equals_diffusers_with_the_same_weights():
    torch.manual_seed(0)
    theirs = diffusers_ddpmpp(8)
    config = EdmConfig(channels=8, multipliers=[1, 2, 2], blocks=2)
    ours = build_denoiser(config, channels=3, resolution=32).eval()
    copy_ddpmpp(theirs, ours)
    x, t = torch.randn(3, 3, 32, 32), torch.tensor([-1.5, 0.3, 1.1])
    with torch.no_grad():
        expected, found = theirs(x, t).sample, ours(x, t)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_resampling_equals_the_fir_filters_of_song_et_al(taps):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12, 12)
    torch.testing.assert_close(Resample("down", taps)(x), downsample_2d(x, kernel=taps))
    torch.testing.assert_close(Resample("up", taps)(x), upsample_2d(x, kernel=taps))
