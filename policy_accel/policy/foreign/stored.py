"""A policy of another library as a run of ours."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError, one_line, one_of
from policy_accel.groups import typed
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.run import LoadedRun, build_policy, build_sampler, check_config
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling

State = dict[str, Tensor]
PictureStatistics = tuple[list[float], list[float]]

TASKS: dict[tuple[tuple[tuple[int, int, int], ...], int, int], str] = {
    ((), 20, 2): "pusht_keypoints",
    (((96, 96, 3),), 2, 2): "pusht_image",
}
"""Shapes of the pictures, numbers of an observation and of an action -> the task that such a policy is for."""
TARGETS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
SCHEDULES = ("squaredcos_cap_v2", "linear")


@dataclass
class Foreign:
    """What a file of another library says of its policy.

    Attributes:
        path: of the file.
        library: its name.
        data: what it was trained on, as far as it says.
        fields: names of the numbers of an observation, in our order.
        images: picture -> (H, W, C).
        observation_dim: numbers of an observation.
        action_dim: numbers of an action.
        values: our settings.
        statistics: picture -> means and deviations of its channels; those without are brought to [-1, 1].
        weights: reads the weights by our names.
        entries: field or picture -> the entry of a robot's observation, where that has another name.
        step: updates that were made, if it says.
    """

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
        """Our configuration of it.

        Args:
            settings: values by dotted key, as {"policy.n_action_steps": 4}, which are taken in place of what the file
                says; "task" names the task that scores it, or "custom" for none.

        Raises:
            UserError: an unknown setting, or values that do not go together.
        """
        given = dict(settings or {})
        name = str(given.pop("task", self.task()))
        values = copy.deepcopy(self.values)
        values["task"] = {**_task(name), "data": self.data}
        if name == "custom":
            own = {"name": self.path.parent.name or "custom", "observation": list(self.fields), "action": "action"}
            values["task"] |= {**own, "images": list(self.images), "environment_keys": dict(self.entries)}
        for key, value in given.items():
            *sections, last = key.split(".")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    raise UserError(f"the setting {key} lies in {section}, which is one value; give it whole.")
            place[last] = value
        names = values["task"].get("images") or []
        if len(names) != len(self.images):
            raise UserError(
                f"{self.path} sees {len(self.images)} pictures and task={name} has {len(names)}; name another task, or "
                'task="custom".'
            )
        if self.images:
            by_name = {ours: self.statistics.get(theirs) for ours, theirs in zip(names, self.images, strict=True)}
            values["encoder"]["statistics"] = {ours: list(found) for ours, found in by_name.items() if found}
        values = {"track": "robot", "run_dir": str(self.path.parent), "method": "baseline", **values}
        try:
            config: RobotConfig = typed(ROBOT.schema, values, ROBOT.name)
            check_config(config)
        except UserError:
            raise
        except Exception as error:  # omegaconf has many
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{self.path} cannot be read with these settings ({reason}).") from error
        return config

    def load(
        self, config: RobotConfig, device: torch.device | str = "cpu", asked: AskedSampling = AS_CHOSEN
    ) -> LoadedRun:
        """The policy with `config`, which `config` gave, sampled as `asked`.

        Raises:
            UserError: weights that do not fit, or are not finite.
        """
        config.sampling, _ = asked.of_run(config.sampling)
        images = dict(zip(config.task.images, self.images.values(), strict=True))
        with understood(self.path):
            state = self.weights()
        policy = build_policy(config, self.observation_dim, self.action_dim, images=images)
        try:
            policy.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split(":", 1)[-1].split())
            raise UserError(f"{self.path} does not fit our network ({reason[:200]}).") from error
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise UserError(f"{self.path}: {name} has values that are not finite; get another checkpoint.")
        config.training.lay_out(policy, device)
        policy.eval().requires_grad_(False)
        return LoadedRun(policy, config, self.step, build_sampler(config), source=self.path)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Name the file at fault where the block finds what its library does not write.

    Raises:
        UserError: in place of a ValueError, which says what is wrong, and of what values of other kinds raise.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"{path}: {one_line(error)}.") from error
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"{path} is not as its library writes it ({type(error).__name__}: {one_line(error)[:200]}); get it again."
        ) from error


def process_values(
    *,
    timesteps: int,
    schedule: str,
    beta_start: float,
    beta_end: float,
    prediction: str,
    sampler: str,
    steps: int | None,
    clip: float | None,
) -> dict[str, Any]:
    """Our settings of diffusers' DDPM or DDIM scheduler.

    Raises:
        ValueError: one that ours does not have.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"its beta_schedule '{schedule}' is none of ours, {', '.join(SCHEDULES)}")
    if prediction not in TARGETS:
        raise ValueError(f"its prediction_type '{prediction}' is unknown; known are {', '.join(TARGETS)}")
    betas = {"beta_start": beta_start, "beta_end": beta_end} if schedule == "linear" else {}
    return {
        "diffusion": {"schedule": schedule, "timesteps": timesteps, "target": TARGETS[prediction], **betas},
        "sampling": {
            "sampler": sampler,
            "steps": timesteps if steps is None else steps,
            "spacing": "leading",
            "clip_sample": clip,
        },
    }


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


def whole_number(name: str, value: Any) -> int:
    """A positive integer of a configuration.

    Raises:
        ValueError: another value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError(f"its {name}={value!r} is no number from 1 on")
    return int(value)


def clip_bound(clipped: Any, bound: Any) -> float | None:
    """The bound of the predicted sample, or None.

    Raises:
        ValueError: it is no positive number.
    """
    if not clipped:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise ValueError(f"its clip_sample_range={bound!r} is no positive number")
    return float(bound)


@lru_cache
def _task(name: str) -> dict[str, Any]:
    """The settings of a task that we have."""
    one_of("task", name, ROBOT.choices()["task"])
    if name == "custom":
        return {"name": name}
    return dict(ROBOT.record(ROBOT.config([f"task={name}", "task.data=none"]))["task"])
