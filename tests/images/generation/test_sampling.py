from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import FlowProcess, Objective, SigmaProcess, vp_process
from policy_accel.errors import UserError
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.guidance import Guide
from policy_accel.images.generation.sampling import ImageSampler, ImageSamplingConfig

EDM = Objective(SigmaProcess("edm"), "edm")
LABELS = torch.tensor([1, 0, 2])


class Network:
    """Depends on the class and on the time, and counts the images that it is given at each time."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain, self.rows = gain, dict[float, int]()

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        self.rows[float(t[0])] = self.rows.get(float(t[0]), 0) + len(x)
        told = (
            0.0 if condition is None else (condition @ torch.arange(1.0, condition.shape[1] + 1))[:, None, None, None]
        )
        return torch.tanh(self.gain * x + told + 0.1 * t[:, None, None, None])


def images(network: Any, objective: Objective = EDM, *, labels: Tensor | None = LABELS, **changes: Any) -> Tensor:
    where = {name: changes.pop(name) for name in ("guide", "image", "strength") if name in changes}
    sampler = ImageSampler(objective, ImageSamplingConfig(**{"sampler": "ddim", "clip_sample": None} | changes))
    classes = 0 if labels is None else 3
    generator = ImageGenerator(
        network, (1, 2, 2), sampler, seed=1, classes=classes, condition_dim=classes, guide=where.pop("guide", None)
    )
    return generator.draw(range(3), labels, **where)


def evaluations(objective: Objective = EDM, strength: float = 1.0, **settings: Any) -> int:
    return ImageSampler(objective, ImageSamplingConfig(**settings)).network_evaluations(strength)


def test_guidance_is_on_above_the_lower_and_up_to_the_upper_noise_level() -> None:
    """By hand: DDIM steps with the predictions of the conditional model, guided at sigma 10 and 1 of four."""
    settings = {"times": [80.0, 10.0, 1.0, 0.1], "guidance": 3.0, "guidance_interval": [0.1, 10.0]}
    network = Network()
    found = images(network, **settings)
    level = SigmaProcess("edm").level
    told = [float(torch.tensor(level(sigma).time)) for sigma in settings["times"]]
    assert list(network.rows) == pytest.approx(told)
    assert list(network.rows.values()) == [3, 6, 6, 3]
    assert evaluations(**{"sampler": "ddim"} | settings) == 6
    plain = Network()
    condition = torch.eye(3)[LABELS]
    x = 80.0 * next(ImageGenerator(plain, (1, 2, 2), ImageSampler(EDM), seed=1).noise(range(3)))
    for sigma, to in zip(settings["times"], [10.0, 1.0, 0.1, 0.0], strict=True):
        t, total = torch.full((3,), torch.tensor(sigma).log().item() / 4), sigma**2 + 0.25
        seen = x / total**0.5
        prediction, null = plain(seen, t, condition), plain(seen, t, torch.zeros(3, 3))
        if sigma in (10.0, 1.0):
            prediction = null + 3.0 * (prediction - null)
        x0 = 0.25 / total * x + 0.5 * sigma / total**0.5 * prediction
        x = x0 + to * (x - x0) / sigma
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("objective", "settings", "strength", "expected"),
    [
        (EDM, {"sampler": "heun", "steps": 18, "guidance_interval": [0.28, 2.9]}, 1.0, 35 + 2 * 4),
        (Objective(FlowProcess(), "flow"), {"sampler": "euler", "steps": 4, "guidance_interval": [1.0, 1e9]}, 1.0, 5),
        (Objective(vp_process(), "v"), {"sampler": "ddpm", "steps": 10, "guidance_interval": [0.0, 0.4]}, 1.0, 12),
        (Objective(vp_process(), "v"), {"sampler": "ddpm", "steps": 10, "guidance_interval": [0.0, 0.4]}, 0.3, 5),
    ],
)
def test_evaluations_are_those_that_are_made(
    objective: Objective, settings: dict[str, Any], strength: float, expected: int
) -> None:
    """EDM's grid has 4 noise levels in the interval, and Heun's method asks at each from two steps."""
    network = Network()
    start = {} if strength == 1.0 else {"image": torch.zeros(3, 1, 2, 2), "strength": strength}
    images(network, objective, guidance=2.0, **settings, **start)
    assert sum(network.rows.values()) == 3 * evaluations(objective, strength, guidance=2.0, **settings)
    assert evaluations(objective, strength, guidance=2.0, **settings) == expected
    assert evaluations(objective, strength, **{**settings, "guidance_interval": None}) < expected


def test_a_worse_network_guides_in_place_of_the_null_class() -> None:
    good, bad, alone = Network(), Network(0.2), Network(0.2)
    guide = Guide(bad, 3, 3, {"run": "earlier"})
    settings: dict[str, Any] = {"steps": 1, "sampler": "euler"}
    found = images(good, guide=guide, guidance=2.5, **settings)
    better, worse = images(Network(), **settings), images(alone, **settings)
    torch.testing.assert_close(found, worse + 2.5 * (better - worse), rtol=1e-4, atol=1e-4)
    assert (sum(good.rows.values()), sum(bad.rows.values())) == (3, 3)
    assert evaluations(steps=1, sampler="euler", guidance=2.5) == 2
    only = Network()
    torch.testing.assert_close(images(only, guide=guide, guidance=0.0, **settings), worse)
    assert not only.rows
    # Neither needs classes: the two may be unconditional, or the guide alone.
    unconditional = Guide(Network(0.2), 0, 0, {})
    images(Network(), labels=None, guide=unconditional, guidance=2.0, **settings)
    images(Network(), guide=unconditional, guidance=2.0, guidance_interval=[0.0, 90.0], **settings)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"guidance_interval": [3.0, 0.3]}, r"guidance_interval=\[3\.0, 0\.3\] must be two noise levels, the lower"),
        ({"guidance_interval": [0.3]}, "must be two noise levels"),
        ({"guidance_interval": [-1.0, 3.0]}, "must be two noise levels"),
        ({"guidance": 1.0, "guidance_interval": [0.3, 3.0]}, "has no effect at guidance 1"),
        ({"guidance_interval": [90.0, 100.0]}, r"none of the noise levels of the steps, 0\.002 to 80;"),
    ],
)
def test_intervals_without_sense(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ImageSampler(EDM, ImageSamplingConfig(**{"sampler": "ddim", "guidance": 2.0} | changes))


def test_what_asks_for_no_guidance_asks_for_no_interval() -> None:
    config = ImageSamplingConfig(guidance=2.0, guidance_interval=[0.3, 3.0])
    assert config.guided(1.0) == ImageSamplingConfig()
    assert config.guided(3.0).guidance_interval == [0.3, 3.0]
    assert config.distilled([1.0]).guidance_interval is None
