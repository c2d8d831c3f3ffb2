"""Resets that keep the model, against plain robosuite, which builds it anew with NumPy's global generator seeded."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from support.memory import release_memory

from policy_accel.envs.robosuite_env import Robosuite
from policy_accel.envs.robosuite_make import import_robosuite
from policy_accel.envs.robosuite_tasks import TASKS, find_task

ROLLOUT = 20


def rollout(environment: Robosuite, seed: int, actions: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    observation = environment.reset(seed=seed)[0]
    states, seen = [environment.sim_state()], [own_observation(observation)]
    for action in actions:
        observation = environment.step(action)[0]
        states.append(environment.sim_state())
        seen.append(own_observation(observation))
    return np.array(states), seen


def own_observation(observation) -> np.ndarray:
    names = [name for name in observation if name.startswith("robot0_")]
    return np.concatenate([observation["object"], *[observation[name] for name in names]])


def draw_actions(seed: int, arms: int = 1, steps: int = ROLLOUT) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7 * arms))


def plain_rollout(environment, seed: int, actions: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """States and observations of robosuite's own environment after a hard reset from a seed, and after each action."""
    np.random.seed(seed)  # noqa: NPY002
    environment.reset()
    for observable in environment._observables.values():
        observable.reset()
    observation = environment._get_observations(force_update=True)
    assert environment.hard_reset
    states, seen = [environment.sim.get_state().flatten()], [plain_observation(observation)]
    for action in actions:
        observation = environment.step(action)[0]
        states.append(environment.sim.get_state().flatten())
        seen.append(plain_observation(observation))
    return np.array(states), seen


def plain_observation(observation) -> np.ndarray:
    return np.concatenate([observation["object-state"], observation["robot0_proprio-state"]]).astype(np.float32)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_reset_equals_building_everything_anew(name, lift):
    """To the last bit: state, observations and a rollout, also after an earlier episode that stirred everything."""
    task = find_task(name)
    environment = lift if name == "lift" else Robosuite(name)
    options = deepcopy(environment.env_args["env_kwargs"])
    actions = draw_actions(7, task.arms, ROLLOUT if task.arms == 1 else 5)
    found = {}
    for seed in (100000, 3) if name == "lift" else (3,):
        environment.reset(seed=seed + 1)
        for action in draw_actions(seed, task.arms, 5):
            environment.step(action)
        found[seed] = rollout(environment, seed, actions)
    assert environment.reset(seed=0)[0]["object"].shape == (task.object_size,)
    if name != "lift":
        environment.close()
        release_memory()
    plain = import_robosuite().make(environment.env_args["env_name"], **options)
    for seed, (states, seen) in found.items():
        expected_states, expected = plain_rollout(plain, seed, actions)
        np.testing.assert_array_equal(states, expected_states)
        np.testing.assert_array_equal(seen, expected)
    plain.close()


def test_the_first_observation_knows_where_the_hand_is() -> None:
    """robosuite's own reset leaves the object's pose relative to the hand at zero."""
    environment = Robosuite("can")
    observation = environment.reset(seed=5)[0]
    relative = observation["object"][7:]
    environment.close()
    assert np.abs(relative[:3]).max() > 0.05
    assert np.linalg.norm(relative[3:]) == pytest.approx(1.0, abs=1e-4)


def test_the_resized_cube_is_the_compiled_one(lift):
    """Every array of the model equals that of a model compiled for the size of the same seed."""
    plain = import_robosuite().make("Lift", **deepcopy(lift.env_args["env_kwargs"]))
    sizes = set()
    for seed in range(8):
        np.random.seed(seed)  # noqa: NPY002
        plain.reset()
        lift.reset(seed=seed)
        expected, found = plain.sim.model._model, lift.robosuite.sim.model._model
        names = [name for name in dir(expected) if isinstance(getattr(expected, name), np.ndarray)]
        assert len(names) > 200
        differing = [name for name in names if not np.array_equal(getattr(expected, name), getattr(found, name))]
        assert not differing
        sizes.add(found.geom("cube_g0").size.tobytes())
        assert plain.model.get_xml() == lift.robosuite.model.get_xml()
    assert len(sizes) == 8


def test_the_resized_cube_is_drawn_as_the_compiled_one():
    environment = Robosuite("lift", cameras=["robot0_eye_in_hand"], image_size=64)
    options = deepcopy(environment.env_args["env_kwargs"])
    found = [environment.reset(seed=seed)[0]["robot0_eye_in_hand_image"].copy() for seed in (0, 1)]
    environment.close()
    release_memory()
    plain = import_robosuite().make("Lift", **options)
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        np.testing.assert_array_equal(found[seed], plain.reset()["robot0_eye_in_hand_image"][::-1])
        release_memory()
    plain.close()
