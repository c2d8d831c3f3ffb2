"""A model of another library as a run of ours: what both tracks need."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from policy_accel.diffusion.schedules import LINEAR, SCHEDULES
from policy_accel.errors import UserError, one_line
from policy_accel.groups import typed
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling
from policy_accel.track import Track
from policy_accel.training.config import RunConfig

State = dict[str, Tensor]
C = TypeVar("C", bound=RunConfig)
R = TypeVar("R")
TARGETS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}


class Foreign(ABC, Generic[C, R]):
    """What a file of another library says of its model.

    Attributes:
        track: that such models belong to.
        path: of the file.
        library: its name.
        values: our settings.
        weights: reads the weights by our names.
    """

    track: ClassVar[Track[Any]]
    path: Path
    library: str
    values: dict[str, Any]
    weights: Callable[[], State]

    @abstractmethod
    def config(self, settings: Mapping[str, Any] | None = None) -> C:
        """Our configuration of it.

        Args:
            settings: values by dotted key, which are taken in place of what the file says.

        Raises:
            UserError: an unknown setting, or values that do not go together.
        """

    @abstractmethod
    def load(self, config: C, device: torch.device | str = "cpu", asked: AskedSampling = AS_CHOSEN) -> R:
        """The model with `config`, which `config` gave, sampled as `asked`.

        Raises:
            UserError: weights that do not fit, or are not finite.
        """

    def typed(self, values: dict[str, Any], check: Callable[[C], object]) -> C:
        """The configuration of plain `values`, after `check` took it.

        Raises:
            UserError: what `check` raises, and values of other kinds.
        """
        values = {"track": self.track.name, "run_dir": str(self.path.parent), "method": "baseline", **values}
        try:
            self.track.register()
            config: C = typed(self.track.schema, values, self.track.name)
            check(config)
        except UserError:
            raise
        except Exception as error:  # omegaconf has many
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{self.path} cannot be read with these settings ({reason}).") from error
        return config

    def fill(self, model: nn.Module) -> None:
        """Give `model` the weights.

        Raises:
            UserError: they do not fit, or are not finite.
        """
        with understood(self.path):
            state = self.weights()
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split(":", 1)[-1].split())
            raise UserError(f"{self.path} does not fit our network ({reason[:200]}).") from error
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise UserError(f"{self.path}: {name} has values that are not finite; get another checkpoint.")


def put(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put values by dotted key into nested dictionaries.

    Raises:
        UserError: a key leads through what is no section.
    """
    for key, value in given.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"the setting {key} lies in {section}, which is one value; give it whole.")
        place[last] = value


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


def below(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def by_our_names(tensors: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> State:
    """The tensors with their names changed by each rule."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        found[name] = tensor
    return found


def shape_of(state: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        ValueError: it is not there.
    """
    if name not in state:
        raise ValueError(f"it has no tensor {name}")
    return tuple(state[name].shape)


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
    betas = {"beta_start": beta_start, "beta_end": beta_end} if schedule in LINEAR else {}
    return {
        "diffusion": {"schedule": schedule, "timesteps": timesteps, "target": TARGETS[prediction], **betas},
        "sampling": {
            "sampler": sampler,
            "steps": timesteps if steps is None else steps,
            "spacing": "leading",
            "clip_sample": clip,
        },
    }


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
