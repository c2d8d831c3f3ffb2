from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.models.encoders import EncoderConfig, ObservationEncoder, ResNetConfig, ViTConfig

SMALL = {
    "resnet18": EncoderConfig(resnet=ResNetConfig(width=16, keypoints=8), feature_dim=10),
    "vit_small": EncoderConfig(name="vit_small", vit=ViTConfig(patch=28, dim=32, depth=2, heads=2), feature_dim=10),
}


def build(config: EncoderConfig, images: dict[str, tuple[int, int, int]] | None = None, state_dim: int = 3):
    torch.manual_seed(0)
    return ObservationEncoder(config, images=images or {"top": (96, 96, 3), "wrist": (96, 96, 3)}, state_dim=state_dim)


def observation(side: int = 96, batch: int = 3, steps: int = 2, state_dim: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, steps, side, side, 3)
    return {
        "state": torch.randn(batch, steps, state_dim, generator=generator),
        "top": torch.randint(256, shape, dtype=torch.uint8, generator=generator),
        "wrist": torch.randint(256, shape, dtype=torch.uint8, generator=generator),
    }


def test_parameter_count_of_the_reference():
    with torch.device("meta"):
        encoder = ObservationEncoder(EncoderConfig(), images={"image": (96, 96, 3)}, state_dim=2)
    assert sum(p.numel() for p in encoder.parameters()) == 11_197_088
    assert encoder.output_dim == 66


@pytest.mark.parametrize("name", list(SMALL))
def test_features_of_the_cameras_then_the_state(name):
    encoder, given = build(SMALL[name]), observation()
    found = encoder(given)
    assert (found.shape, found.dtype) == ((3, 2, encoder.output_dim), torch.float32)
    assert encoder.output_dim == 23
    torch.testing.assert_close(found[..., 20:], given["state"])
    for i, camera in enumerate(("top", "wrist")):
        frame = given[camera][1, 1, 6:90, 6:90].double().permute(2, 0, 1) / 255
        expected = encoder.networks[i]((2 * frame - 1).float()[None])[0]
        torch.testing.assert_close(found[1, 1, 10 * i : 10 * (i + 1)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(SMALL))
def test_cropped_frames_are_taken_as_they_are_and_whole_ones_in_the_centre(name):
    encoder, given = build(SMALL[name]), observation()
    cropped = {key: values if key == "state" else values[:, :, 6:90, 6:90] for key, values in given.items()}
    torch.testing.assert_close(encoder(cropped), encoder(given))
    elsewhere = {key: values if key == "state" else values[:, :, :84, :84] for key, values in given.items()}
    assert not torch.allclose(encoder(elsewhere), encoder(given), atol=1e-4)


def test_without_a_crop_the_whole_frame_counts():
    encoder = build(EncoderConfig(crop=None, resnet=ResNetConfig(width=16)))
    given, changed = observation(), observation()
    changed["top"][:, :, 0, 0] = 255 - changed["top"][:, :, 0, 0]
    assert not torch.equal(encoder(given), encoder(changed))
    with pytest.raises(ValueError, match="smaller"):
        encoder(observation(side=84))


def test_a_frame_does_not_depend_on_its_neighbours():
    encoder, given = build(SMALL["resnet18"]), observation()
    alone = {key: values[2:, 1:] for key, values in given.items()}
    torch.testing.assert_close(encoder(alone), encoder(given)[2:, 1:], rtol=1e-4, atol=1e-5)


def test_shared_cameras_use_one_network():
    config = EncoderConfig(share_cameras=True, resnet=ResNetConfig(width=16))
    shared, own = build(config), build(EncoderConfig(resnet=ResNetConfig(width=16)))
    assert 2 * sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in own.parameters())
    given = observation()
    found = shared(given)
    swapped = shared({"state": given["state"], "top": given["wrist"], "wrist": given["top"]})
    torch.testing.assert_close(found[..., :64], swapped[..., 64:128])
    with pytest.raises(UserError, match=r"cameras differ \(a 96 x 96 x 3, b 96 x 96 x 1\)"):
        build(config, {"a": (96, 96, 3), "b": (96, 96, 1)})


def test_cameras_of_different_frames_have_networks_of_their_own():
    encoder = build(SMALL["resnet18"], {"a": (96, 120, 1), "b": (84, 84, 4)}, state_dim=0)
    given = {
        "state": torch.zeros(2, 1, 0),
        "a": torch.zeros(2, 1, 96, 120, 1, dtype=torch.uint8),
        "b": torch.zeros(2, 1, 84, 84, 4, dtype=torch.uint8),
    }
    assert encoder(given).shape == (2, 1, 20)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("name", list(SMALL))
def test_compiles_whole_and_gradients_agree(name, share):
    config = EncoderConfig(**{**vars(SMALL[name]), "share_cameras": share})
    encoder, given = build(config), observation()
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    found = compiled(given)
    torch.testing.assert_close(found, encoder(given))
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("name", list(SMALL))
def test_bf16_autocast_stays_near_float32(name):
    encoder, given = build(SMALL[name]), observation()
    exact = encoder(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[..., 20:], given["state"], rtol=0, atol=0)
    assert (found - exact).abs().max() < 0.05 * exact[..., :20].abs().max()
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("name", list(SMALL))
def test_the_weights_follow_from_the_seed_and_load_again(name):
    encoder, other = build(SMALL[name]), build(SMALL[name])
    given = observation()
    assert torch.equal(encoder(given), other(given))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(given), other(given))
    assert isinstance(other, ObservationEncoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet"}, r"encoder\.name 'resnet' is unknown; did you mean 'resnet18'\?"),
        ({"crop": 97}, r"encoder\.crop=97 is larger than the frames of top, which are 96 x 96 px; use at most 96"),
        ({"crop": 0}, r"encoder\.crop=0 must be at least 1"),
        ({"feature_dim": 0}, r"encoder\.feature_dim=0 must be at least 1"),
        ({"resnet": ResNetConfig(width=24)}, r"group_channels=16 does not divide encoder\.resnet\.width=24"),
        ({"resnet": ResNetConfig(keypoints=0)}, r"encoder\.resnet\.keypoints=0 must be at least 1"),
        ({"vit": ViTConfig(depth=2)}, r"encoder\.vit\.depth=2 has no effect with encoder\.name=resnet18"),
        (
            {"name": "vit_small", "resnet": ResNetConfig(width=32)},
            r"encoder\.resnet\.width=32 has no effect with encoder\.name=vit_small",
        ),
        ({"name": "vit_small", "vit": ViTConfig(patch=16)}, r"patch=16 does not divide .* use one of 2, .*14, 21, 28"),
        ({"name": "vit_small", "vit": ViTConfig(heads=5)}, r"heads=5 does not divide encoder\.vit\.dim=384"),
        ({"name": "vit_small", "vit": ViTConfig(mlp_ratio=0.0)}, r"mlp_ratio=0\.0 must be positive"),
    ],
)
def test_unfit_settings_are_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        build(EncoderConfig(**changes))


def test_a_camera_needs_to_be_there_and_not_be_called_state():
    with pytest.raises(UserError, match=r"name task\.images"):
        ObservationEncoder(EncoderConfig(), images={}, state_dim=2)
    with pytest.raises(UserError, match="rename that camera"):
        build(EncoderConfig(), {"state": (96, 96, 3)})
