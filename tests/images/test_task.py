from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.batches import batch_of
from support.simulated_cuda import CUDA, SimulatedCuda

from policy_accel.data.images import ImageSet, read_images
from policy_accel.data.images.subset import is_mapped
from policy_accel.diffusion import Batch
from policy_accel.errors import UserError
from policy_accel.images.config import ImageConfig
from policy_accel.images.sets import ImageTaskConfig, load_split
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.task import ImageTask
from policy_accel.images.track import IMAGES
from policy_accel.training.randomness import named_generator

Build = Callable[..., ImageConfig]
ROWS = torch.arange(48)


def task_of(config: ImageConfig) -> ImageTask:
    task = IMAGES.build(config)
    task.to(torch.device("cpu"))
    return task


def first_batch(config: ImageConfig, seed: int = 0) -> Batch:
    return batch_of(task_of(config), ROWS, named_generator(seed, "batch"))


def test_a_batch_holds_the_images_and_their_classes(tiny_images: Build, shapes: Path) -> None:
    batch = first_batch(tiny_images())
    real = read_images(shapes, "train")
    assert real is not None
    assert real.labels is not None
    assert torch.equal(batch.x0, torch.from_numpy(real.images).float() / 127.5 - 1)
    assert batch.condition is not None
    assert torch.equal(batch.condition.argmax(1), torch.from_numpy(real.labels))
    assert torch.equal(batch.condition.sum(1), torch.ones(48))


