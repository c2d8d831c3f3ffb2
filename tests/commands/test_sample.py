from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import generate
from torch import Tensor

from policy_accel.cli import main
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.generation.guidance import Guide
from policy_accel.images.generation.pictures import to_uint8
from policy_accel.images.generation.sampling import ImageSamplingConfig
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES

SIZE = 16
CLASSES = 8


def train(folder: Path, *overrides: str) -> Path:
    write_images_npz(folder / "shapes.npz", make_shapes(40, size=SIZE, seed=0), make_shapes(16, size=SIZE, seed=1))
    settings = [
        "task=shapes",
        f"task.data={folder / 'shapes.npz'}",
        "model=ddpm",
        "model.channels=8",
        "model.multipliers=[1,2]",
        "model.blocks=1",
        "model.heads=1",
        "model.attention_resolutions=[]",
        "model.dropout=0.0",
        "training.steps=3",
        "training.batch_size=8",
        "training.evaluate_every=0",
        "training.validate_every=0",
        "training.device=cpu",
        "diffusion.timesteps=20",
        "sampling.steps=4",
        "evaluation.samples=0",
        "evaluation.curve_samples=0",
        "evaluation.grid=2",
        "evaluation.video=false",
    ]
    assert main(["train", *settings, f"run_dir={folder / 'run'}", *overrides]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    """A run of a class-conditional model, whose process and target are those of the unconditional one."""
    return train(tmp_path_factory.mktemp("classes"), "task.label_dropout=0.1")


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    return train(tmp_path_factory.mktemp("plain"), "task.conditional=false")


def sample(run_dir: Path, *arguments: str | Path) -> int:
    return main(["sample", str(run_dir), "--device", "cpu", *map(str, arguments)])


def expected(run_dir: Path, indices: range, labels: list[int] | None, **changes: Any) -> Tensor:
    loaded = IMAGES.load(run_dir)
    return to_uint8(
        generate(
            loaded.model,
            shape=(3, SIZE, SIZE),
            indices=indices,
            labels=None if labels is None else torch.tensor(labels),
            classes=len(loaded.classes),
            condition_dim=loaded.condition_dim,
            **{"seed": 0, "sampler": loaded.sampler} | changes,
        )
    )


def close(one: np.ndarray, other: Tensor) -> bool:
    """Equal but for rounding of the network in batches of another size."""
    return bool(np.abs(one.astype(int) - other.permute(0, 2, 3, 1).numpy()).max() <= 1)


def test_grid_and_record_are_written(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(run_dir, "--count", "16", "--output", tmp_path / "out") == 0
    assert str(tmp_path / "out" / "grid.png") in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["grid.png", "samples.json"]
    picture = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    cell = 4 * SIZE + 2
    assert picture.shape == (2 * cell + 2, CLASSES * cell + 2, 3)  # a column for each class
    images = expected(run_dir, range(16), [*range(8), *range(8)])
    shown = picture[2 + cell : 2 * cell : 4, 2 + cell : 2 * cell : 4]  # the second of the second row
    assert close(shown[None], images[9:10])
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    facts = {"step": 3, "count": 16, "seed": 0, "start": 0, "sampler": "ddim", "steps": 4, "network_evaluations": 4}
    assert facts.items() <= record.items()
    assert record["labels_in_turn"] == list(range(CLASSES))
    assert record["class_names"][0] == "circle"


def test_images_follow_from_seed_and_index(run_dir: Path, tmp_path: Path) -> None:
    """A later start with batches of another size goes on as one run would have."""
    labels = ("--labels", "ring,1,2")
    assert sample(run_dir, "--count", "5", *labels, "--npz", "--output", tmp_path / "a") == 0
    rest = ("--count", "2", "--start", "3", "--batch-size", "1", "--npz", "adm", "--png", "--output", tmp_path / "b")
    assert sample(run_dir, *labels, *rest) == 0
    with np.load(tmp_path / "a" / "samples.npz") as arrays:
        images, numbers = arrays["images"], arrays["labels"]
    assert numbers.tolist() == [3, 1, 2, 3, 1]
    assert close(images, expected(run_dir, range(5), [3, 1, 2, 3, 1]))
    with np.load(tmp_path / "b" / "samples.npz") as arrays:
        assert arrays["arr_1"].tolist() == [3, 1]
        assert close(arrays["arr_0"], torch.from_numpy(images[3:]).permute(0, 3, 1, 2))
    names = sorted(file.name for file in (tmp_path / "b" / "images").iterdir())
    assert names == ["000003.png", "000004.png"]
    png = np.asarray(Image.open(tmp_path / "b" / "images" / "000004.png"))
    np.testing.assert_array_equal(png, np.load(tmp_path / "b" / "samples.npz")["arr_0"][1])


def test_sampling_is_changed_by_the_arguments(run_dir: Path, tmp_path: Path) -> None:
    more = ["--guidance", "2.5", "--sampler", "dpm_solver++", "--sampling-steps", "6", "--spacing", "linspace"]
    assert sample(run_dir, "--count", "2", "--seed", "9", *more, "--npz", "--output", tmp_path / "out") == 0
    sampling = ImageSamplingConfig(sampler="dpm_solver++", steps=6, spacing="linspace", guidance=2.5)
    sampler = replace(IMAGES.load(run_dir).sampler, config=sampling)
    images = expected(run_dir, range(2), [0, 1], seed=9, sampler=sampler)
    assert close(np.load(tmp_path / "out" / "samples.npz")["images"], images)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert (record["sampler"], record["guidance"], record["network_evaluations"]) == ("dpm_solver++", 2.5, 12)


def test_another_run_guides(run_dir: Path, unconditional: Path, tmp_path: Path, capsys: Any) -> None:
    """An unconditional one here: worse than the conditional one, and not trained with it."""
    asked = ("--guide", unconditional, "--guidance", "3", "--guidance-interval", "0.5,1e6", "--count", "3", "--npz")
    assert sample(run_dir, *asked, "--output", tmp_path / "out") == 0
    sampling = ImageSamplingConfig(steps=4, guidance=3.0, guidance_interval=[0.5, 1e6])
    sampler, worse = replace(IMAGES.load(run_dir).sampler, config=sampling), IMAGES.load(unconditional)
    guide = Guide(worse.model, 0, 0, {})
    images = expected(run_dir, range(3), [0, 1, 2], sampler=sampler, guide=guide)
    assert close(np.load(tmp_path / "out" / "samples.npz")["images"], images)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["guide"] == {"run": str(unconditional), "step": 3, "average": "ema", "evaluations": 3}
    assert (record["network_evaluations"], record["guidance_interval"]) == (4 + 3, [0.5, 1e6])
    assert sample(unconditional, "--guide", run_dir, "--guidance", "2", "--output", tmp_path / "other") == 2
    assert "it knows 8 classes, which are not the 0 of the other" in capsys.readouterr().err


def test_images_are_shown_by_class(run_dir: Path, tmp_path: Path) -> None:
    """The images are those of --count; a row of grid.png has a class, after its name, and every class a picture."""
    assert sample(run_dir, "--labels", "star,ring", "--per-class", "3", "--npz", "--output", tmp_path / "out") == 0
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        images, numbers = arrays["images"], arrays["labels"]
    star, ring = numbers[:2]
    assert numbers.tolist() == [star, ring] * 3
    assert close(images, expected(run_dir, range(6), numbers.tolist()))
    cell = 4 * SIZE + 2
    shown = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    left = shown.shape[1] - (3 * cell + 2)
    assert shown.shape[0] == 2 * cell + 2
    assert left > 20  # of the names
    assert [bool((shown[row * cell : (row + 1) * cell, :left] < 128).any()) for row in range(2)] == [True, True]
    for row, column in np.ndindex(2, 3):
        top, edge = 2 + row * cell, left + 2 + column * cell
        np.testing.assert_array_equal(shown[top : top + 64 : 4, edge : edge + 64 : 4], images[2 * column + row])
    names = sorted(file.name for file in (tmp_path / "out" / "classes").iterdir())
    assert names == sorted([f"{star}_star.png", f"{ring}_ring.png"])


def test_the_times_of_the_steps_are_asked_for_and_recorded(run_dir: Path, tmp_path: Path) -> None:
    asked = ["--sampler", "ddpm", "--sampling-times", "19,5,5"]
    assert sample(run_dir, "--count", "2", "--seed", "9", *asked, "--npz", "--output", tmp_path / "out") == 0
    sampler = replace(IMAGES.load(run_dir).sampler, config=ImageSamplingConfig(sampler="ddpm", times=[19, 5, 5]))
    images = expected(run_dir, range(2), [0, 1], seed=9, sampler=sampler)
    assert close(np.load(tmp_path / "out" / "samples.npz")["images"], images)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert [record[name] for name in ("times", "steps", "spacing", "network_evaluations")] == [[19, 5, 5], 3, None, 3]


def test_folders_are_numbered_and_never_overwritten(
    unconditional: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(unconditional, "--count", "2") == 0
    assert sample(unconditional, "--count", "2", "--video") == 0
    generated = unconditional / "generated"
    assert sorted(path.name for path in generated.iterdir()) == ["001", "002"]
    assert (generated / "002" / "forming.mp4").stat().st_size > 500
    (tmp_path / "out").mkdir()
    assert sample(unconditional, "--count", "2", "--output", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def picture(path: Path, *, size: int = SIZE, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_pictures_are_edited(unconditional: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    first, second = (np.asarray(Image.open(picture(folder / f"{i}.png", seed=i))) for i in range(2))
    weak = ("--edit", folder, "--strength", "0.25", "--npz", "--output", tmp_path / "weak")
    assert sample(unconditional, *weak) == 0
    images = np.load(tmp_path / "weak" / "samples.npz")["images"].astype(int)
    assert images.shape == (2, SIZE, SIZE, 3)
    assert np.abs(images[0] - first).mean() < 0.5 * np.abs(images[0] - second).mean()
    assert np.abs(images[1] - second).mean() < 0.5 * np.abs(images[1] - first).mean()
    record = json.loads((tmp_path / "weak" / "samples.json").read_text())
    assert (record["strength"], record["network_evaluations"], record["edit"]) == (0.25, 1, str(folder))
    assert (tmp_path / "weak" / "given.png").is_file()
    # More images than pictures: variants, which differ by their noise.
    assert sample(unconditional, "--edit", folder, "--count", "4", "--npz", "--output", tmp_path / "half") == 0
    variants = np.load(tmp_path / "half" / "samples.npz")["images"].astype(int)
    assert np.abs(variants[2] - variants[0]).mean() > 2
    assert np.abs(variants[0] - first).mean() > np.abs(images[0] - first).mean()


def test_a_part_of_a_picture_is_painted(run_dir: Path, tmp_path: Path) -> None:
    given = picture(tmp_path / "given.png")
    arguments = ("--inpaint", given, "--mask", "4,2,12,9", "--labels", "star", "--count", "3", "--npz")
    assert sample(run_dir, *arguments, "--output", tmp_path / "out") == 0
    images = np.load(tmp_path / "out" / "samples.npz")["images"]
    changed = (images != np.asarray(Image.open(given))).any(axis=3)
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[2:9, 4:12] = True
    assert not changed[:, ~inside].any()
    assert changed[:, inside].mean() > 0.9
    again = (*arguments, "--sampler", "ddpm", "--resamplings", "3", "--output", tmp_path / "again")
    assert sample(run_dir, *again) == 0
    assert json.loads((tmp_path / "again" / "samples.json").read_text())["network_evaluations"] == 12


def test_ctrl_c_keeps_what_is_complete(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = ImageGenerator.draw
    calls = []

    def interrupted(self: ImageGenerator, *arguments: Any, **options: Any) -> Tensor:
        calls.append(arguments)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return draw(self, *arguments, **options)

    monkeypatch.setattr(ImageGenerator, "draw", interrupted)
    stop_at = 3
    arguments = ("--count", "9", "--batch-size", "2", "--npz")
    assert sample(run_dir, *arguments, "--output", tmp_path / "some") == 130
    assert "stopped after 4 of 9; go on with --start 4" in capsys.readouterr().err
    with np.load(tmp_path / "some" / "samples.npz") as arrays:
        assert close(arrays["images"], expected(run_dir, range(4), [0, 1, 2, 3]))
        assert arrays["labels"].tolist() == [0, 1, 2, 3]
    assert json.loads((tmp_path / "some" / "samples.json").read_text())["count"] == 4
    calls.clear()
    stop_at = 1
    assert sample(run_dir, *arguments, "--output", tmp_path / "none") == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "0"], "--count 0 must be at least 1"),
        (["--start", "-1"], "--start -1 must be at least 0"),
        (["--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["--labels", "8"], "label 8 is none of the model's 8 classes; choose 0 to 7"),
        (["--labels", "squar"], "did you mean 'square'"),
        (["--strength", "0.5"], "--strength 0.5 has no effect without --edit or --inpaint"),
        (["--mask", "0,0,2,2"], "has no effect without --inpaint"),
        (["--inpaint", "{picture}"], "needs --mask"),
        (["--resamplings", "2"], "--resamplings 2 has no effect without --inpaint"),
        (
            ["--inpaint", "{picture}", "--mask", "0,0,2,2", "--resamplings", "2"],
            "which only --sampler ddpm does, not ddim",
        ),
        (["--inpaint", "{picture}", "--labels", "1", "--mask", "0,0,99,2"], "is not a box"),
        (["--edit", "{picture}", "--labels", "1", "--strength", "1.5"], "--strength 1.5 must be above 0 and at most 1"),
        (
            ["--edit", "{picture}"],
            "which of the model's 8 classes the results are to be; give one, as --labels circle.",
        ),
        (["--inpaint", "{large}", "--mask", "18,0,22,2", "--labels", "1"], "is not a box"),
        (["--per-class", "0"], "--per-class 0 must be at least 1"),
        (["--per-class", "2", "--edit", "{picture}", "--labels", "1"], "--per-class 2 is for images from pure noise"),
        (["--guide-checkpoint", "last"], "has no effect at guidance 1; give --guidance"),
        (["--guide-checkpoint", "last", "--guidance", "2"], "is the guided network itself"),
        (["--guide-checkpoint", "9", "--guidance", "2"], "no checkpoint '9'"),
        (["--guide", "{picture}", "--guidance", "2"], "a.png"),
        (["--guidance-interval", "0.3,3"], "has no effect at guidance 1"),
        (["--guidance-interval", "7000,8000", "--guidance", "2"], "none of the noise levels of the steps"),
        (["--churn", "40"], "sampling.churn=40.0 is of sampling.sampler=heun with diffusion.family=edm, vp or ve"),
        (["--edit", "{picture}", "--video"], "--video films"),
        (["--sampler", "heunn"], "did you mean 'heun'"),
        (["--checkpoint", "77"], "no checkpoint '77'"),
        (["--average", "swa"], "no average 'swa'"),
        (["--device", "gpu"], "--device 'gpu' is not a device"),
    ],
)
def test_mistakes_are_one_sentence(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    names = {"picture": picture(tmp_path / "a.png"), "large": picture(tmp_path / "b.png", size=20)}
    filled = [argument.format(**names) for argument in arguments]
    assert sample(run_dir, *filled, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert sentence in error[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels", "1"], "--labels 1: the model was trained without classes"),
        (["--per-class", "1"], "--per-class 1: the model was trained without classes"),
        (["--guidance", "2"], "sampling.guidance=2.0 needs a model that was trained on classes"),
    ],
)
def test_an_unconditional_model_takes_no_classes(
    unconditional: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert sample(unconditional, *arguments, "--output", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_the_arguments_are_declared_without_torch() -> None:
    code = "import sys, policy_accel.cli; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
