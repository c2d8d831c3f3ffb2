from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.moments import moments_of
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.errors import UserError
from policy_accel.images.metrics import CHEAP, MetricsConfig, Quality, score, table
from policy_accel.images.metrics.features import RandomConvFeatures
from policy_accel.images.metrics.frechet import frechet_distance
from policy_accel.images.metrics.image_batches import chosen_indices
from policy_accel.images.metrics.inception import ENVIRONMENT_VARIABLE
from policy_accel.images.metrics.measure import MANIFOLD
from policy_accel.images.metrics.neighbours import manifold_measures
from policy_accel.images.metrics.noise import uniform_noise

FULL = [*CHEAP, "precision", "recall", "density", "coverage"]


@pytest.fixture(autouse=True)
def _no_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def _discs(count: int, seed: int, size: int = 12, channels: int = 1) -> np.ndarray:
    """Bright discs and rings (half each) of varied place and radius on black."""
    random = np.random.default_rng(seed)
    place, radius = random.uniform(3.5, size - 4.5, (count, 2, 1, 1)), random.uniform(2, 4, (count, 1, 1))
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - place[:, 0], x - place[:, 1])
    edge = np.clip(radius - distance + 0.5, 0, 1)
    hole = np.clip(radius - 1.5 - distance + 0.5, 0, 1) * (random.random(count) < 0.5)[:, None, None]
    images = np.round((edge - hole) * 200 + random.uniform(0, 30, (count, 1, 1))).astype(np.uint8)
    return np.repeat(images[:, None], channels, axis=1)


