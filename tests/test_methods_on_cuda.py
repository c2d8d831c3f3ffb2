"""Every method, network and way of training of both tracks on the simulated CUDA device, captured in graphs.

What they compute is compared with the same updates as they are on the CPU; nothing in an update may wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.images import track as images
from policy_accel.images.track import IMAGES
from policy_accel.policy import track as robot
from policy_accel.policy.track import ROBOT
from policy_accel.training.loop import order_of
from policy_accel.training.randomness import Generators
from policy_accel.training.update import Update

METHODS = [path.stem for path in sorted((Path(__file__).parents[1] / "configs" / "method").glob("*.yaml"))]
GROUPS = ["acceleration.noise.groups=4"]
LATER = ["acceleration.noise.start_score=null", "acceleration.noise.start_step=1"]
COMMON = ["training.precision=fp32", "training.steps=20", "training.batch_size=8", "training.optimizer.warmup_steps=2"]
SMALL = ["model=mlp", "model.hidden_dims=[16,16]", "model.step_embedding_dim=8"]
TINY_UNET = ["model.down_dims=[8,16]", "model.step_embedding_dim=8", "model.groups=4"]
ROBOT_NEEDS = {
    "immiscible_groups": GROUPS,
    "immiscible_classes": GROUPS,
    "everything": GROUPS,
    "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.3"],
    "immiscible_policy": LATER,
    "fdm_cap": ["diffusion.target=v"],
    "fdm_cap_only": ["diffusion.target=v"],
}
ROBOT_WAYS = {
    "unet": TINY_UNET,
    "transformer": ["model=transformer", "model.layers=1", "model.embedding_dim=16", "model.heads=2"],
    "inpainting": [*SMALL, "policy.conditioning=inpainting", "method=immiscible_denoiser"],
    "masked": [*SMALL, "task.mask_padding=true", "method=immiscible"],
    "masked, several times": [*SMALL, "task.mask_padding=true", "method=kl"],
    "bf16": [*TINY_UNET, "training.precision=bf16"],
    "clipped, averages": [
        *SMALL,
        "method=consistency",
        "training.optimizer.clip_grad_norm=0.1",
        "training.ema.half_life=100",
        "training.ema.lengths=[0.05,0.1]",
    ],
}
IMAGE_COMMON = [
    *COMMON,
    "recipe=images_small",
    "task=shapes",
    "task.limit=64",
    "training.batch_size=8",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.attention_resolutions=[12]",
    "model.heads=1",
    "training.ema.lengths=[]",
    "evaluation.samples=0",
    "evaluation.curve_samples=0",
    "evaluation.grid=0",
]
IMAGE_WAYS = {
    "assigned": ["method=immiscible"],
    "classes": ["method=immiscible_classes"],
    "compared classes": ["method=immiscible_c2ot", "acceleration.noise.condition_ratio=0.4"],
    "flow": ["method=flow"],
    "several times": ["method=kl"],
    "augmented, labels dropped": ["task.augmentation=edm", "task.label_dropout=0.2", "training.ema.lengths=[0.1]"],
    "on the host": ["task.residence=disk", "method=immiscible_classes"],
}


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Demonstrations and images are read once for all cases; one update warms up."""
    known: dict[str, Any] = {}

    def once(load: Callable[..., Any]) -> Callable[..., Any]:
        def loaded(*settings: Any) -> Any:
            key = f"{load.__name__}{settings!r}"
            if key not in known:
                known[key] = load(*settings)
            return known[key]

        return loaded

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((robot, "load_demonstrations"), (images, "load_split")):
            patch.setattr(module, name, once(getattr(module, name)))
        patch.setattr("policy_accel.training.graphs.WARM_UP", 1)
        yield


def updates(track: Any, config: Any, device: torch.device, *, captured: bool) -> Update:
    task = track.build(config)
    task.to(device)
    return Update(
        task,
        order_of(task, config.training, config.seed, device),
        config.training.optimizer,
        config.training.ema,
        steps=config.training.steps,
        generators=Generators(config.seed, device),
        precision=config.training.precision_on(device),
        captured=captured,
    )


def check(track: Any, overrides: list[str], tolerance: float = 1e-5) -> None:
    config = track.config(overrides)
    plain = updates(track, config, torch.device("cpu"), captured=False)
    steps = 6 if plain.feed.ahead else 4
    expected = [float(plain(step)[0]) for step in range(steps)]
    with SimulatedCuda() as cuda:
        update = updates(track, config, CUDA, captured=True)
        found = []
        for step in range(steps):
            with cuda.phase("update" if step == steps - 1 else "before"):
                loss, _ = update(step)
            found.append(float(loss.cpu()))
        assert found == pytest.approx(expected, rel=tolerance)
        assert not cuda.waits["update"]
        assert not cuda.hazards
        assert cuda.launches["update"]["graph"] == (2 if plain.task.objective.noise.on_host else 1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_robot_track(method: str) -> None:
    check(ROBOT, [*COMMON, *SMALL, "evaluation.episodes=0", f"method={method}", *ROBOT_NEEDS.get(method, [])])


@pytest.mark.parametrize("way", ROBOT_WAYS)
def test_other_ways_of_the_robot_track(way: str) -> None:
    check(ROBOT, [*COMMON, "evaluation.episodes=0", *ROBOT_WAYS[way]], tolerance=1e-2 if way == "bf16" else 1e-5)


@pytest.mark.parametrize("way", IMAGE_WAYS)
def test_ways_of_the_image_track(way: str) -> None:
    check(IMAGES, [*IMAGE_COMMON, *IMAGE_WAYS[way]])


@pytest.mark.parametrize(
    ("track", "overrides"),
    [
        (ROBOT, [*COMMON, *SMALL, "evaluation.episodes=0", "task.mask_padding=true", "task.val_ratio=0.02"]),
        (IMAGES, [*IMAGE_COMMON, "task.validation_images=12"]),
        (IMAGES, [*IMAGE_COMMON, "task.validation_images=12", "task.residence=disk"]),
    ],
)
def test_validation_does_not_wait(track: Any, overrides: list[str]) -> None:
    def losses(update: Update) -> list[torch.Tensor]:
        """Two, the first of which makes whatever is made at a first call."""
        task, place = update.task, update.feed.order.device
        parts = torch.arange(min(task.validation_samples, 12), device=place).split(8)
        found = []
        for phase in ("first", "validation"):
            with cuda.phase(phase):
                found.append(update.validation_loss((task.validation_batch(part) for part in parts), seed=3))
        return [loss.cpu() for loss in found]

    with SimulatedCuda() as cuda:
        found = losses(updates(track, track.config(overrides), CUDA, captured=True))
        assert not cuda.waits["validation"]
        assert not cuda.hazards
        expected = losses(updates(track, track.config(overrides), torch.device("cpu"), captured=False))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
