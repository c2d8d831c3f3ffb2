"""Adroit door: a hand on an arm turns a latch and pulls a door open (Rajeswaran et al. 2018, arXiv:1709.10087).

The human demonstrations of D4RL's `door-human-v1` pair with gymnasium-robotics' `AdroitHandDoor-v1`: from a start
that is taken from a recorded observation, the recorded actions open the door as far as recorded, to about 0.01 rad.
The start states in that file (init_qpos) are not those of the recording: they hold zeros for the arm, which the first
observations do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from policy_accel.errors import UserError, one_of

from .planning import PlanningEnv, as_float32, known_options, mujoco, quiet_make, vector

OPEN_ANGLE = 1.35  # rad
STARTS = ("zero", "human")
JOINTS = 30  # of the arm (4), the hand (24), the door and its latch
HINGE, LATCH = 28, 29  # in qpos

HUMAN_MEAN = np.array([-0.048, -0.056, -0.031, 0.361, 0.144, -0.185])
HUMAN_STD = np.array([0.016, 0.036, 0.022, 0.079, 0.004, 0.081])
HUMAN_LOW = np.array([-0.091, -0.132, -0.075, 0.181, 0.137, -0.350])
HUMAN_HIGH = np.array([-0.017, -0.001, 0.026, 0.506, 0.157, -0.032])
"""m and rad: joints ARTz, ARRx, ARRy, ARRz, WRJ1, WRJ0 at the starts of the 25 demonstrations; fingers are at 0."""
HUMAN_DOORS = np.array([[-0.293, 0.201, 0.263], [-0.105, 0.391, 0.391]])
"""[2, 3] m: least and greatest position of the door's frame at these starts."""


class AdroitDoor(PlanningEnv):
    """Open the door to 1.35 rad; 100 actions a second.

    observation: {"observation" [39] float32: 27 joint angles of arm and hand (without the arm's first, ARTz), latch
    and door angle in rad, positions of palm and handle in m, their difference, and 1 or -1 for a door beyond 1 rad},
    as `observations` in D4RL's files.
    action [28] in [-1, 1]: target angles within the ranges of the actuators; larger ones, as people recorded, are cut.
    reward: the door's angle over 1.35 rad, within [0, 1]; the episode terminates at 1, which is success.
    `info` has `is_success` and `door_angle`.

    Args:
        start: "zero": all joints at 0 and the door where gymnasium-robotics draws it, as in D4RL's evaluation;
            "human": arm, wrist and door drawn as the demonstrations have them, which all start with the arm turned.
        render_mode: None or "rgb_array".
        render_camera: "fixed", "vil_camera", or None for the free view.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012

    def __init__(
        self,
        start: Literal["zero", "human"] = "zero",
        render_mode: str | None = None,
        render_camera: str | None = None,
    ) -> None:
        from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv

        self.start = one_of("start", start, STARTS)
        super().__init__(quiet_make(AdroitHandDoorEnv, render_mode=render_mode), render_camera)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, see `start`.

        Args:
            seed: draws the door's position, and the arm's with start "human".
            options: "observation": a recorded observation [39] to start from, at rest (see `state_of`); or "state":
                {"qpos" [30], "qvel" [30], "door_body_pos" [3]}.

        Raises:
            UserError: an unknown option, or one that is not finite or has a wrong shape.
        """
        super().reset(seed=seed)
        chosen = known_options(options, ("observation", "state"))
        self.simulator.reset(seed=seed)
        if chosen.get("state") is not None:
            self.place(chosen["state"])
        elif chosen.get("observation") is not None:
            self.place(self.state_of(chosen["observation"]))
        elif self.start == "human":
            random = self.simulator.np_random
            qpos = np.zeros(JOINTS)
            qpos[:6] = np.clip(random.normal(HUMAN_MEAN, HUMAN_STD), HUMAN_LOW, HUMAN_HIGH)
            self.place({"qpos": qpos, "qvel": np.zeros(JOINTS), "door_body_pos": random.uniform(*HUMAN_DOORS)})
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Take an action. Raises UserError when it is not finite or has a wrong shape."""
        self.simulator.step(vector(action, self.action_space.shape, "action"))
        info = self._info()
        return self._observe(), float(np.clip(info["door_angle"] / OPEN_ANGLE, 0, 1)), info["is_success"], False, info

    def place(self, state: Mapping[str, Any]) -> None:
        """Put joints and door where a state says: {"qpos" [30], "qvel" [30], "door_body_pos" [3]}."""
        shapes = {"qpos": (JOINTS,), "qvel": (JOINTS,), "door_body_pos": (3,)}
        if not isinstance(state, Mapping) or set(state) != set(shapes):
            raise UserError(f"state is {state!r}; give a dictionary of qpos, qvel and door_body_pos.")
        mujoco.mj_resetData(self.simulator.model, self.simulator.data)
        self.simulator.set_env_state({key: vector(state[key], shape, key) for key, shape in shapes.items()})

    def state_of(self, observation: Any) -> dict[str, np.ndarray]:
        """The state at rest that looks like the first observation [39] of an episode; leaves the simulator in it.

        ARTz is not observed, but the palm's position moves with it, and the handle's with the door's frame, both in
        straight lines.
        In a moving hand the observed positions of palm and handle are those of one physics step before.
        """
        seen = vector(observation, (39,), "observation")
        qpos, frame = np.zeros(JOINTS), np.zeros(3)
        qpos[1:HINGE], qpos[HINGE], qpos[LATCH] = seen[:27], seen[28], seen[27]
        palms = []
        for lift in (0.0, 0.1):
            qpos[0] = lift
            self.place({"qpos": qpos, "qvel": np.zeros(JOINTS), "door_body_pos": frame})
            palms.append(self.simulator._get_obs()[29:32])
        handle = self.simulator._get_obs()[32:35]
        slope = (palms[1] - palms[0]) / 0.1
        qpos[0] = (seen[29:32] - palms[0]) @ slope / (slope @ slope)
        state = {"qpos": qpos, "qvel": np.zeros(JOINTS), "door_body_pos": frame + seen[32:35] - handle}
        self.place(state)
        return state

    def _observe(self) -> dict[str, np.ndarray]:
        return as_float32({"observation": self.simulator._get_obs()})

    def _info(self) -> dict[str, Any]:
        angle = float(self.simulator.data.qpos[HINGE])
        return {"is_success": angle >= OPEN_ANGLE, "door_angle": angle}
