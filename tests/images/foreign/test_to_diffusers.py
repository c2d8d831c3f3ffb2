"""Image runs as folders of diffusers."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from policy_accel.cli import main
from policy_accel.data.images.encoding import Encoding
from policy_accel.errors import UserError
from policy_accel.images.foreign.to_diffusers import write_pipeline
from policy_accel.images.generation.guidance import class_condition
from policy_accel.images.latents.representation import Representation
from policy_accel.images.run import LoadedImageRun, build_sampler
from policy_accel.images.track import IMAGES
from policy_accel.models.images import DitConfig, EdmConfig
from policy_accel.run_files import weights_file

from .files import network

NET = [
    "model=ddpm",
    "model.channels=8",
    "model.multipliers=[1,2]",
    "model.blocks=1",
    "model.attention_resolutions=[]",
    "model.heads=2",
]
PROCESS = ["diffusion.schedule=linear", "diffusion.timesteps=12"]

SIGMA = ["diffusion.family=edm", "diffusion.target=edm", "sampling.sampler=heun", "sampling.clip_sample=null"]


def made(
    *overrides: str, classes: tuple[str, ...] = (), learned: bool = False, process: Sequence[str] = PROCESS
) -> LoadedImageRun:
    """A run whose network was never trained, with weights that do something."""
    config = IMAGES.config([*NET, *process, "sampling.steps=4", "task.conditional=false", *overrides])
    sizes = {"out_channels": 6} if learned else {}
    model = network(config.model, condition_dim=len(classes), **sizes)
    if learned:  # near the bounds between which a variance lies
        for parameter in model.output.parameters():
            parameter.data[3:] *= 0.1
    return LoadedImageRun(model, config, 7, build_sampler(config), (3, 8, 8), classes, len(classes), Representation())


def drawn(run: LoadedImageRun, labels: torch.Tensor | None = None) -> np.ndarray:
    """Two images of the generator that the pipelines get, as [B, H, W, C] in [0, 1]."""
    generator = torch.Generator().manual_seed(3)
    noise = (torch.randn(2, 3, 8, 8, generator=generator) for _ in itertools.count())
    condition = class_condition(labels, 2, classes=len(run.classes), condition_dim=run.condition_dim)
    with torch.no_grad():
        images = run.sampler(run.sampler.denoiser(run.model, condition), noise)
    return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def test_plain_diffusers_makes_the_same_images(tmp_path):
    runs = {
        "ddim": made("sampling.sampler=ddim", "diffusion.target=v"),
        "ddpm": made("sampling.sampler=ddpm", "diffusion.learn_sigma=true", learned=True),
        "kl": made("acceleration/path=truncated", "sampling.clip_sample=null", "diffusion.schedule=squaredcos_cap_v2"),
        "classes": made(
            "sampling.sampler=ddim",
            "task.conditional=true",
            "task.label_dropout=0.1",
            "sampling.guidance=2.0",
            classes=("cat", "a, b"),
        ),
    }
    ours = {
        "momentum": made("acceleration/momentum=natural"),
        "raw": made("acceleration/path=truncated", "acceleration.path.marginal=raw", "sampling.clip_sample=null"),
        "fdm": made(*SIGMA, "acceleration/momentum=released", process=[]),
    }
    told = {name: write_pipeline(run, tmp_path / name) for name, run in (runs | ours).items()}
    assert [told[name]["pipeline"] for name in runs] == [
        "DDIMPipeline",
        "DDPMPipeline",
        "DDIMPipeline",
        "ImagePipeline",
    ]
    assert [len(about["needs"]) for about in told.values()] == [1, 1, 1, 1, 2, 2, 2]
    script = f"""
        import sys
        sys.modules["policy_accel"] = None  # which makes every import of it fail
        import numpy as np, torch
        from diffusers import DiffusionPipeline
        for name in {list(told)}:
            if name == {next(iter(ours))!r}:
                del sys.modules["policy_accel"]
                import policy_accel.diffusion.schedulers
            pipeline = DiffusionPipeline.from_pretrained(name, trust_remote_code={list(runs)[:3]}.count(name) == 0)
            pipeline.set_progress_bar_config(disable=True)
            how = {{"class_labels": ["a, b", 0]}} if name == "classes" else {{}}
            generator = torch.Generator().manual_seed(3)
            images = pipeline(2, generator=generator, num_inference_steps=4, output_type="np", **how).images
            np.save(name + ".npy", images)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-P", "-c", textwrap.dedent(script)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    for name, run in (runs | ours).items():
        expected = drawn(run, torch.tensor([1, 0]) if name == "classes" else None)
        assert expected.std() > 0.1, name
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-5, err_msg=name)


def test_the_command_and_the_way_back(tmp_path, capsys):
    run = made("task.conditional=true", "task.label_dropout=0.1", classes=("cat", "dog"))
    write_pipeline(run, tmp_path / "made")
    again = IMAGES.load(weights_file(tmp_path / "made"))
    assert (again.classes, again.config.task.label_dropout) == (("cat", "dog"), 0.1)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, msg=name)
    assert main(["export", str(tmp_path / "made"), "--to", "diffusers", "--output", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scheduler"] == "DDIMScheduler"
    assert main(["export", str(tmp_path / "made"), "--to", "diffusers", "--output", str(tmp_path / "c")]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("it opens with diffusers:")
    assert "class_labels=['cat', 'dog'], guidance=1)" in lines[-1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    program = "\n".join([*lines, "assert [image.size for image in images] == [(8, 8)] * 2"])
    subprocess.run([sys.executable, "-P", "-c", program], env=environment, check=True, timeout=200)
    assert main(["export", str(tmp_path / "made"), "--to", "onnx"]) == 2
    assert "--to onnx is for policies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("dit", DitConfig(depth=1, width=16, heads=2)),
        ("edm", EdmConfig(channels=16, multipliers=[1], blocks=1, attention_resolutions=[])),
    ],
)
def test_networks_that_diffusers_does_not_have_are_refused(tmp_path, name, config):
    run = made()
    model = network(config)
    with pytest.raises(UserError, match=f"is a network of model={name}, which none of .*; give --to safetensors"):
        write_pipeline(replace(run, model=model, config=replace(run.config, model=config)), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_latents_come_back_as_latents(tmp_path):
    encoding = Encoding(scale=(0.5, 0.25, 2.0), shift=(1.0,))
    write_pipeline(replace(made(), representation=Representation(encoding)), tmp_path / "made")
    assert IMAGES.load(weights_file(tmp_path / "made")).representation.encoding == encoding


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["sampling.times=[9,4]"], "has no place in a pipeline; give --sampling-steps"),
        (["sampling.steps=5", "sampling.spacing=trailing"], "steps back by 2 of 12 times; give a divisor of 12"),
        (["sampling.sampler=dpm_solver++"], "is exported to no pipeline, ddpm and ddim are"),
        (["acceleration/momentum=natural", "acceleration/path=truncated"], "is a process that no scheduler has"),
    ],
)
def test_what_no_pipeline_does_is_refused(tmp_path, overrides, reason):
    with pytest.raises(UserError, match=reason):
        write_pipeline(made(*overrides), tmp_path / "made")
    assert not (tmp_path / "made").exists()
