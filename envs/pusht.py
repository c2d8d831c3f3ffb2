"""Push-T as a gymnasium environment: gym-pusht's physics, the starts and the observations of Diffusion Policy."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import spaces

from policy_accel.errors import UserError, did_you_mean
from policy_accel.evaluation.scene import ActionsOnScene
from policy_accel.extras import to_install

from .pusht_keypoints import keypoint_observation

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

try:
    import pymunk
    import shapely
    from gym_pusht.envs.pusht import PushTEnv

    from .pusht_drawing import WINDOW, draw_window, small_picture
except ImportError as error:
    raise UserError(f"Push-T needs gym-pusht ({error}); {to_install('pusht')}") from error

if int(pymunk.version.split(".")[0]) >= 7:
    raise UserError(
        f"Push-T needs pymunk 6 and found pymunk {pymunk.version}, which gym-pusht cannot drive; "
        "install it with: pip install 'pymunk>=6.6,<7'"
    )

OBSERVATIONS = ("state", "keypoints", "image")
SUCCESS_COVERAGE = 0.95
IMAGE_SIZE = 96
GOAL_POSE = np.array([256.0, 256.0, np.pi / 4])  # x, y, angle
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
_position: Any = pymunk.Body.position.fget  # through the body itself it takes half as long again
_set_velocity: Any = pymunk.Body.velocity.fset
MARGIN = 64  # a block may start through a wall, and is then seen outside the window


def draw_start(seed: int) -> np.ndarray:
    """The start that Diffusion Policy's environment draws for a seed: [5] float64.

    Agent x, y in 50..449, block x, y in 100..399, angle = 2 pi N(0, 1) - pi, in this order from RandomState(seed).
    gym-pusht draws other starts for the same seed (PCG64, uniform angle).
    """
    generator = np.random.RandomState(seed)
    positions = [generator.randint(*bounds) for bounds in ((50, 450), (50, 450), (100, 400), (100, 400))]
    return np.array([*positions, generator.randn() * 2 * np.pi - np.pi])


def observation_space(observation: str) -> spaces.Space[Any]:
    """The space of one kind of observation; positions have a margin of 64 px around the window."""
    if observation not in OBSERVATIONS:
        raise UserError(f"Push-T has no observation '{observation}'; {did_you_mean(observation, OBSERVATIONS)}")
    low, high = -MARGIN, WINDOW + MARGIN
    if observation == "keypoints":
        return spaces.Box(low, high, (20,), np.float32)
    if observation == "state":
        return spaces.Box(
            np.array([low] * 4 + [0.0], np.float32), np.array([high] * 4 + [2 * np.pi], np.float32), dtype=np.float32
        )
    return spaces.Dict(
        image=spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
        agent_pos=spaces.Box(low, high, (2,), np.float32),
    )


class PushT(PushTEnv, ActionsOnScene):  # type: ignore[misc]  # gym-pusht has no types
    """Push the T onto the goal pose (256, 256, pi / 4) with a round agent; 10 actions a second.

    observation
        "state" [5] float32: agent x, y, block x, y in px and the block's angle in [0, 2 pi), as in `data/state`;
        "keypoints" [20] float32: nine block key-points (x, y each), then agent x, y, in px;
        "image": {"image" [96, 96, 3] uint8, "agent_pos" [2] float32}.
    action [2]: the position in px, 0..512, that the agent's PD controller steers to.
    reward: min(coverage / 0.95, 1); coverage is the share of the goal that the block covers.
    The episode terminates when the coverage is above 0.95 and has no time limit of its own.
    `info` has `coverage` and `is_success`.

    Attributes:
        frames_wanted: whether the "image" or the "keypoints" that `step` observes are looked at; while False they are
            the last ones, which saves the time of making them. `reset` and `render` always do.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        observation: Literal["state", "keypoints", "image"] = "state",
        render_mode: str | None = "rgb_array",
    ) -> None:
        space = observation_space(observation)
        super().__init__(render_mode=render_mode)
        self.observation = observation
        self.observation_space = space
        self.frames_wanted = True
        self._image: np.ndarray | None = None
        self._keypoints: np.ndarray | None = None
        self._last_action: np.ndarray | None = None
        self.goal = self.get_goal_pose_body(GOAL_POSE)

    def _setup(self) -> None:
        """gym-pusht's bodies, without its count of contacts: a collision handler of pymunk holds itself and its space
        (200 KB) until the garbage collector finds them, so that every episode left one behind."""
        self.space = pymunk.Space()
        self.space.damping = 0.0
        self.space.add(*(self.add_segment(self.space, start, end, 2) for start, end in WALLS))
        self.agent = self.add_circle(self.space, (256, 400), 15)
        self.block, shapes = self.add_tee(self.space, (256, 300), 0)
        self._corners = [shape.get_vertices() for shape in shapes]
        self._goal_outline = self._outline(self.goal)
        self._covered: tuple[Any, float] = None, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode: from `options["state"]` ([5], exactly as observed), else from `draw_start(seed)`.

        The drawn start is set in the order of the reference (position, then angle about the centre of gravity) and
        settles for one physics step, so that the same seed means the same start. Without a seed one is drawn.
        """
        super(PushTEnv, self).reset(seed=seed)
        self._setup()
        self._last_action = self._image = self._keypoints = None
        state = (options or {}).get("state")
        if state is not None:
            self.set_state(state)
        else:
            self._set_state(draw_start(int(self.np_random.integers(2**31)) if seed is None else seed))
        return self.get_obs(), self._info()

    def set_state(self, state: Any) -> None:
        """Put agent and block exactly where a state [5] says, at rest; raises UserError unless it is finite."""
        values = np.asarray(state, dtype=np.float64)
        if values.shape != (5,) or not np.isfinite(values).all():
            raise UserError(f"a Push-T state is five finite numbers (agent x, y, block x, y, angle), got {state!r}")
        self.agent.position, self.agent.velocity = tuple(values[:2]), (0.0, 0.0)
        self.block.angle = values[4]  # turns about the centre of gravity, so the position comes second
        self.block.position = tuple(values[2:4])
        self.block.velocity, self.block.angular_velocity = (0.0, 0.0), 0.0
        self.space.reindex_shapes_for_body(self.agent)
        self.space.reindex_shapes_for_body(self.block)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steer to a target for 0.1 s. Raises UserError when the action is not two finite numbers."""
        target = np.asarray(action, dtype=np.float64)
        if target.shape != (2,) or not np.isfinite(target).all():
            raise UserError(f"a Push-T action is two finite numbers (target x, y in px), got {action!r}")
        self._last_action = target
        (x, y), agent, dt, k_p, k_v = target.tolist(), self.agent, self.dt, self.k_p, self.k_v
        vx, vy = agent.velocity  # a kinematic body: nothing but this loop changes it
        for _ in range(int(1 / (dt * self.control_hz))):
            px, py = _position(agent)
            vx += (k_p * (x - px) - k_v * vx) * dt
            vy += (k_p * (y - py) - k_v * vy) * dt
            _set_velocity(agent, (vx, vy))
            self.space.step(dt)
        info = self._info()
        reward = min(info["coverage"] / SUCCESS_COVERAGE, 1.0)
        return self.get_obs(), reward, info["is_success"], False, info

    def render(self) -> np.ndarray | None:
        """The window as [680, 680, 3] uint8 with the last action marked; None without a render mode."""
        return None if self.render_mode is None else super().render()

    def action_pixels(self, actions: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `ActionsOnScene`: an action is a place in the window of 512 px."""
        places: np.ndarray = actions * np.array([width, height]) / WINDOW
        return places

    def get_obs(self) -> Any:
        """The present observation, see the class."""
        if self.observation == "image":
            if self._image is None or self.frames_wanted:
                self._image = small_picture(self._draw(), IMAGE_SIZE)
            return {"image": self._image.copy(), "agent_pos": np.array(self.agent.position, dtype=np.float32)}
        if self.observation == "keypoints" and not self.frames_wanted and self._keypoints is not None:
            return self._keypoints.copy()
        state = np.array([*self.agent.position, *self.block.position, self.block.angle % (2 * np.pi)])
        if self.observation == "state":
            return state.astype(np.float32)
        self._keypoints = keypoint_observation(state)
        return self._keypoints.copy()

    def _draw(self) -> Any:
        """The window, drawn as in the demonstrations."""
        return draw_window(self.space, [[self.goal.local_to_world(v) for v in part] for part in self._corners])

    def _outline(self, body: pymunk.Body) -> Any:
        """The two parts of a block that is where `body` is, for shapely."""
        parts = [[body.local_to_world(corner) for corner in part] for part in self._corners]
        return shapely.multipolygons(shapely.polygons(parts))

    def _get_coverage(self) -> float:
        """Share of the goal that the block covers. gym-pusht unites the block's two shapes in the order of a set, that
        is of their memory addresses, so that its last bit changes from run to run; here the order is fixed."""
        pose = self.block.position, self.block.angle
        if pose != self._covered[0]:
            goal = self._goal_outline
            self._covered = pose, float(goal.intersection(self._outline(self.block)).area / goal.area)
        return self._covered[1]

    def _info(self) -> dict[str, Any]:
        coverage = self._get_coverage()
        return {"coverage": coverage, "is_success": coverage > SUCCESS_COVERAGE}
