"""What a task lacks here: its settings, packages, environment, pictures and data, one after the other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policy_accel.doctor.findings import MISSING, OK, Finding
from policy_accel.errors import UserError


def of_task(overrides: str, config_dir: str) -> Iterator[Finding]:
    """Look at what `policy-accel train` with these settings would need.

    Args:
        overrides: as a JSON list.
        config_dir: of the user's own choices; "" for none.
    """
    from policy_accel.configuration import source_of
    from policy_accel.track import track

    words, folder = json.loads(overrides), Path(config_dir) if config_dir else None
    chosen = track(source_of(words, folder).track)
    config = chosen.config(words, folder)
    name = f"Task {config.task.name}"
    yield _tried(name, "settings", lambda: chosen.check(config), "they go together")
    yield _tried(name, "packages", lambda: chosen.check_here(config), "those that it names are here")
    if chosen.name == "robot" and config.is_scored():
        yield _tried(name, "simulator", lambda: _step(config, filmed=False), "a step taken")
        if config.evaluation.videos or config.task.images:
            yield _tried(name, "pictures", lambda: _step(config, filmed=True), "a picture drawn")
    yield _tried(name, "data", lambda: chosen.check_data(config), str(config.task.data))
    if config.init_from is not None or (chosen.name == "robot" and config.encoder.weights is not None):
        yield _tried(name, "weights", lambda: chosen.check_weights(config), "what the run begins with is here")


def _tried(group: str, name: str, attempt: Callable[[], Any], said: str) -> Finding:
    try:
        attempt()
    except UserError as error:
        return Finding(group, name, MISSING, str(error))
    return Finding(group, name, OK, said)


def _step(config: Any, *, filmed: bool) -> None:
    """A step in the task's own environment; what only the data know of it is left as the task has it."""
    from policy_accel.evaluation.environments import import_environment, make_environment
    from policy_accel.policy.evaluate import environment_spec

    alone = dataclasses.replace(config.task, environment_from_data=False)
    spec = environment_spec(alone, config.policy.n_obs_steps, None, None)
    import_environment(spec)
    environment = make_environment(spec, filmed=filmed)
    try:
        environment.reset(seed=0)
        environment.step(environment.action_space.sample())
        if filmed:
            environment.render()
    finally:
        environment.close()
