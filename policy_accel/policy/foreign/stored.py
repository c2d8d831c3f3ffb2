"""A policy of another library as a run of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from policy_accel.errors import UserError, one_of
from policy_accel.foreign.stored import Foreign, State, put
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import LoadedRun, build_policy, build_sampler, check_config
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling

PictureStatistics = tuple[list[float], list[float]]

TASKS: dict[tuple[tuple[tuple[int, int, int], ...], int, int], str] = {
    ((), 20, 2): "pusht_keypoints",
    (((96, 96, 3),), 2, 2): "pusht_image",
}
"""Shapes of the pictures, numbers of an observation and of an action -> the task that such a policy is for."""


@dataclass
class ForeignPolicy(Foreign[RobotConfig, LoadedRun]):
    """See `Foreign`.

    Attributes:
        data: what it was trained on, as far as it says.
        fields: names of the numbers of an observation, in our order.
        images: picture -> (H, W, C).
        observation_dim: numbers of an observation.
        action_dim: numbers of an action.
        statistics: picture -> means and deviations of its channels; those without are brought to [-1, 1].
        entries: field or picture -> the entry of a robot's observation, where that has another name.
        step: updates that were made, if it says.
    """

    track: ClassVar = ROBOT

    path: Path
    library: str
    data: str
    fields: tuple[str, ...]
    images: dict[str, tuple[int, int, int]]
    observation_dim: int
    action_dim: int
    values: dict[str, Any]
    weights: Callable[[], State]
    statistics: dict[str, PictureStatistics] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    step: int = 0

    def task(self) -> str:
        """The task that the shapes are of; "custom" where they are of none that is known."""
        return TASKS.get((tuple(self.images.values()), self.observation_dim, self.action_dim), "custom")

    def config(self, settings: Mapping[str, Any] | None = None) -> RobotConfig:
        """See `Foreign.config`; the setting "task" names the task that scores it, or "custom" for none."""
        given = dict(settings or {})
        name = str(given.pop("task", self.task()))
        values = copy.deepcopy(self.values)
        values["task"] = {**_task(name), "data": self.data}
        if name == "custom":
            own = {"name": self.path.parent.name or "custom", "observation": list(self.fields), "action": "action"}
            values["task"] |= {**own, "images": list(self.images), "environment_keys": dict(self.entries)}
        put(values, given)
        names = values["task"].get("images") or []
        if len(names) != len(self.images):
            raise UserError(
                f"{self.path} sees {len(self.images)} pictures and task={name} has {len(names)}; name another task, or "
                'task="custom".'
            )
        if self.images:
            by_name = {ours: self.statistics.get(theirs) for ours, theirs in zip(names, self.images, strict=True)}
            values["encoder"]["statistics"] = {ours: list(found) for ours, found in by_name.items() if found}
        return self.typed(values, check_config)

    def load(
        self, config: RobotConfig, device: torch.device | str = "cpu", asked: AskedSampling = AS_CHOSEN
    ) -> LoadedRun:
        """See `Foreign.load`."""
        config.sampling, _ = asked.of_run(config.sampling)
        images = dict(zip(config.task.images, self.images.values(), strict=True))
        policy = build_policy(config, self.observation_dim, self.action_dim, images=images)
        self.fill(policy)
        config.training.lay_out(policy, device)
        policy.eval().requires_grad_(False)
        return LoadedRun(policy, config, self.step, build_sampler(config), source=self.path)


def normalizer_state(prefix: str, parts: Sequence[Mapping[str, Tensor]]) -> State:
    """The state of a `Normalizer` put together of fields, each {"scale", "offset", ...} [D]."""
    kinds = {
        "scale": (torch.float32, 1.0),
        "offset": (torch.float32, 0.0),
        "center": (torch.float64, 0.0),
        "varies": (torch.bool, 1.0),
        "constant": (torch.float64, 0.0),
    }
    state = {}
    for name, (dtype, default) in kinds.items():
        rows = [part[name] if name in part else torch.full_like(part["scale"], default) for part in parts]
        state[f"{prefix}.{name}"] = torch.cat([torch.zeros(0), *(row.flatten() for row in rows)]).to(dtype)
    return state


def finite(name: str, values: Tensor) -> Tensor:
    """A statistic of the data in float64.

    Raises:
        ValueError: it is not finite, as where it was never filled.
    """
    if not values.isfinite().all():
        raise ValueError(f"the statistics of {name} are not finite: they were not saved with the policy")
    return values.double()


@lru_cache
def _task(name: str) -> dict[str, Any]:
    """The settings of a task that we have."""
    one_of("task", name, ROBOT.choices()["task"])
    if name == "custom":
        return {"name": name}
    return dict(ROBOT.record(ROBOT.config([f"task={name}", "task.data=none"]))["task"])
