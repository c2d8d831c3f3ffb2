from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models import MLPConfig, ModelConfig, TransformerConfig, UnetConfig, build_denoiser
from policy_accel.models.embedding import SinusoidalEmbedding

SMALL_UNET = UnetConfig(down_dims=[16, 32], kernel_size=3, step_embedding_dim=16)
SMALL = {
    "unet": SMALL_UNET,
    "transformer": TransformerConfig(embedding_dim=32, layers=2, heads=4, attention_dropout=0.0),
    "mlp": MLPConfig(hidden_dims=[64, 64], step_embedding_dim=16),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(config: ModelConfig, condition_shape: tuple[int, int] | None = (2, 5), channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build_denoiser(config, channels=channels, horizon=16, condition_shape=condition_shape).eval()


def inputs(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 16, 3, generator=generator),
        torch.randint(100, (batch,), generator=generator),
        torch.randn(batch, 2, 5, generator=generator),
    )


@pytest.mark.parametrize(
    ("config", "channels", "condition_shape", "count"),
    [
        (UnetConfig(), 2, (2, 20), 65_783_298),
        (UnetConfig(), 22, None, 65_245_718),
        (TransformerConfig(), 2, (2, 20), 8_965_122),
    ],
)
def test_parameter_counts_of_the_reference(
    config: ModelConfig, channels: int, condition_shape: tuple[int, int] | None, count: int
) -> None:
    with torch.device("meta"):
        assert parameters(build(config, condition_shape, channels)) == count


@pytest.mark.parametrize("name", list(SMALL))
def test_prediction_depends_on_every_input(name: str) -> None:
    model = build(SMALL[name])
    x, t, condition = inputs()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    prediction = model(x, t, condition)
    assert prediction.shape == x.shape
    for changed in ((x + 0.1, t, condition), (x, (t + 50) % 100, condition), (x, t, condition + 0.1)):
        assert not torch.allclose(model(*changed), prediction, atol=1e-5)


@pytest.mark.parametrize("name", list(SMALL))
def test_rows_of_a_batch_are_independent(name: str) -> None:
    model = build(SMALL[name])
    x, t, condition = inputs()
    torch.testing.assert_close(model(x, t, condition)[1:3], model(x[1:3], t[1:3], condition[1:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(SMALL))
def test_without_condition(name: str) -> None:
    x, t, _ = inputs()
    assert build(SMALL[name], None)(x, t).shape == x.shape


@pytest.mark.parametrize("name", list(SMALL))
def test_gradients_reach_every_parameter(name: str) -> None:
    model = build(SMALL[name])
    model(*inputs()).square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert missing == []


@pytest.mark.parametrize("name", list(SMALL))
def test_prediction_depends_on_each_number_that_is_told(name: str) -> None:
    model = build(SMALL[name])
    x, _, condition = inputs()
    told = torch.tensor([[1000.0, 0.0], [500.0, 1.0], [250.0, 2.0], [7.8125, 7.0]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        prediction = model(x, told, condition)
        for changed in (told + torch.tensor([100.0, 0.0]), told + torch.tensor([0.0, 1.0]), told.flip(1)):
            assert (prediction - model(x, changed, condition)).flatten(1).abs().amax(1).min() > 1e-5


def test_several_numbers_share_the_frequencies() -> None:
    both = SinusoidalEmbedding(12)(torch.tensor([[3.0, 50.0], [7.0, 1.0]]))
    first, second = (SinusoidalEmbedding(12)(torch.tensor(t)) for t in ([3.0, 7.0], [50.0, 1.0]))
    for place in range(12):
        assert torch.equal(both[:, place], (first if place % 6 % 2 == 0 else second)[:, place])


def test_sinusoidal_embedding_by_hand() -> None:
    embedding = SinusoidalEmbedding(4)(torch.tensor([3]))
    low = 3 * math.exp(-math.log(10_000))
    torch.testing.assert_close(embedding, torch.tensor([[math.sin(3), math.sin(low), math.cos(3), math.cos(low)]]))


@pytest.mark.parametrize("name", list(SMALL))
def test_no_network_reads_a_value_on_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each such read would wait for the device."""
    model, reads = build(SMALL[name]).train(), []
    for method in ("item", "__bool__", "__float__", "__int__", "cpu", "tolist"):
        original = getattr(Tensor, method)

        def watch(self: Tensor, *args: object, _name: str = method, _original: Any = original) -> object:
            reads.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(Tensor, method, watch)
    model(*inputs()).sum().backward()
    assert reads == []


def test_causal_transformer_does_not_look_ahead() -> None:
    x, t, condition = inputs()
    changed = x.clone()
    changed[:, 10:] += 1.0
    causal = build(SMALL["transformer"])
    assert torch.allclose(causal(x, t, condition)[:, :10], causal(changed, t, condition)[:, :10], atol=1e-6)
    free = build(TransformerConfig(embedding_dim=32, layers=2, heads=4, attention_dropout=0.0, causal=False))
    assert not torch.allclose(free(x, t, condition)[:, :10], free(changed, t, condition)[:, :10], atol=1e-6)


def test_causal_transformer_sees_observations_up_to_its_step() -> None:
    x, t, condition = inputs()
    later = condition.clone()
    later[:, 1] += 1.0
    model = build(SMALL["transformer"])
    assert torch.allclose(model(x, t, condition)[:, 0], model(x, t, later)[:, 0], atol=1e-6)
    assert not torch.allclose(model(x, t, condition)[:, 1], model(x, t, later)[:, 1], atol=1e-6)


def test_transformer_exempts_biases_norms_and_positions_from_weight_decay() -> None:
    model = build(SMALL["transformer"])
    exempt = model.no_weight_decay()
    assert {"position", "condition_position", "norm.weight", "head.bias"} <= exempt
    assert {"head.weight", "decoder.layers.0.self_attn.in_proj_weight", "input.weight"}.isdisjoint(exempt)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            UnetConfig(down_dims=[16, 32, 64, 128, 256, 512]),
            r"horizon=16 is not divisible by 32.*use policy\.horizon=32",
        ),
        (UnetConfig(down_dims=[]), r"down_dims is empty"),
        (UnetConfig(kernel_size=4), r"kernel_size=4 is even"),
        (UnetConfig(down_dims=[16, 20], groups=8), r"groups=8 does not divide model\.down_dims entry 20"),
        (TransformerConfig(embedding_dim=30, heads=4), r"heads=4 does not divide model\.embedding_dim=30"),
        (MLPConfig(hidden_dims=[]), r"hidden_dims is empty"),
        (ModelConfig(name="unett"), r"model\.name 'unett' does not go with these settings"),
        (UnetConfig(name="mlp"), r"model\.name 'mlp' does not go with these settings"),
        (UnetConfig(groups=0), r"model\.groups=0 must be at least 1"),
        (UnetConfig(step_embedding_dim=3), r"embedded in 3 dimensions; choose an even number"),
        (TransformerConfig(heads=0), r"model\.heads=0 must be at least 1"),
        (TransformerConfig(attention_dropout=1.5), r"model\.attention_dropout=1\.5 must lie in \[0, 1\)"),
        (MLPConfig(hidden_dims=[0]), r"model\.hidden_dims=\[0\] must be at least 1"),
    ],
)
def test_errors(config: ModelConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(config)
