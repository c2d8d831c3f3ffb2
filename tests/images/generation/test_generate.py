from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.images import generate
from support.simulated_cuda import CUDA, SimulatedCuda
from torch import Tensor, nn

from policy_accel.diffusion import FlowProcess, Objective, SigmaProcess, vp_process
from policy_accel.errors import UserError
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.sampling import ImageSampler, ImageSamplingConfig

SHAPE = (2, 4, 4)


class Net(nn.Module):
    """A small random network that mixes pixels and takes a class."""

    def __init__(self, condition_dim: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = nn.Conv2d(2, 2, 3, padding=1)
            self.shift = nn.Linear(max(1, condition_dim), 2, bias=False)
        self.rows = 0
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.rows += len(x)
        shift = 0.0 if condition is None else self.shift(condition)[:, :, None, None]
        return torch.tanh(self.mix(x) + shift + (t.float() / 50).sin()[:, None, None, None])


def options(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "shape": SHAPE,
        "sampler": ImageSampler(Objective(vp_process(), "epsilon"), ImageSamplingConfig(steps=3)),
        "seed": 7,
    }
    return settings | changes


def sampler_of(name: str, **settings: Any) -> ImageSampler:
    return ImageSampler(PROCESSES[name], ImageSamplingConfig(**settings))


PROCESSES = {
    "ddpm": Objective(vp_process(), "v"),
    "scaled data": Objective(vp_process(), "v", data_scale=2.0),
    "edm": Objective(SigmaProcess("edm"), "edm"),
    "ve": Objective(SigmaProcess("ve"), "negative_epsilon"),
    "momentum": Objective(SigmaProcess("edm", "momentum"), "edm"),
    "flow": Objective(FlowProcess(), "flow"),
}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_an_image_follows_from_seed_and_index_alone(sampler: str) -> None:
    settings = options(sampler=sampler_of("edm", sampler=sampler, steps=4))
    everything = generate(Net(), indices=range(10), batch_size=10, **settings)
    assert everything.shape == (10, *SHAPE)
    assert everything.dtype == torch.float32
    for indices, batch_size in [(range(10), 3), ([9, 2, 4], 2), ([4], 1)]:
        some = generate(Net(), indices=indices, batch_size=batch_size, **settings)
        torch.testing.assert_close(some, everything[list(indices)], rtol=1e-4, atol=1e-5)
    distances = (everything[:, None] - everything[None]).abs().amax((2, 3, 4)) + torch.eye(10)
    assert float(distances.min()) > 1e-2
    other = generate(Net(), indices=range(10), **settings | {"seed": 8})
    assert float((other - everything).abs().amax((1, 2, 3)).min()) > 1e-2


def test_the_start_does_not_depend_on_the_sampler() -> None:
    """So that samplers and numbers of steps can be compared image by image."""
    starts = []
    for sampler in ("ddim", "ddpm"):
        generator = ImageGenerator(Net(), **options(sampler=sampler_of("ddpm", sampler=sampler, steps=3)))
        seen: list[Tensor] = []
        generator.draw([5, 6], watch=lambda number, x, seen=seen: seen.append(x))  # type: ignore[misc]
        starts.append(seen[0])
    assert torch.equal(*starts)


def test_noise_is_standard_normal_and_new_at_every_draw() -> None:
    draws = ImageGenerator(Net(), **options(shape=(3, 32, 32))).noise(range(30))
    first, second = next(draws), next(draws)
    assert float(first.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(first.std()) == pytest.approx(1.0, abs=0.02)
    pairs = torch.stack([first.flatten(), second.flatten(), first.roll(1, 0).flatten()])
    np.testing.assert_allclose(torch.corrcoef(pairs).numpy(), np.eye(3), atol=0.02)


def test_a_device_draws_the_noise_of_the_cpu_and_is_not_waited_for() -> None:
    expected = ImageGenerator(Net(), **options()).noise([3, 1, 8])
    with SimulatedCuda() as cuda:
        with cuda.phase("noise"):
            noise = ImageGenerator(Net(), device=CUDA, **options()).noise([3, 1, 8])
            draws = [next(noise) for _ in range(3)]
        assert not cuda.waits["noise"]
        assert all(draw.device == CUDA for draw in draws)
        for draw in draws:
            torch.testing.assert_close(draw.cpu(), next(expected))


@pytest.mark.parametrize(
    ("process", "sampler"),
    [("ddpm", "ddpm"), ("ddpm", "ddim"), ("edm", "heun"), ("flow", "euler"), ("ve", "dpm_solver++")],
)
def test_a_device_draws_the_images_of_the_cpu_and_is_not_waited_for(process: str, sampler: str) -> None:
    settings = options(sampler=sampler_of(process, sampler=sampler, steps=4, guidance=2.0), classes=3, condition_dim=3)
    kept = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    kept[..., :2] = True
    cases: list[dict[str, Any]] = [{}, {"image": torch.ones(2, *SHAPE), "keep": kept}]

    def drawn(net: Net, **where: Any) -> list[Tensor]:
        generator = ImageGenerator(net, **settings, **where)
        return [generator.draw([3, 1], torch.tensor([0, 2]), **case) for case in cases]

    expected = drawn(Net(3))
    with SimulatedCuda() as cuda:
        net = Net(3).to(CUDA)
        drawn(net, device=CUDA)  # tables that are made at a first call
        with cuda.phase("images"):
            found = drawn(net, device=CUDA)
        assert not cuda.waits["images"]
        assert not cuda.hazards
        for images, same in zip(found, expected, strict=True):
            torch.testing.assert_close(images.cpu(), same, rtol=1e-4, atol=1e-5)


class ExactGaussian:
    """The best denoiser of data N(mean, deviation^2) of every pixel, for the time told by EDM."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        sigma = (4.0 * t.double()).exp().view(-1, 1, 1, 1)
        state = x.double() * (sigma**2 + 0.25).sqrt()
        variance = self.deviation**2
        x0 = (variance * state + sigma**2 * self.mean) / (variance + sigma**2)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / (sigma**2 + 0.25).sqrt()
        return ((x0 - c_skip * state) / c_out).to(x.dtype)


@pytest.mark.parametrize(("sampler", "steps"), [("heun", 40), ("dpm_solver++", 60), ("ddpm", 400)])
def test_an_exact_denoiser_gives_the_distribution_of_the_data(sampler: str, steps: int) -> None:
    """Ancestral sampling with the small variance needs many steps for the spread."""
    settings = options(sampler=sampler_of("edm", sampler=sampler, steps=steps, clip_sample=None), shape=(1, 8, 8))
    images = generate(ExactGaussian(0.2, 0.4), indices=range(200), batch_size=64, **settings)
    assert float(images.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(images.std()) == pytest.approx(0.4, rel=0.04)


def test_network_evaluations_are_counted_with_guidance() -> None:
    labels = torch.tensor([0, 2, 1, 0])
    settings = options(classes=3, condition_dim=12)
    results = {}
    for weight, sampler, expected in [(1.0, "ddim", 3), (2.0, "ddim", 6), (0.0, "ddim", 3), (2.0, "euler", 6)]:
        guided = sampler_of("ddpm", sampler=sampler, steps=3, guidance=weight)
        net = Net(12)
        results[weight] = generate(net, indices=range(4), labels=labels, **settings | {"sampler": guided})
        assert net.rows == 4 * expected == 4 * guided.network_evaluations()
    assert sampler_of("edm", sampler="heun", steps=18, guidance=2.0).network_evaluations() == 70
    unconditional = generate(Net(12), indices=range(4), **settings | {"sampler": sampler_of("ddpm", steps=3)})
    torch.testing.assert_close(results[0.0], unconditional)
    assert float((results[1.0] - unconditional).abs().amax((1, 2, 3)).min()) > 1e-3


def test_labels_go_with_their_images_through_the_batches() -> None:
    labels = torch.tensor([0, 2, 1, 0, 2])
    settings = options(classes=3, condition_dim=3)
    together = generate(Net(3), indices=range(5), labels=labels, batch_size=5, **settings)
    apart = generate(Net(3), indices=range(5), labels=labels, batch_size=2, **settings)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)
    other = generate(Net(3), indices=[1], labels=torch.tensor([0]), **settings)
    assert float((other - together[1:2]).abs().max()) > 1e-3


def test_batches_stream() -> None:
    net = Net()
    batches = ImageGenerator(net, batch_size=3, **options()).batches(range(7))
    assert len(next(batches)) == 3
    assert net.rows == 9  # three images, three steps: nothing is drawn ahead
    assert [len(batch) for batch in batches] == [3, 1]


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_gives_bounded_images(name: str) -> None:
    images = generate(Net(), indices=range(3), **options(sampler=sampler_of(name, steps=3)))
    assert bool(torch.isfinite(images).all())
    assert float(images.abs().max()) <= 1.0 + 1e-6


def test_bf16_is_close_and_float32_comes_out() -> None:
    exact = generate(Net(), indices=range(4), **options())
    rounded = generate(Net(), indices=range(4), precision="bf16", **options())
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.1)


def test_no_gradients_are_kept() -> None:
    net = Net().requires_grad_(True)
    assert not generate(net, indices=range(2), **options()).requires_grad


@pytest.mark.parametrize(
    ("changes", "labels", "sentence"),
    [
        ({"sampler": sampler_of("ddpm", guidance=2.0)}, None, r"sampling\.guidance=2\.0 needs a model .* classes"),
        ({"sampler": sampler_of("ddpm", guidance=float("nan"))}, None, r"sampling\.guidance=nan must be finite"),
        (
            {"sampler": sampler_of("ddpm", guidance=2.0), "classes": 3, "condition_dim": 3},
            None,
            r"sampling\.guidance=2\.0 has no effect without labels",
        ),
        ({}, [0, 1], r"trained without classes"),
        ({"classes": 3, "condition_dim": 3}, [0, 3], r"label 3 is none"),
    ],
)
def test_errors(changes: dict[str, Any], labels: list[int] | None, sentence: str) -> None:
    given = None if labels is None else torch.tensor(labels)
    with pytest.raises(UserError, match=sentence):
        generate(Net(changes.get("condition_dim", 0)), indices=range(2), labels=given, **options(**changes))


def test_dropout_must_be_off() -> None:
    with pytest.raises(ValueError, match="training mode"):
        generate(Net().train(), indices=range(2), **options())


def test_guidance_goes_with_a_continuous_process() -> None:
    ImageSamplingConfig(guidance=2.0).check(SigmaProcess("edm"))
    ImageSamplingConfig(guidance=2.0).check_classes(10)
