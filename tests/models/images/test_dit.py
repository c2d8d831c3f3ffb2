"""The diffusion transformer against a plain float64 computation and the published sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from policy_accel.errors import UserError
from policy_accel.models import build_denoiser
from policy_accel.models.images import DitConfig


@pytest.mark.parametrize(
    ("depth", "width", "heads", "published"),
    [(12, 384, 6, 32_963_360), (12, 768, 12, 130_512_416), (28, 1152, 16, 675_129_632)],
)
def test_published_nets_have_the_published_sizes(depth, width, heads, published):
    """S/2, B/2 and XL/2 at 4 x 32 x 32 with 1,000 classes ("33 M", "130 M", "675 M").

    The published counts include what is not here: a variance for each output (learned sigma), a row of its own for
    the null class (here the zero row), and the fixed position table (here a buffer).
    """
    with torch.device("meta"):
        net = build_denoiser(
            DitConfig(patch=2, depth=depth, width=width, heads=heads), channels=4, resolution=32, condition_dim=1000
        )
    variances = 2 * 2 * 4 * (width + 1)
    null_class = width
    positions = 16 * 16 * width
    assert sum(p.numel() for p in net.parameters()) + variances + null_class + positions == published


def reference(weights: dict[str, np.ndarray], x: np.ndarray, t: float, condition: np.ndarray, heads: int) -> np.ndarray:
    """The network in loops over patches and heads: x [C, H, W] -> [C, H, W] float64."""

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def silu(value: np.ndarray) -> np.ndarray:
        return value / (1.0 + np.exp(-value))

    def norm(value: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
        centred = value - value.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * (1.0 + scale) + shift

    kernel = weights["input.weight"]
    width, channels, patch, _ = kernel.shape
    side = x.shape[1] // patch
    tokens = np.zeros((side * side, width))
    for row in range(side):
        for column in range(side):
            cut = x[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            place = []
            for where in (column, row):
                angles = [where / 10_000 ** (k / (width // 4)) for k in range(width // 4)]
                place += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            tokens[row * side + column] = (kernel * cut).sum((1, 2, 3)) + weights["input.bias"] + np.array(place)
    angles = np.array([t / 10_000 ** (k / 128) for k in range(128)])
    time = linear("time.mix.2", silu(linear("time.mix.0", np.concatenate([np.cos(angles), np.sin(angles)]))))
    embedding = silu(time + weights["condition.weight"] @ condition)
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for index in range(depth):
        at = f"blocks.{index}"
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = np.split(linear(f"{at}.modulation", embedding), 6)
        q, k, v = np.split(linear(f"{at}.qkv", norm(tokens, shift_a, scale_a)), 3, axis=1)
        attended = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(width // heads))
            attended.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        tokens = tokens + gate_a * linear(f"{at}.out", np.concatenate(attended, axis=1))
        hidden = linear(f"{at}.mlp.0", norm(tokens, shift_m, scale_m))
        hidden = 0.5 * hidden * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + gate_m * linear(f"{at}.mlp.2", hidden)
    pixels = linear("output", norm(tokens, *np.split(linear("modulation", embedding), 2)))
    image = np.zeros_like(x)
    for row in range(side):
        for column in range(side):
            cut = pixels[row * side + column].reshape(patch, patch, channels).transpose(2, 0, 1)
            image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = cut
    return image


def test_equals_the_plain_computation():
    torch.manual_seed(0)
    config = DitConfig(patch=2, depth=2, width=16, heads=2, mlp_ratio=3)
    net = build_denoiser(config, channels=3, resolution=8, condition_dim=5)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x, t, condition = torch.randn(2, 3, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5)
    found = net(x, t, condition).detach().double().numpy()
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}
    for i in range(2):
        expected = reference(weights, x[i].double().numpy(), float(t[i]), condition[i].double().numpy(), heads=2)
        assert expected.std() > 0.1
        np.testing.assert_allclose(found[i], expected, atol=2e-4)


def test_weights_start_as_published():
    torch.manual_seed(0)
    net = build_denoiser(DitConfig(depth=2, width=64, heads=2), channels=4, resolution=8, condition_dim=50)
    assert not net(torch.randn(2, 4, 8, 8), torch.tensor([3, 900])).any()
    assert not any(block.modulation.weight.any() for block in net.blocks)
    for weight, deviation in (
        (net.input.weight, math.sqrt(2 / (64 + 16))),
        (net.time.mix[0].weight, 0.02),
        (net.condition.weight, 0.02),
        (net.blocks[0].qkv.weight, math.sqrt(2 / (64 + 192))),
    ):
        assert weight.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patch": 3}, "model.patch=3 does not divide the image's side of 32 pixels"),
        ({"heads": 5}, "model.width=384 must be divisible by model.heads=5 and by 4"),
        ({"width": 6, "heads": 1}, "model.width=6 must be divisible by"),
        ({"depth": 0}, "model.depth=0 must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        build_denoiser(DitConfig(**settings), channels=3, resolution=32)