def _quality(
    cache: Path,
    held_out: np.ndarray,
    reference: np.ndarray | None = None,
    *,
    device: torch.device | str = "cpu",
    **config: Any,
) -> Quality:
    return Quality(
        _discs(400, 1) if reference is None else reference,
        held_out,
        MetricsConfig(**{"neighbour_samples": 150, **config}),
        data_fingerprint=f"discs {None if reference is None else reference.shape}",
        device=device,
        cache_dir=cache,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def quality(cache: Path) -> Quality:
    return _quality(cache, _discs(200, 2))


def test_the_cheap_and_the_full_form_hold_what_they_promise(quality: Quality) -> None:
    samples = _discs(120, 3)
    cheap, full = quality.measure(samples, CHEAP), quality.measure(samples)
    assert sorted(cheap) == sorted(CHEAP)
    assert sorted(full) == sorted(FULL)
    assert json.loads(json.dumps(full)) == full
    assert all(cheap[name] == full[name] for name in CHEAP)
    for found in full.values():
        assert found["samples"] == found["floor_samples"] == 120
        assert found["value"] >= 0
        assert found["floor"] >= 0
    assert full["fd_random_conv"]["reference"] == full["fd_random_conv"]["floor_reference"] == 400
    assert full["precision"]["reference"] == 150
    assert full["precision"]["features"] == "random_conv"


def test_values_are_those_of_the_measures_themselves(quality: Quality, cache: Path) -> None:
    samples = _discs(120, 3)
    found = quality.measure(samples)
    extractor = RandomConvFeatures(1, 12)
    features, reference = extractor(torch.from_numpy(samples)), extractor(torch.from_numpy(_discs(400, 1)))
    expected = frechet_distance(moments_of(features), moments_of(reference))
    assert found["fd_random_conv"]["value"] == pytest.approx(expected, rel=1e-6)
    small = Quality(
        _discs(400, 1)[:100],
        _discs(200, 2),
        MetricsConfig(neighbours=3),
        data_fingerprint="first 100",
        device="cpu",
        cache_dir=cache,
    ).measure(samples[:90])
    manifold = manifold_measures(features[:90], reference[:100], 3)
    assert small["recall"]["value"] == pytest.approx(manifold["recall"], abs=0.011)
    assert small["density"]["value"] == pytest.approx(manifold["density"], abs=0.02)


def test_the_floor_is_the_value_of_the_held_out_images(quality: Quality) -> None:
    found = quality.measure(_discs(200, 2))
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(
        {name: one["floor"] for name, one in found.items()}, rel=1e-9
    )
    fewer = quality.measure(_discs(300, 3), CHEAP)["fd_random_conv"]
    assert (fewer["samples"], fewer["floor_samples"]) == (300, 200)


def test_where_no_image_is_held_out_distances_have_the_floor_of_a_part_of_the_training_set(cache: Path) -> None:
    """And there may be more samples than training images."""
    quality = Quality(
        _discs(60, 1), None, MetricsConfig(neighbours=3), data_fingerprint="60", device="cpu", cache_dir=cache
    )
    found = quality.measure(_discs(90, 3) // 2)
    one, features = found["fd_random_conv"], RandomConvFeatures(1, 12)(torch.from_numpy(_discs(60, 1)))
    part = chosen_indices(60, 30, "floor")
    halves = moments_of(features[part]), moments_of(torch.from_numpy(np.delete(features.numpy(), part, axis=0)))
    assert (one["samples"], one["floor_samples"], one["floor_reference"]) == (90, 30, 30)
    assert one["floor"] == pytest.approx(frechet_distance(*halves), rel=1e-6)
    assert score(found) == pytest.approx(one["floor"] / one["value"])
    assert {name for name, measure in found.items() if measure["floor"] is None} == {*FULL} - {"fd_random_conv"}
    assert " - " in table(found).splitlines()[len(found)]


def test_damage_and_copying_are_seen_and_good_samples_pass(quality: Quality) -> None:
    good = quality.measure(_discs(200, 3))
    assert score(good) > 0.5
    assert good["copies"]["value"] < 0.2
    noise = np.random.default_rng(0).integers(0, 80, (200, 1, 12, 12))
    noisy = quality.measure((_discs(200, 3) * 0.6 + noise).astype(np.uint8))
    assert score(noisy) < 0.1
    assert noisy["sliced_wasserstein"]["value"] > 3 * noisy["sliced_wasserstein"]["floor"]
    assert noisy["precision"]["value"] < 0.5 * noisy["precision"]["floor"]
    one_image = quality.measure(np.repeat(_discs(1, 3), 200, axis=0))
    assert one_image["recall"]["value"] == 0
    assert one_image["coverage"]["value"] < 0.2
    copied = _discs(400, 1)[::2]
    copied[::2] = copied[::2, :, :, ::-1]
    copies = quality.measure(copied)
    assert score(copies) > 0.9
    assert copies["copies"]["value"] == 1


def test_the_copy_threshold_is_the_quantile_of_the_training_images_own_distances(quality: Quality) -> None:
    found = quality.measure(_discs(150, 3), CHEAP)["copies"]
    images = _discs(400, 1).astype(np.float64)
    own = []
    for i, image in enumerate(images):
        others = np.delete(images, i, axis=0)
        both = [np.sqrt(((x - others) ** 2).mean((1, 2, 3))).min() for x in (image, image[..., ::-1])]
        own.append(min(both))
    assert found["quantile"] == 0.05
    assert (np.array(own) <= found["distance"]).mean() == pytest.approx(0.05, abs=0.05)
    assert 0 < found["floor"] < 0.2


def test_exact_copies_are_found_even_where_the_training_set_holds_duplicates(cache: Path) -> None:
    reference = np.repeat(_discs(40, 5), 2, axis=0)
    found = _quality(cache, _discs(30, 2), reference).measure(reference[:20], CHEAP)["copies"]
    assert found["distance"] == 0
    assert found["value"] == 1
    assert found["floor"] == 0


def test_results_repeat_and_do_not_depend_on_the_batches(cache: Path, quality: Quality) -> None:
    samples = _discs(120, 3)
    other = Quality(
        _discs(400, 1),
        _discs(200, 2),
        MetricsConfig(neighbour_samples=150, batch_size=37),
        data_fingerprint="other batches",
        device="cpu",
        cache_dir=cache,
    )
    first = quality.measure(samples)
    second = other.measure(samples)
    for name, found in first.items():
        assert second[name]["value"] == pytest.approx(found["value"], rel=1e-4), name
        assert second[name]["floor"] == pytest.approx(found["floor"], rel=1e-4), name


def test_a_resnet_adds_its_distance_and_judges_precision(
    cache: Path, tmp_path: Path, resnet_weights: Callable[[int], dict[str, np.ndarray]]
) -> None:
    np.savez(tmp_path / "w.npz", **resnet_weights(1))
    reference = _discs(60, 1, size=32)
    quality = _quality(cache, _discs(40, 2, size=32), reference, resnet=str(tmp_path / "w.npz"))
    found = quality.measure(_discs(30, 3, size=32))
    assert sorted(found) == sorted([*FULL, "fd_resnet8"])
    assert found["precision"]["features"] == "resnet8"
    assert "fd_resnet8" not in quality.measure(_discs(30, 3, size=32), CHEAP)


def test_a_device_measures_what_the_cpu_does(
    cache: Path, tmp_path: Path, resnet_weights: Callable[[int], dict[str, np.ndarray]]
) -> None:
    np.savez(tmp_path / "w.npz", **resnet_weights(1))

    def measured(place: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
        reference, held_out = _discs(60, 1, size=32), _discs(40, 2, size=32)
        quality = _quality(place, held_out, reference, device=device, resnet=str(tmp_path / "w.npz"))
        return quality.measure(_discs(30, 3, size=32))

    expected = measured(cache)
    with SimulatedCuda() as cuda:
        found = measured(tmp_path / "another cache", CUDA)
        assert cuda.launches["setup"]["convolution"] > 20
        assert not cuda.hazards
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        for figure in ("value", "floor"):
            assert found[name][figure] == pytest.approx(one[figure], rel=1e-4), f"{figure} of {name}"


def test_inception_is_asked_for_by_setting_or_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"inception=gone\.pth: is not a file"):
        _quality(cache, _discs(200, 2), inception="gone.pth")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "elsewhere.pth")
    with pytest.raises(UserError, match=r"inception=elsewhere\.pth: is not a file"):
        _quality(cache, _discs(200, 2))
    latents = np.zeros((40, 4, 8, 8), np.float32)
    _quality(cache, latents, latents)  # the variable is for images
    with pytest.raises(UserError, match=r"takes images with 1 or 3 channels, not float32 \(4, 8, 8\)"):
        _quality(cache, latents, latents, inception="elsewhere.pth")


def test_latents_are_measured_and_divergence_is_said(cache: Path) -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(200, 4, 8, 8)).astype(np.float16)
    quality = _quality(cache, latents[160:], latents[:160])
    samples = random.normal(size=(40, 4, 8, 8)).astype(np.float32)
    good = quality.measure(samples, CHEAP)
    assert score(good) > 0.8
    assert score(quality.measure(samples * 2, CHEAP)) < 0.6
    samples[7, 0, 3, 3] = np.nan
    with pytest.raises(UserError, match=r"NaN or infinite.*earlier checkpoint"):
        quality.measure(samples, CHEAP)


