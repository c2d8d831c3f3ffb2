from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from torch import Tensor

from policy_accel.errors import UserError
from policy_accel.models.encoders import Augmentation, AugmentationConfig, EncoderConfig
from policy_accel.models.encoders.augmentation import COLOURS, SHIFT, recoloured, shifted

SHAPES = {"top": (12, 16, 3), "wrist": (10, 10, 3)}


def frames(batch: int = 4, times: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        camera: torch.randint(256, (batch, times, *shape), dtype=torch.uint8, generator=generator)
        for camera, shape in SHAPES.items()
    }


def test_a_shift_is_a_crop_of_the_frame_padded_by_its_edge() -> None:
    given = frames()["top"]
    by = torch.tensor([[0, 0], [3, -2], [-3, 3], [1, 0]])
    found = shifted(given, by).numpy()
    for row, (down, right) in enumerate(by.tolist()):
        for time in range(2):
            padded = np.pad(given[row, time].numpy(), ((3, 3), (3, 3), (0, 0)), mode="edge")
            expected = padded[3 - down : 15 - down, 3 - right : 19 - right]
            assert np.array_equal(found[row, time], expected)


@pytest.mark.parametrize(
    "strengths", [(0.4, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 0.7, 0), (0, 0, 0, 0.5), (1.5, 1.2, 2.0, 0.3)]
)
def test_colours_change_as_torchvision_changes_them(strengths: tuple[float, ...]) -> None:
    given = frames(batch=6)["top"]
    given[0, 0, 0] = torch.tensor([[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0]] * 4)  # greys, and full chroma
    drawn = 2 * torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) - 1
    found = recoloured(given, drawn, strengths)  # type: ignore[arg-type]
    for row in range(6):
        for time in range(2):
            x = given[row, time].permute(2, 0, 1).float() / 255
            amounts = [strength * value for strength, value in zip(strengths, drawn[row].tolist(), strict=True)]
            x = reference.adjust_brightness(x, max(0, 1 + amounts[0]))
            x = reference.adjust_contrast(x, max(0, 1 + amounts[1]))
            x = reference.adjust_saturation(x, max(0, 1 + amounts[2]))
            x = reference.adjust_hue(x, amounts[3])
            expected = (255 * x).round().permute(1, 2, 0)
            difference = (found[row, time].float() - expected).abs()
            assert difference.max() <= 1, "rounding"
            assert (difference > 0).float().mean() < 0.01
    assert (found != given).float().mean() > 0.5


def test_all_frames_of_a_window_change_alike_and_every_camera_and_sample_otherwise() -> None:
    config = AugmentationConfig(shift=3, brightness=0.3, hue=0.2)
    augmentation = Augmentation(config, SHAPES)
    drawn = augmentation.draw(4, torch.Generator().manual_seed(0))
    assert (drawn[SHIFT].shape, drawn[COLOURS].shape) == ((4, 2, 2), (4, 2, 4))
    given = {camera: values[:, :1].expand(-1, 2, -1, -1, -1) for camera, values in frames().items()}
    found = augmentation(given, drawn)
    for camera in SHAPES:
        assert torch.equal(found[camera][:, 0], found[camera][:, 1])
        assert found[camera].dtype == torch.uint8
        assert not torch.equal(found[camera], given[camera])
    alone = augmentation(
        {camera: values[2:3] for camera, values in given.items()}, {k: v[2:3] for k, v in drawn.items()}
    )
    assert all(torch.equal(alone[camera], found[camera][2:3]) for camera in SHAPES)
    assert len({tuple(row) for row in drawn[COLOURS].flatten(0, 1).tolist()}) == 8
    apart = {name: numbers.flip(1) for name, numbers in drawn.items()}  # the cameras' numbers exchanged
    other = augmentation({camera: given[camera] for camera in SHAPES}, apart)
    for number, camera in enumerate(SHAPES):
        expected = shifted(given[camera], drawn[SHIFT][:, 1 - number])
        expected = recoloured(expected, drawn[COLOURS][:, 1 - number], config.colours)
        assert torch.equal(other[camera], expected)


def test_draws_are_uniform_over_what_they_may_be() -> None:
    augmentation = Augmentation(AugmentationConfig(shift=2, contrast=0.1), {"top": SHAPES["top"]})
    drawn = augmentation.draw(20_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn[SHIFT].flatten() + 2, minlength=5)
    assert len(counts) == 5
    assert ((counts - 8000).abs() < 400).all()
    colours = drawn[COLOURS]
    assert -1 <= colours.min() < -0.99
    assert 0.99 < colours.max() < 1
    assert colours.mean((0, 1)).abs().max() < 0.02


def test_what_is_off_draws_nothing_and_changes_nothing() -> None:
    augmentation, generator = Augmentation(AugmentationConfig(), SHAPES), torch.Generator().manual_seed(0)
    before = generator.get_state()
    drawn = augmentation.draw(4, generator)
    assert not drawn
    assert torch.equal(generator.get_state(), before)
    given = frames()
    assert all(torch.equal(values, given[camera]) for camera, values in augmentation(given, drawn).items())
    shifts = Augmentation(AugmentationConfig(shift=1), SHAPES).draw(4, generator)
    assert list(shifts) == [SHIFT]
    colours = Augmentation(AugmentationConfig(hue=0.1), SHAPES).draw(4, generator)
    assert list(colours) == [COLOURS]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shift": -1}, r"encoder\.augmentation\.shift=-1 must not be negative"),
        ({"saturation": -0.5}, r"encoder\.augmentation\.saturation=-0\.5 must not be negative"),
        ({"contrast": float("nan")}, r"encoder\.augmentation\.contrast=nan must not be negative"),
        ({"hue": 0.6}, r"encoder\.augmentation\.hue=0\.6 must be at most 0\.5"),
        ({"shift": 4}, r"encoder\.augmentation\.shift=4 shifts whole frames.*set encoder\.crop=null or shift=0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EncoderConfig(augmentation=AugmentationConfig(**settings)).check()


def test_frames_that_it_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"shift=10 is larger than the frames of wrist, which are 10 x 10 px"):
        Augmentation(AugmentationConfig(shift=10), SHAPES)
    with pytest.raises(UserError, match=r"changes red, green and blue, and frames of depth have 1 channels"):
        Augmentation(AugmentationConfig(brightness=0.1), {"depth": (8, 8, 1)})
    Augmentation(AugmentationConfig(shift=2), {"depth": (8, 8, 1)})
    EncoderConfig(crop=None, augmentation=AugmentationConfig(shift=4, hue=0.5)).check()
