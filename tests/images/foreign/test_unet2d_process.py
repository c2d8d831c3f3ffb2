"""The process of diffusers' schedulers."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDPMScheduler

from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.run_files import weights_file

from .unets import unet


@pytest.fixture
def saved(tmp_path):
    """A model's folder in which a scheduler may be put."""
    unet().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_betas_of_a_schedule_are_taken_by_its_name(saved, schedule):
    theirs = DDPMScheduler(num_train_timesteps=12, beta_schedule=schedule, beta_start=0.01, beta_end=0.3)
    DDPMScheduler(num_train_timesteps=12, trained_betas=theirs.betas.tolist()).save_pretrained(saved)
    run = IMAGES.load(weights_file(saved))
    assert run.config.diffusion.schedule == schedule
    found = run.sampler.objective.process.alphas**2
    torch.testing.assert_close(found, theirs.alphas_cumprod.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("betas", "reason"),
    [
        ([0.1, 0.3, 0.2], "the 3 trained_betas of its scheduler are those of no schedule by name for its 3 times"),
        ([0.1, 0.2], "the 2 trained_betas of its scheduler are those of no schedule by name for its 3 times"),
        ([0.1, 2.0, 0.2], "trained_betas of its scheduler: number 1 is 2, which must lie between 0 and 1"),
    ],
)
def test_betas_of_no_schedule_are_refused(saved, betas, reason):
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 3, "trained_betas": betas}
    (saved / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(UserError, match=reason):
        IMAGES.load(weights_file(saved))
