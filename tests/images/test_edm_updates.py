"""Five updates of EDM's recipes beside their formulas written out with torch alone: table 1 and appendix B of Karras et
al. 2022, whose loss is the sum over the values of an image and the mean over the batch."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from policy_accel.cli import main
from policy_accel.diffusion import Batch, Noised
from policy_accel.images.config import ImageConfig
from policy_accel.images.track import IMAGES
from policy_accel.training.build import build_update
from policy_accel.training.update import Losses, Update

UPDATES, BATCH, RATE = 5, 8, 1e-3
FORMS = {
    "edm": ["model=edm", "diffusion.family=edm", "diffusion.target=edm"],
    "edm, deviation 0.8": ["model=edm", "diffusion.family=edm", "diffusion.target=edm", "diffusion.sigma_data=0.8"],
    "vp": ["model=edm", "diffusion.family=vp", "diffusion.target=epsilon"],
    "ve": [
        "model=edm",
        "diffusion.family=ve",
        "diffusion.target=negative_epsilon",
        "model.embedding=fourier",
        "model.time_multiplier=2",
        "model.encoder=residual",
        "model.resample_filter=[1,3,3,1]",
    ],
}


def update_of(config: ImageConfig) -> Update:
    task = IMAGES.build(config)
    return build_update(task, config.training, config.seed)


def watched(update: Update) -> tuple[list[tuple[Batch, Noised]], list[float]]:
    """The examples of five updates, and the losses that they log."""
    seen, learn = [], update.learn

    def watch(begun, *others) -> Losses:  # type: ignore[no-untyped-def]
        seen.append(begun.examples())
        return learn(begun, *others)

    update.learn = watch  # type: ignore[method-assign]
    return seen, [float(update(step)[0]) for step in range(UPDATES)]


def weighted_error(model: torch.nn.Module, batch: Batch, noised: Noised, form: str) -> Tensor:
    """lambda(sigma) ||D(y + n; sigma) - y||^2 of each value, from what the network is told of sigma."""
    y, told = batch.x0, noised.t.double()
    if form.startswith("edm"):
        sigma = (4 * told).exp()
    elif form == "ve":
        sigma = 2 * told.exp()
    else:
        t = told / 999
        sigma = (19.9 / 2 * t**2 + 0.1 * t).expm1().sqrt()
    sigma = sigma.float().view(-1, 1, 1, 1)
    x = y + sigma * noised.noise
    data = 0.8 if "0.8" in form else 0.5
    c_skip, c_out, c_in, weight = 1.0, sigma if form == "ve" else -sigma, 1.0, sigma**-2
    if form == "vp":
        c_in = (sigma**2 + 1).rsqrt()
    elif form.startswith("edm"):
        total = sigma**2 + data**2
        c_skip, c_out, c_in = data**2 / total, sigma * data / total.sqrt(), total.rsqrt()
        weight = total / (sigma * data) ** 2
    denoised = c_skip * x + c_out * model(c_in * x, told.float(), batch.condition)
    return weight * (denoised - y) ** 2


@pytest.mark.parametrize("form", FORMS)
def test_five_updates_are_those_of_the_formulas(form: str, tiny_images: Callable[..., ImageConfig]) -> None:
    def config(reduction: str) -> ImageConfig:
        return tiny_images(
            *FORMS[form],
            f"diffusion.loss_reduction={reduction}",
            "sampling.sampler=heun",
            "training.optimizer.warmup_steps=0",
            "training.optimizer.schedule=constant",
            "training.optimizer.weight_decay=0.0",
            "training.optimizer.betas=[0.9,0.999]",
            "training.optimizer.clip_grad_norm=null",
            f"training.optimizer.lr={RATE}",
        )

    update = update_of(config("sum"))
    model = copy.deepcopy(update.task.model)
    adam = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    examples, logged = watched(update)
    expected = []
    for batch, noised in examples:
        error = weighted_error(model, batch, noised, form)
        adam.zero_grad()
        (error.sum() / BATCH).backward()
        adam.step()
        expected.append(float(error.detach().mean()))
    assert logged == pytest.approx(expected, rel=1e-5)
    if form != "edm":
        return
    _, of_means = watched(update_of(config("mean")))
    assert of_means[0] == logged[0]  # the log shows the mean of both
    apart = max(abs(math.log(mean / own)) for mean, own in zip(of_means, logged, strict=True))
    assert apart > 1e-5  # but their updates differ, by Adam's eps


def test_the_stochastic_sampler_is_asked_for_on_the_command_line(
    tiny_images: Callable[..., ImageConfig], tmp_path: Path
) -> None:
    config = tiny_images(*FORMS["edm"], "sampling.sampler=heun", "training.steps=1", "evaluation.samples=0")
    IMAGES.train(config)
    drawn = {}
    for name, churn in {"still": [], "none": ["--churn", "0"], "churned": ["--churn", "1,0,inf,1.01"]}.items():
        options = ["--count", "2", "--labels", "0", "--npz", "--output", str(tmp_path / name)]
        assert main(["sample", config.run_dir, *options, *churn]) == 0
        drawn[name] = np.load(tmp_path / name / "samples.npz")["images"]
    assert (drawn["still"] == drawn["none"]).all()
    assert (drawn["still"] != drawn["churned"]).any()
    record = json.loads((tmp_path / "churned" / "samples.json").read_text())
    assert [record[name] for name in ("churn", "churn_noise", "network_evaluations")] == [1.0, 1.01, 3]