def test_counts_that_cannot_be_measured_are_refused(cache: Path, quality: Quality) -> None:
    with pytest.raises(UserError, match=r"evaluation\.samples=5: .*at least 6"):
        quality.measure(_discs(5, 3))
    assert quality.measure(_discs(5, 3), CHEAP)["fd_random_conv"]["samples"] == 5
    with pytest.raises(UserError, match=r"evaluation\.samples=1: .*at least 2"):
        quality.measure(_discs(1, 3), CHEAP)
    with pytest.raises(UserError, match=r"neighbours=5: the held-out set has 4 images"):
        _quality(cache, _discs(4, 2))
    with pytest.raises(UserError, match=r"neighbours=5: the training set has 5 images"):
        _quality(cache, _discs(50, 2), _discs(5, 1))


def test_images_of_another_kind_are_refused(cache: Path) -> None:
    with pytest.raises(UserError, match="held-out images are uint8"):
        _quality(cache, _discs(50, 2, size=14))
    with pytest.raises(UserError, match="12x10 pixels"):
        _quality(cache, _discs(50, 1)[..., :10], _discs(50, 2)[..., :10])


def test_some_measures_are_those_of_all_and_the_others_are_not_made(
    quality: Quality, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = _discs(120, 3)
    full = quality.measure(samples)
    assert quality.measure(samples, ["coverage", "copies"]) == {name: full[name] for name in ("copies", "coverage")}
    monkeypatch.setattr(quality, "_copies", None)
    monkeypatch.setattr("policy_accel.images.metrics.measure.frechet_distance", None)
    assert quality.measure(samples, ["recall"]) == {"recall": full["recall"]}
    assert quality.names == (*CHEAP, "precision", "recall", "density", "coverage")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fid", r"x: 'fid' needs the weights .* give evaluation\.metrics\.inception=PATH"),
        ("fd_resnet56", r"x: 'fd_resnet56' needs the weights .* give evaluation\.metrics\.resnet=PATH"),
        ("covrage", r"x: 'covrage' is no measure of these images; did you mean 'coverage'\?"),
    ],
)
def test_a_measure_that_cannot_be_taken_is_named(name: str, why: str, quality: Quality) -> None:
    quality.check_names(["coverage", "copies"], "x")
    with pytest.raises(UserError, match=why):
        quality.check_names(["coverage", name], "x")


@pytest.mark.parametrize(
    ("value", "floor", "better", "expected"),
    [
        (4, 1, "lower", 0.25),
        (0.5, 1, "lower", 1),
        (0, 0, "lower", 1),
        (0.25, 0, "lower", 0.8),
        (-1, -4, "lower", 0.25),
        (0.3, 0.6, "higher", 0.5),
        (0.7, 0.6, "higher", 1),
        (-4, -1, "higher", 0.25),
    ],
)
def test_the_score_is_the_better_the_nearer_a_measure_is_to_its_floor(
    value: float, floor: float, better: str, expected: float
) -> None:
    found = {"mine": {"value": value, "floor": floor, "better": better}}
    assert score(found, "mine") == pytest.approx(expected)
    assert score({"fd_random_conv": found["mine"]}) == pytest.approx(expected)


