"""Demonstrations of robosuite with relative actions, read with their absolute ones beside them.

Absolute actions are those of Diffusion Policy's `*_abs.hdf5` and of robomimic's `actions_abs`: the pose that the arm's
controller steers to, for every step, and the gripper's command unchanged.
"""

from __future__ import annotations

import numpy as np

from policy_accel.data.formats.base import EpisodeReader, EpisodeView
from policy_accel.errors import UserError

from .robosuite_env import Robosuite
from .robosuite_make import complete_env_args
from .robosuite_tasks import ARM_ACTION

KEY = "action_abs"


class AbsoluteActionsReader(EpisodeView):
    """A reader whose data has the key `action_abs` too, found as it is read: the pose that the controller of the set's
    own environment steers to from each recorded state and action (see `absolute_actions`), of the dtype of `action`.

    Args:
        reader: an open reader of relative actions, with `action`, `sim_state` and the fact `env_args`; this one closes
            it, and closes it as well when it refuses it.

    Raises:
        UserError: there are absolute actions already; there is no `env_args`, `action` or `sim_state`, or one of
            another size than the environment's; another generation of robosuite, or none, is installed; as it is read,
            a state that is not finite.
    """

    def __init__(self, reader: EpisodeReader) -> None:
        super().__init__(reader)
        try:
            self._environment = _environment(reader)
        except BaseException:
            reader.close()
            raise
        self.features = {**reader.features, KEY: reader.features["action"]}

    def close(self) -> None:
        """See `EpisodeReader`."""
        self._environment.close()
        self.reader.close()

    def _read(self, episode: int, keys: list[str], start: int, stop: int) -> dict[str, np.ndarray]:
        values = self.reader.read(episode, [key for key in keys if key != KEY], start, stop)
        if KEY in keys:
            recorded = self.reader.read(episode, ["action", "sim_state"], start, stop)
            try:
                found = absolute_actions(self._environment, recorded["sim_state"], recorded["action"])
            except UserError as error:
                raise UserError(f"{self.source}: episode {episode}: {error}") from error
            values[KEY] = found.astype(self.features[KEY].dtype)
        return {key: values[key] for key in keys}


def _environment(reader: EpisodeReader) -> Robosuite:
    """The environment that recorded a set, after checking that its actions can be replayed in it."""
    source, features = reader.source, reader.features
    if KEY in features:
        raise UserError(f"{source}: has absolute actions already ({KEY}); convert it without --absolute-actions.")
    env_args = reader.metadata.get("env_args")
    if not isinstance(env_args, dict):
        raise UserError(
            f"{source}: has no env_args, so that the environment of its actions is not known; absolute actions need "
            "robomimic's file of robosuite 1.5."
        )
    for key, remedy in (("action", "record it again with actions"), ("sim_state", "record it again with states")):
        if key not in features:
            raise UserError(f"{source}: has no key '{key}', which absolute actions are computed from; {remedy}.")
    completed = complete_env_args(env_args, source=source)
    environment = Robosuite(env_args=completed)
    try:
        if environment.actions != "relative":
            raise UserError(
                f"{source}: its env_args say that its actions are absolute already; convert it without "
                "--absolute-actions."
            )
        action, state = (environment.arms * ARM_ACTION,), environment.sim_state().shape
        for key, shape in (("action", action), ("sim_state", state)):
            if features[key].shape != shape:
                raise UserError(
                    f"{source}: {key} is {list(features[key].shape)} a step, but {list(shape)} in robosuite's "
                    f"{env_args['env_name']}; the file is not of the environment that its env_args name."
                )
        if features["action"].dtype.kind != "f":
            raise UserError(f"{source}: action is {features['action'].dtype}, not a float; record it again.")
    except BaseException:
        environment.close()
        raise
    return environment


def absolute_actions(environment: Robosuite, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The goals that the controllers take from every recorded action in its recorded state; nothing is simulated.

    Args:
        environment: of the data set, with relative actions; its episode is lost.
        states: [T, D], the simulator's state before each action (robomimic's `states`).
        actions: [T, 7 * arms] relative actions.

    Returns:
        [T, 7 * arms] float64: position (m), axis-angle (rad) in the controller's frame and gripper of each arm.

    Raises:
        UserError: a state that is not finite.
    """
    commands = np.asarray(actions, dtype=np.float64).reshape(len(actions), environment.arms, ARM_ACTION)
    found = commands.copy()
    for step, state in enumerate(states):
        if step == 0:
            environment.reset(seed=0, options={"state": state})
        found[step, :, :-1] = environment.goals_in(state, commands[step, :, :-1])
    return found.reshape(len(actions), -1)
