"""Networks of diffusers."""

from __future__ import annotations

import torch
from diffusers import UNet2DModel


def unet(**settings) -> UNet2DModel:
    """The published CIFAR-10 architecture, small."""
    torch.manual_seed(0)
    net = UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": None,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "downsample_padding": 0,
            "norm_eps": 1e-6,
            "norm_num_groups": 4,
            **settings,
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()