def test_the_table_shows_every_value_beside_its_floor(quality: Quality) -> None:
    found = quality.measure(_discs(300, 3))
    lines = table(found).splitlines()
    assert len(lines) == 1 + len(FULL) + 2
    for line, (name, one) in zip(lines[1:-2], found.items(), strict=True):
        words = line.split()
        assert words[0] == name
        assert [float(words[1]), float(words[2])] == pytest.approx([one["value"], one["floor"]], rel=1e-4, abs=1e-4)
        alike = (
            one["floor_samples"] == one["samples"]
            and one["floor"]
            and (name != "copies" or one["value"] > one["floor"])
        )
        assert words[3] == (f"{one['value'] / one['floor']:.2f}x" if alike else "-")
        assert words[4] == str(one["samples"])
    assert lines[-1].startswith("FEW REAL IMAGES: 200 for fd_random_conv, on features of 320 numbers.")
    assert lines[-1].endswith("hold out more.")
    assert table(quality.measure(_discs(20, 3), CHEAP)).endswith("draw more, and hold out as many.")


def test_a_value_and_a_floor_of_different_counts_have_no_ratio() -> None:
    one = {"value": 2.0, "floor": 1.0, "samples": 240, "better": "lower"}
    unlike = table({"fd": {**one, "floor_samples": 30}, "thinned": {**one, "samples": 20, "floor_samples": 20}})
    assert "2.00x" not in unlike.splitlines()[1]
    assert "2.00x" in unlike.splitlines()[2]
    assert "floors are of 30 real images and values of 240:" in unlike
    assert "take --samples 30, or hold out more (task.held_out=0.3)." in unlike
    assert "No ratio" not in table({"fd": {**one, "floor_samples": 240}})
    assert "No ratio" not in table({"fd": {**one, "floor": None, "floor_samples": None}})


def test_fewer_copies_than_real_images_hold_are_no_merit() -> None:
    one = {"floor": 0.02, "samples": 240, "floor_samples": 240, "better": "lower"}
    assert "x" not in table({"copies": {**one, "value": 0.0}}).splitlines()[1]
    assert "3.00x" in table({"copies": {**one, "value": 0.06}})


def test_measures_by_which_noise_does_as_well_are_named(quality: Quality, cache: Path) -> None:
    found = quality.measure(_discs(120, 3))
    assert {name for name, one in found.items() if "noise" in one} == {*MANIFOLD}
    noise = np.random.default_rng(5).integers(0, 256, (120, 1, 12, 12), dtype=np.uint8)
    measured = quality.measure(noise, MANIFOLD)
    assert found["precision"]["noise"] == pytest.approx(measured["precision"]["value"], abs=0.1)
    assert "NO USE HERE" not in table(found)
    noisy = np.random.default_rng(4).integers(0, 256, (300, 1, 12, 12), dtype=np.uint8)
    blind = table(_quality(cache, noisy[:100], noisy[100:]).measure(_discs(100, 3)))
    assert "NO USE HERE: precision and" in blind
    assert "copies" not in blind.splitlines()[-1]


@pytest.mark.parametrize(
    ("floor", "noise", "told"),
    [(1.0, 0.95, True), (1.2, 0.95, False), (None, 0.95, True), (None, 0.0, False), (None, 0.5, False)],
)
def test_noise_is_compared_with_real_images_and_not_with_poor_samples(
    floor: float | None, noise: float, told: bool
) -> None:
    one = {"value": 0.0, "floor": floor, "samples": 9, "floor_samples": 9, "better": "higher", "noise": noise}
    assert ("NO USE HERE: precision, by which images of pure noise get 0.95." in table({"precision": one})) == told
    assert ("NO USE" in table({"precision": one})) == told


def test_noise_is_of_the_kind_of_the_images() -> None:
    latents = np.linspace(-2, 3, 64, dtype=np.float16).reshape(1, 4, 4, 4)
    for like, low, high in ((_discs(5, 0), 0, 255), (latents, -2, 3)):
        found = uniform_noise(like, 50)
        assert (found.shape, found.dtype) == ((50, *like.shape[1:]), like.dtype)
        assert [found.min(), found.max()] == pytest.approx([low, high], abs=0.1)


def test_enough_real_images_are_no_matter_for_a_warning() -> None:
    one = {"value": 2.0, "floor": 1.0, "samples": 400, "better": "lower", "dimension": 320}
    assert "FEW" not in table({"fd_random_conv": {**one, "floor_samples": 320}})
    assert "FEW" in table({"fd_random_conv": {**one, "floor_samples": 319}})
    assert "FEW" not in table({"fd_random_conv": {**one, "floor": None, "floor_samples": None}})
