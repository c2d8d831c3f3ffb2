"""Scripted experts for robosuite's Lift, Can and Square: feedback on the simulator's state, with seeded variety.

An expert decides anew at every step from where the hand and the object are, so that whatever goes wrong (noise, a
knock, a lost object) is put right, and the demonstrations show how. It commands the arm by relative actions of the
operational-space controller (Khatib, 1987; robosuite's OSC_POSE with `input_ref_frame: world`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from policy_accel.errors import one_of

OPEN, CLOSE = -1.0, 1.0  # the gripper's action
POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5  # m and rad that an action of 1 stands for
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # the hand's rotation at yaw 0: fingers along y
UP = np.array([0.0, 0.0, 1.0])
HOLD_STEPS = 3  # of contact on both pads before the hand may lift
BIN, BIN_ROOM = np.array([0.1975, 0.4025]), np.array([0.085, 0.11])  # xy in m of the can's quarter, and half its inside
CARRY, LET_GO = 1.02, 0.90  # m, heights of the can's middle: over the wall between the bins, and just above the floor
ABOVE_PEG, PEG_TOP = 0.985, 0.955  # m, heights of the nut's middle: passing over the peg, and resting on it
PEG = np.array([0.23, 0.1])  # xy in m of Square's peg
WRIST_ROOM = 1.9  # rad either way that the last joint lets the hand turn
HANDLE = np.array([0.054, 0.0, 0.0])  # m, the middle of the nut's handle in the nut's frame


@dataclass(frozen=True)
class Scene:
    """What an expert sees: poses in the frame of the world, in m.

    Attributes:
        hand: [3], the point between the finger pads.
        hand_rotation: [3, 3]; the fingers slide along its first column and point along its third.
        item: [3], the middle of the object.
        item_rotation: [3, 3].
        touched: whether both pads touch the object.
    """

    hand: np.ndarray
    hand_rotation: np.ndarray
    item: np.ndarray
    item_rotation: np.ndarray
    touched: bool


@dataclass(frozen=True)
class Style:
    """How one episode is played; drawn by `draw_style`.

    Attributes:
        gain: share of the remaining way, in position and rotation, that one step asks for.
        speed: largest position action.
        yaw: rad, of the hand where the object leaves it free.
        grasp: [3] m, from the middle of the object to where the hand grasps it.
        hover: m above the grasp from which the hand comes down.
        swing: [2] m, how far beside the straight way the hand comes near, per m that it is away.
        patience: steps of contact on both pads before the hand lifts.
        carry: m, height of the carried object above the least safe one.
        release: [2] m, from the middle of the bin to where the can is let go: off the walls and within reach.
        noise: standard deviation of the noise in the six arm actions.
        knock: chance in each step that a knock begins.
    """

    gain: float
    speed: float
    yaw: float
    grasp: np.ndarray
    hover: float
    swing: np.ndarray
    patience: int
    carry: float
    release: np.ndarray
    noise: float
    knock: float


@dataclass(frozen=True)
class Aim:
    """What a plan asks for: a place for the hand [3] in m, its yaw in rad, and the gripper's action."""

    place: np.ndarray
    yaw: float
    grip: float


def draw_style(generator: np.random.Generator) -> Style:
    """A style for one episode."""
    return Style(
        gain=generator.uniform(0.9, 1.4),
        speed=generator.uniform(0.8, 1.2),
        yaw=generator.uniform(-0.2, 0.2),
        grasp=generator.uniform((-0.005, -0.005, -0.005), (0.005, 0.005, 0.010)),
        hover=generator.uniform(0.04, 0.09),
        swing=generator.normal(0, 0.15, 2),
        patience=int(generator.integers(HOLD_STEPS, HOLD_STEPS + 4)),
        carry=generator.uniform(0.0, 0.05),
        release=generator.uniform((-0.05, -0.06), (-0.025, -0.035)),
        noise=generator.uniform(0.0, 0.15),
        knock=generator.choice((0.0, 0.03)),
    )


class Expert:
    """One episode's expert for "lift", "can" or "square"; all its randomness comes from `generator`."""

    def __init__(self, task: str, generator: np.random.Generator) -> None:
        self.style = draw_style(generator)
        self._plan = PLANS[one_of("robosuite task", task, PLANS)]
        self._generator = generator
        self._held = 0  # steps in a row that both pads have touched the object
        self._knock = np.zeros(6)
        self._knock_left = 0

    def act(self, scene: Scene) -> np.ndarray:
        """The relative action [7] float32 in [-1, 1]: position 3, rotation 3 (axis-angle), gripper 1 (closed at 1)."""
        style, generator = self.style, self._generator
        self._held = self._held + 1 if scene.touched else 0
        aim = self._plan(scene, style, self._held >= style.patience)
        way = style.gain * (aim.place - scene.hand) / POSITION_SCALE
        turn = Rotation.from_matrix(hand_rotation(aim.yaw) @ scene.hand_rotation.T).as_rotvec()
        arm = np.concatenate((_shorten(way, style.speed), _shorten(style.gain * turn / ROTATION_SCALE, 0.5)))
        if self._knock_left == 0 and generator.random() < style.knock:
            self._knock_left = int(generator.integers(3, 8))
            self._knock = generator.normal(0, (0.35, 0.35, 0.2, 0.1, 0.1, 0.1))
        if self._knock_left:
            self._knock_left -= 1
            arm = arm + self._knock
        arm = arm + generator.normal(0, 1, 6) * style.noise * (1, 1, 1, 0.3, 0.3, 0.3)
        return np.append(arm.clip(-1, 1), aim.grip).astype(np.float32)


