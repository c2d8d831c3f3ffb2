"""Image models that are shared, and image models of others, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from policy_accel import ImageModel
from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.latents.representation import Representation
from policy_accel.images.run import LoadedImageRun, build_sampler
from policy_accel.images.shapes import make_shapes, write_images_npz
from policy_accel.images.track import IMAGES
from policy_accel.models.images import EdmConfig

from ..foreign.files import edm_tensors, network, write_edm

NET = [
    "model=ddpm",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.attention_resolutions=[]",
    "sampling.steps=2",
]


@pytest.fixture
def model() -> ImageModel:
    config = IMAGES.config([*NET, "task.conditional=true", "task.label_dropout=0.1"])
    net = network(config.model, condition_dim=2)
    run = LoadedImageRun(net, config, 9, build_sampler(config), (3, 8, 8), ("a, b", "c"), 2, Representation())
    return ImageModel(run)


def test_a_shared_model_draws_the_same_images(tmp_path: Path, model: ImageModel, capsys: pytest.CaptureFixture[str]):
    model.save_pretrained(tmp_path / "shared", data_licence="CC0")
    again = ImageModel.from_pretrained(tmp_path / "shared", device="cpu")
    assert (again.run.classes, again.run.step) == (("a, b", "c"), 9)
    for how in ({}, {"classes": "c", "guidance": 2.0, "start": 1}):
        assert torch.equal(again.generate(3, **how), model.generate(3, **how))
    assert torch.equal(model.generate(1, start=1, classes=["c"]), model.generate(2)[1:])
    text = (tmp_path / "shared" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "policy_accel"
    assert "of one of 2 classes" in text
    assert "CC0" in text
    with pytest.raises(UserError, match="exists"):
        model.save_pretrained(tmp_path / "shared")
    out = tmp_path / "drawn"
    assert main(["sample", str(tmp_path / "shared"), "--count", "2", "--output", str(out)]) == 0
    assert json.loads((out / "samples.json").read_text())["step"] == 9
    with pytest.raises(UserError, match="class 'd' is unknown"):
        model.generate(1, classes="d")


def test_a_model_of_edm_is_scored_and_fine_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = make_shapes(24, size=16, seed=0)
    write_images_npz(tmp_path / "shapes.npz", images, make_shapes(12, size=16, seed=1))
    count = len(images.classes)
    sizes = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": []}
    net = network(EdmConfig(**sizes), resolution=16, condition_dim=count, classes=count)
    path = write_edm(tmp_path / "edm.pkl", edm_tensors(net, 16))
    fast = ["--samples", "8", "--sampling-steps", "1", "--batch-size", "8"]
    assert main(["evaluate", str(path), *fast]) == 2
    assert "name the images to compare with, --data PATH" in capsys.readouterr().err
    drawn = ["--count", "1", "--sampling-steps", "1", "--output", str(tmp_path / "drawn")]
    assert main(["sample", str(path), *drawn]) == 0
    assert f"evaluate {path} --data PATH" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--data", str(tmp_path / "shapes.npz"), *fast, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 8
    settings = [f"{name}={str(value).replace(' ', '')}" for name, value in sizes.items()]
    train = [
        "train",
        f"task.data={tmp_path / 'shapes.npz'}",
        "task=custom_images",
        "task.conditional=true",
        "task.augmentation=none",
        "diffusion.family=edm",
        "diffusion.target=edm",
        "sampling.sampler=heun",
        "sampling.clip_sample=null",
        "training.steps=1",
        "training.batch_size=4",
        "evaluation.samples=0",
        "evaluation.grid=4",
        "evaluation.video=false",
        "sampling.steps=1",
        f"init_from={path}",
        f"run_dir={tmp_path / 'run'}",
        "model=edm",
    ]
    assert main([*train, "training.optimizer.lr=1e-12", *(f"model.{setting}" for setting in settings)]) == 0
    tuned = IMAGES.load(tmp_path / "run").model.state_dict()
    for name, tensor in IMAGES.load(path).model.state_dict().items():
        torch.testing.assert_close(tuned[name], tensor, atol=1e-5, rtol=1e-4)
    capsys.readouterr()
    assert main([*train[:-2], f"run_dir={tmp_path / 'other'}", "model=edm"]) == 2
    assert "does not fit this network" in (said := capsys.readouterr().err)
    assert "; there model." in said
