"""What an exported policy says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.normalization import Normalizer
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.task_data import action_fields
from policy_accel.policy.track import ROBOT
from policy_accel.robot.exporting.whole import ACTIONS, NOISE, PLAN
from policy_accel.run_sampling import sampling_record


def about_of(run: LoadedRun, inputs: dict[str, Tensor], outputs: dict[str, Tensor], **facts: Any) -> dict[str, Any]:
    """What an export of `run` says of itself, JSON-able; `policy` is what it is loaded from again.

    Args:
        run: as it is sampled.
        inputs: name -> an example of each, of one row.
        outputs: the same of what it gives.
        facts: more of it.
    """
    policy, task = run.policy, run.config.task
    told: dict[str, dict[str, Any]] = {
        STATE: {
            "fields": [*task.observation, *task.goal],
            "units": "of the data",
            "range": _range(policy.observation_normalizer, policy.goal_columns),
        },
        NOISE: {"values": "standard normal: x_T, then the fresh noise of each stochastic step"},
        ACTIONS: {
            "fields": list(action_fields(task)),
            "units": "of the data",
            "first": "for the newest observation",
            **({"range": _range(policy.action_normalizer)} if policy.action_rotation == "none" else {}),
        },
        PLAN: {"values": "the whole trajectory, normalised: actions, and observations where these are in-painted"},
        **{name: {"values": "0 to 255", "axes": "batch, time, height, width, channel"} for name in policy.images},
    }
    described = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": ["batch" if facts["batch"] == "any" else 1, *tensor.shape[1:]],
            **told[name],
        }
        for name, tensor in {**inputs, **outputs}.items()
    }
    return {
        "made_by": f"policy-accel {version('policy-accel')}",
        "task": task.name,
        "step": run.step,
        "n_obs_steps": policy.config.n_obs_steps,
        "n_action_steps": policy.config.n_action_steps,
        "horizon": policy.config.horizon,
        **sampling_record(run.sampler.config),
        "network_evaluations": run.sampler.network_evaluations(),
        "inputs": {name: described[name] for name in inputs},
        "outputs": {name: described[name] for name in outputs},
        **facts,
        "policy": {
            "config": ROBOT.record(run.config),
            "observation_dim": policy.observation_dim,
            "action_dim": policy.action_dim,
            "images": policy.images,
            "resized": policy.resized,
            "goal_columns": list(policy.goal_columns),
            "env_args": run.env_args,
            "normalizers": {
                name: {key: values.tolist() for key, values in getattr(policy, name).state_dict().items()}
                for name in ("observation_normalizer", "action_normalizer")
            },
        },
    }


def _range(normalizer: Normalizer, again: Sequence[int] = ()) -> list[list[float]]:
    """What the network sees as -1 and as 1, in the data's units; the columns `again` come a second time."""
    ends = normalizer.inverse(torch.tensor([[-1.0], [1.0]]).expand(2, len(normalizer.scale)))
    found: list[list[float]] = torch.cat([ends, ends[:, list(again)]], dim=1).tolist()
    return found
