"""Image networks that train in fp16 beside float32, and the presets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.runs import training_rows

from policy_accel.images.config import ImageConfig
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT


@pytest.mark.parametrize("model", ["edm", "adm", "edm2", "dit"])
def test_fp16_trains_as_float32(model: str, tiny_images: Callable[..., ImageConfig], tmp_path: Path) -> None:
    weights, losses = {}, {}
    for precision in ("fp32", "fp16"):
        config = tiny_images(
            f"model={model}",
            "method=edm",
            f"training.precision={precision}",
            "training.steps=3",
            "training.validate_every=0",
            "evaluation.samples=0",
            f"run_dir={tmp_path / precision}",
        )
        IMAGES.train(config)
        rows = training_rows(Path(config.run_dir))
        losses[precision] = torch.tensor([row["loss"] for row in rows])
        assert ("loss_scale" in rows[-1]) == (precision == "fp16")
        trained = load_file(Path(config.run_dir) / "checkpoints" / "last" / "model.safetensors")
        weights[precision] = torch.cat([value.flatten() for value in trained.values()])
    assert not torch.equal(weights["fp16"], weights["fp32"])
    torch.testing.assert_close(losses["fp16"], losses["fp32"], rtol=2e-3, atol=0)
    assert float((weights["fp16"] - weights["fp32"]).abs().mean()) < 1e-4


def test_presets_win_over_recipes_and_settings_over_presets() -> None:
    for track, recipe in ((IMAGES, "edm_cifar10"), (ROBOT, "diffusion_policy")):
        plain, preset, older, mixed = (
            track.config([f"recipe={recipe}", *more]).training
            for more in ([], ["training=h100"], ["training=v100"], ["training.compile=false", "training=h100"])
        )
        assert (plain.precision, plain.matmul_precision, plain.compile) == ("fp32", "highest", False)
        assert (preset.precision, preset.matmul_precision, preset.compile) == ("bf16", "high", True)
        assert preset.channels_last == older.channels_last == "true"
        assert (older.precision, older.compile) == ("fp16", False)
        assert (mixed.precision, mixed.compile) == ("bf16", False)
        assert preset.steps == plain.steps
        assert preset.optimizer == plain.optimizer