@pytest.mark.parametrize("residence", ["device", "disk"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_images_keep_their_classes_in_any_order(tiny_images: Build, shapes: Path, part: str, residence: str) -> None:
    real, rows = read_images(shapes, part), torch.tensor([7, 0, 23, 7, 11])
    assert real is not None
    assert real.labels is not None
    task = task_of(tiny_images(f"task.residence={residence}"))
    batch = batch_of(task, rows, named_generator(0, "batch")) if part == "train" else task.validation_batch(rows)
    assert torch.equal(batch.x0, torch.from_numpy(real.images[rows.numpy()]).float() / 127.5 - 1)
    assert batch.condition is not None
    assert torch.equal(batch.condition, torch.eye(8)[torch.from_numpy(real.labels[rows.numpy()])])
    assert len(set(real.labels[rows.numpy()].tolist())) > 1


def test_validation_images_are_the_first_held_out_ones(tiny_images: Build, shapes: Path) -> None:
    real = read_images(shapes, "test")
    assert real is not None
    task = task_of(tiny_images("task.validation_images=5", "task.label_dropout=0.9", "task.augmentation=flip"))
    assert task.validation_samples == 5
    batch = task.validation_batch(torch.arange(5))
    assert torch.equal(batch.x0, torch.from_numpy(real.images[:5]).float() / 127.5 - 1)
    assert batch.condition is not None
    assert batch.condition.sum(1).tolist() == [1.0] * 5


def test_an_unconditional_model_gets_no_condition(tiny_images: Build) -> None:
    assert first_batch(tiny_images("task.conditional=false")).condition is None


def test_a_flip_mirrors_about_half_of_the_images(tiny_images: Build) -> None:
    plain, flipped = first_batch(tiny_images()).x0, first_batch(tiny_images("task.augmentation=flip")).x0
    same = (plain == flipped).flatten(1).all(1)
    mirrored = (plain.flip(3) == flipped).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 10 < int(mirrored.sum()) < 38


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.8])
def test_dropped_labels_are_the_null_class(tiny_images: Build, dropout: float) -> None:
    task, rows = task_of(tiny_images(f"task.label_dropout={dropout}")), ROWS.repeat(100)
    condition = batch_of(task, rows, named_generator(0, "batch")).condition
    whole = first_batch(tiny_images()).condition
    assert condition is not None
    assert whole is not None
    kept = condition.sum(1)
    assert set(kept.tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(1 - dropout, abs=4 * 0.5 / len(rows) ** 0.5)
    assert torch.equal(condition[kept == 1], whole[rows][kept == 1])


def test_the_model_is_told_how_an_image_was_augmented(tiny_images: Build) -> None:
    config = tiny_images("task.augmentation=edm", "task.augmentation_probability=0.5")
    task = task_of(config)
    batch = batch_of(task, ROWS, named_generator(0, "batch"))
    assert batch.condition is not None
    assert batch.condition.shape == (48, 8 + 9)
    assert (batch.condition[:, 8:] != 0).any()
    held = task.validation_batch(torch.arange(4)).condition
    assert held is not None
    assert not held[:, 8:].any()


def test_the_same_stream_gives_the_same_batch(tiny_images: Build) -> None:
    config = tiny_images("task.augmentation=edm", "task.label_dropout=0.3")
    one, again, other = (first_batch(config, seed) for seed in (0, 0, 1))
    assert torch.equal(one.x0, again.x0)
    assert torch.equal(one.condition, again.condition)
    assert not torch.equal(one.x0, other.x0)


def test_images_on_the_disk_give_the_same_batches(tiny_images: Build) -> None:
    near, far = (task_of(tiny_images(f"task.residence={where}")) for where in ("device", "disk"))
    assert near.resident
    assert not far.resident
    rows = torch.tensor([5, 0, 47, 5])
    one, other = (batch_of(task, rows, named_generator(0, "batch")) for task in (near, far))
    assert torch.equal(one.x0, other.x0)
    assert torch.equal(one.condition, other.condition)


@pytest.mark.parametrize(("free", "resident"), [(2**40, True), (1000, False)])
def test_images_are_resident_when_they_fit(
    free: int, resident: bool, tiny_images: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policy_accel.images.task.free_memory", lambda device: free)
    monkeypatch.setattr("policy_accel.images.task.PIECE", 20)
    task = IMAGES.build(tiny_images())
    with SimulatedCuda():
        task.train.to(CUDA, "auto")
        assert (task.train.resident is not None) is task.train.near is resident
        taken = task.train.take(ROWS)[0]
        assert taken.is_cuda
        assert np.array_equal(taken.cpu().numpy(), task.train.images.images)


def test_a_mapped_set_without_a_test_split_is_not_copied(
    tmp_path: Path, tiny_images: Build, pictures: Callable[..., np.ndarray]
) -> None:
    """Neither to hold some of it out, nor to leave some out, nor for the CPU, which has it already."""
    np.save(tmp_path / "latents.npy", pictures(30_000, 4).astype(np.float16))
    options = ["task.augmentation=none", "task.conditional=false", "task.limit=25000"]
    config = tiny_images(f"task.data={tmp_path / 'latents.npy'}", *options)
    tracemalloc.start()
    task = task_of(config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not task.resident
    assert peak < 25_000 * 4 * 64 * 2 / 2
    split = load_split(config.task)
    assert split.held_out is not None
    assert (len(split.train), len(split.held_out), split.whole) == (25_000, 3000, 30_000)
    assert is_mapped(split.train.images)
    whole = np.load(tmp_path / "latents.npy")
    both = np.concatenate([split.train.images, split.held_out.images])
    assert {row.tobytes() for row in both} <= {row.tobytes() for row in whole}
    assert np.array_equal(task.train.take(torch.tensor([3, 1]))[0], both[[3, 1]])


def test_labels_and_noise_stay_with_their_images(tiny_images: Build) -> None:
    """Assignment moves noise only: a well-known library permutes the noise and not the target."""
    for method in ("immiscible", "immiscible_classes", "immiscible_knn:acceleration.noise.candidates=8"):
        name, *own = method.split(":")
        task = task_of(tiny_images(f"method={name}", *own))
        batch = batch_of(task, ROWS, named_generator(0, "batch"))
        plain = batch_of(task_of(tiny_images()), ROWS, named_generator(0, "batch"))
        assert torch.equal(batch.x0, plain.x0)
        assert torch.equal(batch.condition, plain.condition)
        noised = task.objective.draw(batch, named_generator(0, "t"), named_generator(0, "n"))
        at = task.objective.process.coefficients(noised.t)
        alpha, sigma = (part.float().view(-1, 1, 1, 1) for part in (at.alpha, at.sigma))
        # The target is v = alpha eps - sigma x0 of this very sample: x0 = alpha x_t - sigma v.
        assert torch.allclose(alpha * noised.x_t - sigma * noised.target, batch.x0, atol=1e-4)


def test_noise_is_assigned_inside_the_classes(tiny_images: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    import policy_accel.acceleration.assigned_noise as choices

    asked = []
    original = choices.prepare_assignment

    def watch(*args: object, **options: object) -> object:
        asked.append(options.get("groups"))
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(choices, "prepare_assignment", watch)
    task = task_of(tiny_images("method=immiscible_classes"))
    batch = batch_of(task, ROWS, named_generator(0, "batch"))
    task.objective.draw(batch, named_generator(0, "t"), named_generator(0, "n"))
    assert batch.condition is not None
    assert torch.equal(asked[0], batch.condition.argmax(1))


def test_images_are_held_out_where_there_is_no_test_split(tmp_path: Path) -> None:
    write_images_npz(tmp_path / "a.npz", make_shapes(40, size=16, seed=0), None)
    config = ImageTaskConfig(data=str(tmp_path / "a.npz"), augmentation="none", held_out=0.25)
    split, again = load_split(config), load_split(config)
    assert split.held_out is not None
    assert again.held_out is not None
    assert (len(split.train), len(split.held_out)) == (30, 10)
    assert np.array_equal(split.held_out.images, again.held_out.images)
    both = np.concatenate([split.train.images, split.held_out.images]).reshape(40, -1)
    whole = read_images(tmp_path / "a.npz", "train")
    assert whole is not None
    assert {row.tobytes() for row in both} == {row.tobytes() for row in whole.images.reshape(40, -1)}
    config.split_seed = 1
    other = load_split(config).held_out
    assert other is not None
    assert not np.array_equal(other.images, split.held_out.images)
    config.held_out = 0.0
    everything = load_split(config)
    assert everything.held_out is None
    assert np.array_equal(everything.train.images, whole.images)


def test_subsets_of_a_cached_set_have_fingerprints_of_their_own() -> None:
    from policy_accel.images.sets import take

    images = ImageSet(np.zeros((4, 3, 8, 8), np.uint8), None, (), "x", key="abc")
    parts = [take(images, np.array(rows)) for rows in ([0, 1], [2, 3])]
    assert len({images.fingerprint(), *(part.fingerprint() for part in parts)}) == 3


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.label_dropout=0.1", "task.conditional=false"], "task.label_dropout=0.1 drops class labels"),
        (["task.label_dropout=1.0"], r"task.label_dropout=1.0 must lie in \[0, 1\)"),
        (["task.augmentation=rotate"], "task.augmentation 'rotate' is unknown"),
        (["task.residence=ram"], "task.residence 'ram' is unknown"),
        (["task.augmentation_probability=0.5"], "task.augmentation_probability=0.5 has no effect"),
        (["task.latent_scale=1.0"], "task.latent_scale=1.0 has no effect with pixels"),
        (["task.limit=1"], "task.limit=1 must be at least 2"),
        (["task.limit=1000"], "task.limit=1000 is more than the 48 training images"),
        (["task.held_out=1.0"], r"task.held_out=1.0 must lie in \[0, 1\); 0 trains on all images"),
        (["task.data=nowhere.npz"], "nowhere.npz"),
    ],
)
def test_settings_that_make_no_sense_are_named(overrides: list[str], sentence: str, tiny_images: Build) -> None:
    config = tiny_images(*overrides)
    with pytest.raises(UserError, match=sentence):
        load_split(config.task)


def test_classes_are_needed_where_they_are_asked_for(tmp_path: Path, tiny_images: Build) -> None:
    write_images_npz(tmp_path / "bare.npz", ImageSet(make_shapes(40, size=16, seed=0).images, None, (), "x"), None)
    bare = f"task.data={tmp_path / 'bare.npz'}"
    with pytest.raises(UserError, match=r"needs class labels, .* give images with labels, or train with"):
        load_split(tiny_images(bare).task)
    config = tiny_images(bare, "task.conditional=false", "method=immiscible_classes")
    with pytest.raises(UserError, match="name=assignment_in_groups assigns noise inside the classes"):
        IMAGES.build(config)
    config = tiny_images("task.conditional=false", "method=immiscible_c2ot", "acceleration.noise.condition_ratio=0.4")
    with pytest.raises(UserError, match="name=assignment_by_condition compares the classes"):
        IMAGES.build(config)
