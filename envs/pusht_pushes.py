"""The block's outline and a library of straight pushes, measured in Push-T's own physics, in the frame of the block.

Push-T is quasi-static (the block stops as soon as nothing pushes it) and its contacts have no friction, so that what a
push does depends on the block's frame alone: measured once, it holds at every pose away from the walls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], dtype=np.float64
)
"""[8, 2] px: the corners of the T in the frame of its body, in order around it."""

AGENT_RADIUS = 15.0
RUN_UP = 20.0  # px between the agent and the block where a push begins
CONTACT_SPACING = 5.0  # px along the outline
CORNER_MARGIN = 8.0  # px from the ends of a side: a touch that is a little off still pushes the same side
SIDE_ROOM = 5.0  # px by which the agent may be off to either side without touching another side of the block
LONGEST_PUSH = 110  # px of the agent's way behind the first touch


@dataclass(frozen=True)
class PushLibrary:
    """C straight pushes, each cut at L lengths; the frame is that of the block before the push.

    starts [C, 2]: the agent's centre at the end of its approach, RUN_UP px before it touches.
    directions [C, 2]: unit vectors of the agent's way, along the inward normal of the side that it touches.
    lengths [L]: px that the agent goes on after the touch. poses [C, L, 3]: the block's pose after the push.
    end_arcs [C, L]: the place on the moved block's outline that is next to the agent after the push.
    """

    starts: np.ndarray
    directions: np.ndarray
    lengths: np.ndarray
    poses: np.ndarray
    end_arcs: np.ndarray


def outline_distance(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of points [N, 2] to the block (0 inside), the nearest outline points [N, 2] and their arcs [N]."""
    edges = np.roll(OUTLINE, -1, axis=0) - OUTLINE
    lengths = np.linalg.norm(edges, axis=1)
    along = ((points[:, None] - OUTLINE) * edges).sum(-1) / lengths**2
    along = along.clip(0, 1)
    feet = OUTLINE + along[..., None] * edges
    distances = np.linalg.norm(points[:, None] - feet, axis=-1)
    nearest = distances.argmin(1)
    rows = np.arange(len(points))
    arcs = np.concatenate(([0.0], np.cumsum(lengths)[:-1]))[nearest] + along[rows, nearest] * lengths[nearest]
    x, y = np.abs(points[:, 0]), points[:, 1]
    inside = ((x < 60) & (y > 0) & (y < 30)) | ((x < 15) & (y > 0) & (y < 120))
    return np.where(inside, 0.0, distances[rows, nearest]), feet[rows, nearest], arcs


@cache
def push_library() -> PushLibrary:
    """Measure every push in a physics of its own, without walls (about half a second, once in a process)."""
    lengths = np.concatenate((np.arange(1, 20), np.arange(20, LONGEST_PUSH + 1, 3)))
    starts, directions, poses, ends = [], [], [], []
    for contact, normal in _contacts():
        touch = contact - AGENT_RADIUS * normal
        moved, agent = _measure(touch, normal, lengths)
        starts.append(touch - RUN_UP * normal)
        directions.append(normal)
        poses.append(moved)
        ends.append(outline_distance(to_block(agent, moved))[2])
    return PushLibrary(np.array(starts), np.array(directions), lengths, np.array(poses), np.array(ends))


def to_block(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Window points [..., 2] in the frames of blocks at poses [..., 3]."""
    offset = points - poses[..., :2]
    cos, sin = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    x, y = offset[..., 0], offset[..., 1]
    return np.stack((cos * x + sin * y, cos * y - sin * x), axis=-1)


def to_window(points: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Points [..., 2] in the frames of blocks at poses [..., 3], in the window."""
    cos, sin = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    x, y = points[..., 0], points[..., 1]
    return np.stack((poses[..., 0] + cos * x - sin * y, poses[..., 1] + sin * x + cos * y), axis=-1)


def _contacts() -> list[tuple[np.ndarray, np.ndarray]]:
    """Touching points on the outline that the agent's circle can reach, with inward normals."""
    found = []
    for corner, following in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        length = float(np.linalg.norm(following - corner))
        tangent = (following - corner) / length
        normal = np.array([-tangent[1], tangent[0]])
        count = round((length - 2 * CORNER_MARGIN) / CONTACT_SPACING) + 1
        for along in np.linspace(CORNER_MARGIN, length - CORNER_MARGIN, count):
            contact = corner + along * tangent
            agent = contact - (AGENT_RADIUS + 0.01) * normal
            if outline_distance(agent + SIDE_ROOM * np.stack((-tangent, tangent)))[0].min() >= AGENT_RADIUS:
                found.append((contact, normal))
    return found


def _measure(touch: np.ndarray, direction: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Push a block at the origin from `touch`: its poses [L, 3] and the agent's positions [L, 2] at the lengths."""
    import pymunk

    from .pusht import PushT

    space = pymunk.Space()
    space.damping = 0
    agent = PushT.add_circle(space, tuple(touch), AGENT_RADIUS)
    block, _ = PushT.add_tee(space, (0, 0), 0)
    block.angle, block.position = 0.0, (0.0, 0.0)
    agent.velocity = tuple(100.0 * direction)
    poses, positions = [], []
    for _ in range(int(lengths[-1])):
        space.step(0.01)  # 1 px
        poses.append((*block.position, block.angle))
        positions.append(tuple(agent.position))
    chosen = lengths.astype(int) - 1
    return np.array(poses)[chosen], np.array(positions)[chosen]