def read_scene(simulator: Any, task: str) -> Scene:
    """What the expert for a task sees of a robosuite environment with one Panda arm."""
    name = {"lift": "cube_main", "can": "Can_main", "square": "SquareNut_main"}[task]
    data, model = simulator.sim.data, simulator.sim.model
    body, site = model.body_name2id(name), simulator.robots[0].eef_site_id["right"]
    geoms = {model.geom_id2name(g) for g in np.flatnonzero(model.geom_bodyid == body)} - {None}
    return Scene(
        hand=np.array(data.site_xpos[site]),
        hand_rotation=np.array(data.site_xmat[site]).reshape(3, 3),
        item=np.array(data.body_xpos[body]),
        item_rotation=np.array(data.body_xmat[body]).reshape(3, 3),
        touched=bool(simulator._check_grasp(simulator.robots[0].gripper["right"], sorted(geoms))),
    )


def hand_rotation(yaw: float) -> np.ndarray:
    """[3, 3], the hand pointing straight down, turned by `yaw` rad about the vertical."""
    rotation: np.ndarray = Rotation.from_euler("z", yaw).as_matrix() @ DOWN
    return rotation


def plan_lift(scene: Scene, style: Style, held: bool) -> Aim:
    """Grasp the cube and lift it."""
    if held:
        return Aim(scene.hand + 0.1 * UP, style.yaw, CLOSE)
    return approach(scene, style, scene.item + style.grasp * (1, 1, 0.5), style.yaw)


def plan_can(scene: Scene, style: Style, held: bool) -> Aim:
    """Carry the can over the wall between the bins into its quarter of the second, let go and move away."""
    target = BIN + style.release
    if np.all(np.abs(scene.item[:2] - BIN) < BIN_ROOM) and scene.item[2] < LET_GO:
        away = scene.hand if scene.touched else scene.hand + 0.1 * UP
        return Aim(away, style.yaw, OPEN)
    if not held:
        return approach(scene, style, scene.item + style.grasp + 0.01 * UP, style.yaw)
    height = CARRY + style.carry
    low = scene.item[2] < height - 0.05
    if np.linalg.norm(target - scene.item[:2]) < (0.05 if low else 0.02):
        place = np.append(target, LET_GO - 0.04)
    elif low:
        place = np.append(scene.item[:2], height + 0.03)
    else:
        place = np.append(target, height)
    return Aim(place + scene.hand - scene.item, style.yaw, CLOSE)


def plan_square(scene: Scene, style: Style, held: bool) -> Aim:
    """Grasp the nut by its handle, turn it until it fits the peg, and put it over."""
    nut_yaw = float(np.arctan2(scene.item_rotation[1, 0], scene.item_rotation[0, 0]))
    if not held:
        handle = scene.item + scene.item_rotation @ HANDLE
        yaw = hand_yaw(scene) + _wrap(nut_yaw - hand_yaw(scene), np.pi)
        if abs(yaw) > WRIST_ROOM:
            yaw = _wrap(nut_yaw, np.pi)
        return approach(scene, style, handle + style.grasp * (0.3, 0.3, 0.5), yaw)
    # The nut fits at every quarter turn, but with the handle along +x the peg is out of the arm's reach.
    quarters = [_wrap(quarter * np.pi / 2 - nut_yaw, 2 * np.pi) for quarter in (1, 2, 3)]
    turn = min(quarters, key=abs)
    off_peg = float(np.linalg.norm(PEG - scene.item[:2]))
    if abs(turn) < 0.1 and off_peg < (0.008 if scene.item[2] > PEG_TOP else 0.014):
        height = scene.item[2] - 0.06
    else:
        height = ABOVE_PEG + style.carry / 2
        if scene.item[2] < ABOVE_PEG - 0.01 and off_peg > 0.02:
            return Aim(scene.hand + (height + 0.03 - scene.item[2]) * UP, hand_yaw(scene), CLOSE)
    arm = Rotation.from_euler("z", turn).apply(scene.hand - scene.item)
    return Aim(np.append(PEG, height) + arm, hand_yaw(scene) + turn, CLOSE)


def hand_yaw(scene: Scene) -> float:
    """The hand's turn about the vertical in rad, (-pi, pi]; 0 with the fingers along y."""
    return float(np.arctan2(-scene.hand_rotation[0, 0], scene.hand_rotation[1, 0]))


def approach(scene: Scene, style: Style, grasp: np.ndarray, yaw: float) -> Aim:
    """Come from above to a place to grasp at [3] with open fingers, and close them there."""
    error = grasp - scene.hand
    beside, above = float(np.linalg.norm(error[:2])), -float(error[2])
    turned = abs(_wrap(yaw - hand_yaw(scene), 2 * np.pi)) < 0.15
    if beside < 0.012 and abs(above) < 0.012 and turned:
        return Aim(grasp, yaw, CLOSE)
    if beside < 0.02 and turned:
        return Aim(grasp, yaw, OPEN)
    swing = np.append(style.swing * max(0.0, above - style.hover), style.hover)
    return Aim(grasp + swing, yaw, OPEN)


MAX_STEPS = {"lift": 150, "can": 300, "square": 300}
"""Control steps after which an expert's episode counts as failed."""
PLANS: dict[str, Callable[[Scene, Style, bool], Aim]] = {"lift": plan_lift, "can": plan_can, "square": plan_square}


def _shorten(vector: np.ndarray, longest: float) -> np.ndarray:
    return vector * min(1.0, longest / max(float(np.linalg.norm(vector)), 1e-9))


def _wrap(angle: float, period: float) -> float:
    """The angle in rad, up to whole periods, that is nearest 0."""
    return float((angle + period / 2) % period - period / 2)
