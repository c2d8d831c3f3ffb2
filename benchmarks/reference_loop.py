"""The training loop of real-stanford/diffusion_policy itself: its policy, data set, normaliser and EMA, from a copy.

Nothing of it ships: `--diffusion-policy FOLDER` of `steps_per_second.py` names a clone, which needs einops besides. The
loop around these parts is that of its workspace, without progress bar, Weights & Biases and the logger that wants
pandas.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from eager_baseline import BaselineConfig, Clock, Steps, batches_of


def run(steps: Steps, config: BaselineConfig, *, updates: int, warmup_updates: int, folder: Path) -> Clock:
    """Train Push-T from scratch; returns what one of `updates` after `warmup_updates` took."""
    sys.path.insert(0, str(folder))
    torch.manual_seed(config.seed)
    dataset = _dataset(steps, config)
    policy = _policy(steps, config)
    policy.set_normalizer(dataset.get_normalizer())
    ema = _part("model.diffusion.ema_model", "EMAModel")(
        copy.deepcopy(policy), update_after_step=0, inv_gamma=1.0, power=0.75, min_value=0.0, max_value=0.9999
    )
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=config.lr, betas=config.betas, eps=1e-8, weight_decay=config.weight_decay
    )
    rate = get_scheduler(
        "cosine", optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.total_steps
    )
    device = torch.device(config.device)
    policy.to(device)
    ema.averaged_model.to(device)
    batches = batches_of(dataset, config)
    began = Clock.now(device)
    with tempfile.TemporaryFile("w", buffering=1) as log:
        for update in range(warmup_updates + updates):
            if update == warmup_updates:
                began = Clock.now(device)
            loss = policy.compute_loss(next(batches))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            ema.step(policy)
            row = {"train_loss": loss.item(), "global_step": update, "lr": rate.get_last_lr()[0]}
            log.write(json.dumps(row) + "\n")
        spent = Clock.now(device).since(began, updates)
    batches.close()
    return spent


def _part(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"diffusion_policy.{module}"), name)


def _dataset(steps: Steps, config: BaselineConfig) -> Any:
    """Its data set over the episodes that train: key-points, then the position of the agent."""
    begins = [0, *steps.episode_ends[:-1].tolist()]
    parts = [slice(a, b) for a, b, used in zip(begins, steps.episode_ends, steps.train, strict=True) if used]
    observation, action = (
        torch.cat([torch.from_numpy(x[part]) for part in parts]).numpy() for x in (steps.observation, steps.action)
    )
    ends = torch.tensor([part.stop - part.start for part in parts]).cumsum(0).numpy()
    data = {"keypoint": observation[:, :-2], "state": observation[:, -2:], "action": action}
    buffer_class = _part("common.replay_buffer", "ReplayBuffer")
    buffer = buffer_class({"data": data, "meta": {"episode_ends": ends}})
    buffer_class.copy_from_path = classmethod(lambda *_, **__: buffer)  # its reader wants zarr 2
    return _part("dataset.pusht_dataset", "PushTLowdimDataset")(
        "", horizon=config.horizon, pad_before=config.n_obs_steps - 1, pad_after=config.n_action_steps - 1
    )


def _policy(steps: Steps, config: BaselineConfig) -> Any:
    net, (observed, acted) = config.net, (steps.observation.shape[1], steps.action.shape[1])
    model = _part("model.diffusion.conditional_unet1d", "ConditionalUnet1D")(
        input_dim=acted,
        global_cond_dim=observed * config.n_obs_steps,
        diffusion_step_embed_dim=net.step_embedding_dim,
        down_dims=list(net.down_dims),
        kernel_size=net.kernel_size,
        n_groups=net.groups,
        cond_predict_scale=net.film_scale,
    )
    return _part("policy.diffusion_unet_lowdim_policy", "DiffusionUnetLowdimPolicy")(
        model=model,
        noise_scheduler=DDPMScheduler(
            num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type=config.prediction
        ),
        horizon=config.horizon,
        obs_dim=observed,
        action_dim=acted,
        n_action_steps=config.n_action_steps,
        n_obs_steps=config.n_obs_steps,
        obs_as_global_cond=True,
        oa_step_convention=True,
    )
