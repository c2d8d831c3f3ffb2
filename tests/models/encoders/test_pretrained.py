from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from support.pretrained import trained_resnet18, write_resnet18
from torch import Tensor, nn

from policy_accel.errors import UserError
from policy_accel.models.encoders import EncoderConfig, ObservationEncoder, ResNetConfig, ViTConfig
from policy_accel.models.encoders.pretrained import read_weights
from policy_accel.models.encoders.resnet import ResNetEncoder

FRAMES = {"image": (48, 48, 3)}


def encoder_of(path: Path, images: dict[str, tuple[int, int, int]] | None = None, **settings: Any):
    config = EncoderConfig(crop=None, weights=str(path), **settings)
    encoder = ObservationEncoder(config, images=images or FRAMES, state_dim=1)
    encoder.begin_with(read_weights(path))
    return encoder


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.pth"])
def test_the_trunk_sees_frames_as_torchvisions_network_does(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(write_resnet18(tmp_path / name), {"top": (48, 48, 3), "wrist": (48, 64, 3)}).double()
    reference = nn.Sequential(*list(copy.deepcopy(trained_resnet18()).double().children())[:-2])
    generator = torch.Generator().manual_seed(1)
    mean, deviation = (torch.tensor(v).double() for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    given: dict[str, Tensor] = {"state": torch.zeros(2, 1, 1)}
    for camera, width in (("top", 48), ("wrist", 64)):
        given[camera] = torch.randint(256, (2, 1, 48, width, 3), dtype=torch.uint8, generator=generator)
    seen: list[Tensor] = []
    for network in encoder.networks:
        assert isinstance(network, ResNetEncoder)
        network.trunk.register_forward_hook(lambda _module, _given, maps: seen.append(maps))
    encoder(given)
    for maps, camera in zip(seen, ("top", "wrist"), strict=True):
        normalised = (given[camera][:, 0].double() / 255 - mean) / deviation
        expected = reference(normalised.permute(0, 3, 1, 2))
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max()))


def test_its_parameters_are_the_convolutions_with_a_bias(tmp_path: Path) -> None:
    state = read_weights(write_resnet18(tmp_path / "resnet18.pth"))
    network = encoder_of(tmp_path / "resnet18.pth").networks[0]
    assert isinstance(network, ResNetEncoder)
    assert len(state) == 40
    assert {name: tensor.shape for name, tensor in network.trunk.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.trunk.state_dict().items())


def test_a_frozen_trunk_costs_no_gradient_and_the_rest_learns(tmp_path: Path) -> None:
    path = write_resnet18(tmp_path / "resnet18.pth")
    given = {"state": torch.zeros(2, 1, 1), "image": torch.zeros(2, 1, 48, 48, 3, dtype=torch.uint8)}
    for factor in (0.0, 0.1):
        encoder = encoder_of(path, lr_factor=factor)
        network = encoder.networks[0]
        assert isinstance(network, ResNetEncoder)
        recorded: list[bool] = []
        network.trunk.register_forward_hook(lambda _m, _g, maps, recorded=recorded: recorded.append(maps.requires_grad))
        encoder(given).square().sum().backward()
        assert recorded == [factor > 0]
        without = {name for name, p in encoder.named_parameters() if p.grad is None}
        assert without == (set(encoder.lr_factors()) if factor == 0 else set())
        assert set(encoder.lr_factors().values()) == {factor}
        assert set(encoder.lr_factors()) == {f"networks.0.trunk.{name}" for name in network.trunk.state_dict()}


def test_the_transformers_trunk_is_all_but_its_last_map() -> None:
    vit = ViTConfig(patch=24, dim=8, depth=1, heads=2)
    encoder = ObservationEncoder(
        EncoderConfig(name="vit_small", crop=None, vit=vit, lr_factor=0.5), images=FRAMES, state_dim=0
    )
    every = {name for name, _ in encoder.named_parameters()}
    assert every - set(encoder.lr_factors()) == {"networks.0.head.weight", "networks.0.head.bias"}


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = {**trained_resnet18().state_dict(), **changes}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


class Trap:
    """Runs code when it is unpickled."""

    ran: ClassVar[list[int]] = []

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return Trap.ran.append, (1,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: changed(**{"layer3.1.bn2.running_var": None}), r"layer3\.1\.bn2\.running_var is missing"),
        (
            lambda: changed(**{"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"conv1\.weight has shape \(64, 1, 7, 7\) instead of",
        ),
        (lambda: changed(**{"bn1.bias": torch.full((64,), torch.nan)}), r"bn1\.bias is not finite"),
        (lambda: changed(**{"bn1.running_var": torch.full((64,), -1.0)}), r"bn1\.running_var is negative"),
        (lambda: changed(**{"layer1.2.conv1.weight": torch.zeros(1)}), r"it has layer1\.2\.conv1\.weight too"),
        (lambda: {"state_dict": changed()}, "it is no dictionary of tensors"),
        (lambda: [1.0], "it is no dictionary of tensors"),
        (lambda: {**changed(), 1: torch.zeros(1)}, "it is no dictionary of tensors"),
        (lambda: changed(**{"bn1.bias": torch.zeros(64).to_sparse()}), r"bn1\.bias is no plain tensor"),
        (lambda: changed(**{"bn1.bias": torch.zeros(64, device="meta")}), r"bn1\.bias is no plain tensor"),
        (lambda: changed(**{"bn1.bias": torch.zeros(64, dtype=torch.complex64)}), r"bn1\.bias is no plain tensor"),
        (lambda: {"conv1.weight": Trap()}, r"it cannot be read \(not tensors alone\)"),
    ],
)
def test_other_tensors_are_refused(content: Callable[[], Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content(), path)
    with pytest.raises(UserError, match=rf"encoder\.weights={re.escape(str(path))} does not hold a ResNet-18: {said}"):
        read_weights(path)
    assert not Trap.ran


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = write_resnet18(tmp_path / f"weights{suffix}")
    whole = path.read_bytes()
    no_stack, no_memo = b"\x80\x020.", b"\x80\x02h\x05."  # what torch's reader answers with IndexError and KeyError
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not here</html>", no_stack, no_memo):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"does not hold a ResNet-18: it cannot be read .*; give torchvision's"):
            read_weights(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.weights=.*none\.pth is not a file; give torchvision's"):
        read_weights(tmp_path / "none.pth")


def test_left_out_tensors_need_not_be_there(tmp_path: Path) -> None:
    state = {
        name: tensor
        for name, tensor in changed().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    safetensors.torch.save_file(state, tmp_path / "trunk.safetensors")
    assert len(state) == 100
    assert len(read_weights(tmp_path / "trunk.safetensors")) == 40


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"resnet": ResNetConfig(width=8)}, r"width=8 does not fit encoder\.weights=w\.pth.* set .*width=64"),
        ({"resnet": ResNetConfig(group_channels=4)}, r"group_channels=4 has no effect with encoder\.weights"),
        ({"name": "vit_small"}, r"encoder\.weights=w\.pth is for encoder\.name=resnet18"),
        ({"lr_factor": -0.1}, r"encoder\.lr_factor=-0\.1 must not be negative"),
        ({"weights": None, "lr_factor": 0.0}, r"encoder\.lr_factor=0 freezes what encoder\.weights=null leaves"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EncoderConfig(**{"weights": "w.pth", **settings}).check()


def test_frames_without_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="red, green and blue, and these have 1"):
        encoder_of(write_resnet18(tmp_path / "w.pth"), {"depth": (48, 48, 1)})
