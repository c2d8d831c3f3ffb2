"""Which environment is rolled out, and how it is made."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium

from policy_accel.errors import UserError

DEFAULT_STEPS = 300
"""Of an episode where neither the task nor the registration of the environment limits them."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """Which environment is rolled out, and how an episode in it is run.

    Attributes:
        id: gymnasium id, registered by importing `module`.
        kwargs: keyword arguments for `gymnasium.make`.
        max_steps: an episode ends after this many environment steps, at least 1. This is the only limit: environments
            are made without the one that was registered with the id, which `step_limit` tells.
        n_obs_steps: number of newest observations that the policy sees, at least 1.
        module: dotted name of the module that registers the id.
        film_kwargs: more keyword arguments, for the environment of an episode that is filmed only; for example
            {"render_camera": "frontview"}.
        plugins: modules that may register the id where `module` does not.
        score: what an episode's score is, a key of `episode.SCORES`.
        entries: of a dictionary of observations, what the policy takes; () for all.

    Raises:
        UserError: no step, or a module name that is not a dotted name.
    """

    id: str
    kwargs: dict[str, Any]
    max_steps: int
    n_obs_steps: int
    module: str = "policy_accel.envs"
    film_kwargs: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    score: str = "max_reward"
    entries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise UserError(f"task.max_steps={self.max_steps} must be at least 1.")
        if not all(part.isidentifier() for part in self.module.split(".")):
            raise UserError(f"module = '{self.module}': give a dotted module name such as 'policy_accel.envs'")


def step_limit(spec: EnvironmentSpec) -> int:
    """The limit that is registered with an environment, which is imported for it; `DEFAULT_STEPS` where there is none.

    Raises:
        UserError: as `import_environment`.
    """
    import_environment(spec)
    return gymnasium.spec(spec.id).max_episode_steps or DEFAULT_STEPS


class Examined(NamedTuple):
    """What an environment gives and takes, and why it cannot be filmed; None where nothing is against it."""

    observations: gymnasium.Space[Any]
    actions: gymnasium.Space[Any]
    not_filmed: str | None


def examine_environment(spec: EnvironmentSpec) -> Examined:
    """Look at an environment, which is made for it without drawing, and closed again.

    Raises:
        UserError: it cannot be imported, or cannot be made.
    """
    import_environment(spec)
    with contextlib.closing(make_environment(spec, filmed=False)) as environment:
        return Examined(environment.observation_space, environment.action_space, _not_filmed(environment, spec.id))


def _not_filmed(environment: gymnasium.Env, name: str) -> str | None:
    if "rgb_array" not in (environment.metadata.get("render_modes") or ()):
        return f"{name} has no render mode rgb_array"
    if not _has_render(environment):
        return f"{name} has no method render"
    made_by = gymnasium.spec(name).entry_point
    creator = gymnasium.envs.registration.load_env_creator(made_by) if isinstance(made_by, str) else made_by
    with contextlib.suppress(TypeError, ValueError):  # what says nothing of its arguments may take them all
        parameters = inspect.signature(creator).parameters if creator is not None else {"render_mode": None}
        if "render_mode" not in parameters and all(one.kind != one.VAR_KEYWORD for one in parameters.values() if one):
            return f"{name} takes no argument render_mode"
    return None


def _has_render(environment: gymnasium.Env) -> bool:
    """Whether it, or a wrapper around it, draws; those of gymnasium itself only pass on what is inside."""
    while isinstance(environment, gymnasium.Wrapper):
        own = type(environment)
        if own.render is not gymnasium.Wrapper.render and not own.__module__.startswith("gymnasium."):
            return True
        environment = environment.env
    return type(environment).render is not gymnasium.Env.render


def import_environment(spec: EnvironmentSpec) -> None:
    """Import the module that registers the environment, and then the environment's class with its simulator.

    Raises:
        UserError: a module that cannot be imported; a package that is not installed, by its name; an unknown id.
    """
    try:
        importlib.import_module(spec.module)
        for plugin in spec.plugins:
            if spec.id not in gymnasium.registry:
                importlib.import_module(plugin)
    except ImportError as error:
        raise UserError(f"the module '{spec.module}' of environment '{spec.id}' does not import: {error}") from error
    with _explained(f"environment '{spec.id}'", "cannot be made"):
        entry_point = gymnasium.spec(spec.id).entry_point
        if isinstance(entry_point, str):
            importlib.import_module(entry_point.partition(":")[0])


def make_environment(spec: EnvironmentSpec, *, filmed: bool) -> gymnasium.Env:
    """`gymnasium.make` without time limit and checker; a filmed one renders rgb_array and gets spec.film_kwargs.

    Raises:
        UserError: it cannot be made, or cannot render, or takes no such argument.
    """
    film_kwargs: dict[str, Any] = {**spec.film_kwargs, "render_mode": "rgb_array"} if filmed else {}
    what = "cannot be made to be filmed" if filmed else "cannot be made"
    with _explained(f"environment '{spec.id}' with {spec.kwargs}", what), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*render_mode")  # gymnasium's own: we say it in our words
        try:
            environment = gymnasium.make(
                spec.id, max_episode_steps=-1, disable_env_checker=True, **(spec.kwargs | film_kwargs)
            )
        except TypeError as error:
            for name, value in spec.film_kwargs.items() if filmed else ():
                if f"unexpected keyword argument '{name}'" in str(error):
                    raise UserError(
                        f"environment '{spec.id}' cannot be filmed with {name}={value!r}: it does not take {name}; "
                        "film it without."
                    ) from error
            raise
    if filmed and (why := _not_filmed(environment, spec.id)):
        raise UserError(f"environment '{spec.id}' cannot be filmed: {why}; go without videos")
    return environment


@contextlib.contextmanager
def _explained(environment: str, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            raise UserError(
                f"{environment} needs the Python package '{package}', which is not installed; install it."
            ) from error
        raise UserError(f"{environment} {what}: {' '.join(str(error).split()) or type(error).__name__}") from error
