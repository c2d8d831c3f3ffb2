from __future__ import annotations

import torch
from torchvision.models import VisionTransformer

from policy_accel.models.encoders import EncoderConfig, ViTConfig
from policy_accel.models.encoders.vit import ViTEncoder


def reference(config: EncoderConfig, side: int) -> VisionTransformer:
    vit = config.vit
    return VisionTransformer(
        image_size=side,
        patch_size=vit.patch,
        num_layers=vit.depth,
        num_heads=vit.heads,
        hidden_dim=vit.dim,
        mlp_dim=int(vit.dim * vit.mlp_ratio),
        num_classes=config.feature_dim,
    )


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_default_has_the_parameters_of_vit_s():
    config = EncoderConfig(name="vit_small")
    with torch.device("meta"):
        ours, theirs = ViTEncoder(config, size=(84, 84), channels=3), reference(config, 84)
    assert parameters(ours) == parameters(theirs)
    assert sum(p.numel() for p in ours.blocks.parameters()) == 12 * 1_774_464  # ViT-S: 12 blocks of 12 dim^2 + 13 dim


def test_it_is_torchvisions_vision_transformer():
    config = EncoderConfig(name="vit_small", vit=ViTConfig(patch=21, dim=48, depth=3, heads=4, mlp_ratio=3.0))
    ours, theirs = ViTEncoder(config, size=(84, 84), channels=3).eval(), reference(config, 84).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    copies = {
        "class_token": ours.token,
        "conv_proj.weight": ours.patches.weight,
        "conv_proj.bias": ours.patches.bias,
        "encoder.pos_embedding": ours.position,
        "encoder.ln.weight": ours.norm.weight,
        "encoder.ln.bias": ours.norm.bias,
        "heads.head.weight": ours.head.weight,
        "heads.head.bias": ours.head.bias,
    }
    for i, block in enumerate(ours.blocks):
        prefix = f"encoder.layers.encoder_layer_{i}."
        layers = {
            "ln_1": block.norm1,
            "ln_2": block.norm2,
            "self_attention.out_proj": block.out,
            "mlp.0": block.mlp[0],
            "mlp.3": block.mlp[2],
        }
        for name, layer in layers.items():
            copies |= {f"{prefix}{name}.weight": layer.weight, f"{prefix}{name}.bias": layer.bias}
        copies |= {
            f"{prefix}self_attention.in_proj_weight": block.qkv.weight,
            f"{prefix}self_attention.in_proj_bias": block.qkv.bias,
        }
    theirs.load_state_dict(copies)
    images = torch.rand(3, 3, 84, 84) * 2 - 1
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
