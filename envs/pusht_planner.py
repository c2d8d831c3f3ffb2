"""Which push next: a beam search over the push library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .pusht_pushes import OUTLINE, RUN_UP, push_library, to_window
from .pusht_routes import ARC_CELL, WAYPOINTS, Floats, Routes, allowed, ways_between

GOAL_POSE = np.array([256.0, 256.0, np.pi / 4])
DEPTH, BEAM, SAME_CONTACT = 3, 120, 2
WAY_SPEED, PUSH_SPEED, PUSH_OVERHEAD = 14.0, 9.0, 15.0  # px per step, px per step, steps
STEPS_PER_HALVING = 30.0  # of the distance to go, pessimistic, so that a push which makes no progress never pays
FAR, STEPS_PER_PX = 20.0, 1.0  # px from which on the guess is linear, so that pushes away from the goal stay costly
LEAST_SHARE, LEAST_MOVE = 0.5, 30.0  # a push moves the corners by this share of the distance to go, or by so many px
WALLS = (7.0, 504.0)  # px, where the block may be

CENTRE = OUTLINE.mean(0)
SPREAD = float(((OUTLINE - CENTRE) ** 2).sum(-1).mean())


@dataclass(frozen=True)
class Plan:
    """One approach and one push.

    approach [K, 2]: window points from the agent to the beginning of the push. end [2]: where the push ends.
    cost: expected steps of the pushes searched and of what remains to be done after them.
    """

    approach: Floats
    end: Floats
    cost: float


@dataclass(frozen=True)
class _Moves:
    """The library's outcomes, flat [M] float32: where the corners' centre goes, the turn, how far corners move."""

    x: np.ndarray
    y: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    distance: np.ndarray


def pose_distance(poses: Floats, goal: Floats = GOAL_POSE) -> Floats:
    """Root mean square distance in px of the block's eight corners at poses [..., 3] from where `goal` has them."""
    shift = to_window(CENTRE, poses) - to_window(CENTRE, goal)
    distance: Floats = np.sqrt((shift**2).sum(-1) + 2 * SPREAD * (1 - np.cos(poses[..., 2] - goal[2])))
    return distance


@dataclass(frozen=True)
class _Nodes:
    """The S states of the search after equally many pushes.

    poses [S, 3]: of the block. cost [S]: steps so far. ways [S, contacts]: px from the agent to the start of each push,
    inf where there is no way. first [S]: the first move on the way here, flat in the library; None before any.
    """

    poses: Floats
    cost: Floats
    ways: Floats
    first: np.ndarray | None = None


def plan(agent: Floats, block: Floats) -> Plan | None:
    """The first push of the cheapest sequence of up to DEPTH pushes; None when no push can be reached.

    agent [2]: its position; block [3]: its pose. Both in px and radians.
    """
    library = push_library()
    routes = Routes(agent, block)
    nodes = _Nodes(block[None], np.zeros(1), routes.lengths(library.starts)[None])
    most_beyond = float(beyond_walls(block)) + 1
    best_total, best_first = np.inf, -1
    for _ in range(DEPTH):
        steps = _steps_after(nodes)
        total = steps + _steps_to_go(_distances_after(nodes.poses))
        if nodes.first is None:
            total[0, beyond_walls(_compose(block, library.poses)).ravel() > most_beyond] = np.inf
        node, move = np.unravel_index(total.argmin(), total.shape)
        if total[node, move] < best_total:
            best_total, best_first = float(total[node, move]), int(move if nodes.first is None else nodes.first[node])
        kept, moves = _keep(total)
        if not len(kept):
            break
        nodes = _moved(nodes, kept, moves, steps[kept, moves], most_beyond)
    if best_first < 0:
        return None
    contact, length = divmod(best_first, len(library.lengths))
    end = library.starts[contact] + (RUN_UP + library.lengths[length]) * library.directions[contact]
    return Plan(routes.path(library.starts[contact]), to_window(end, block), best_total)


def _steps_after(nodes: _Nodes) -> Floats:
    """Steps until the end of every move of the library from every node: [S, M], inf for moves that are not made."""
    library = push_library()
    free = allowed(to_window(library.starts, nodes.poses[:, None]))
    ways = np.where(free, nodes.ways, np.inf)
    push_steps = PUSH_OVERHEAD + (library.lengths + RUN_UP) / PUSH_SPEED
    steps = (nodes.cost[:, None, None] + ways[:, :, None] / WAY_SPEED + push_steps).reshape(len(nodes.poses), -1)
    least = np.minimum(LEAST_SHARE * pose_distance(nodes.poses), LEAST_MOVE)
    steps[_moves().distance < least[:, None]] = np.inf
    return steps


def _moved(nodes: _Nodes, kept: np.ndarray, moves: np.ndarray, steps: Floats, most_beyond: float) -> _Nodes:
    """The nodes that `moves` [K] lead to from the nodes `kept` [K], `steps` [K] after the beginning; where the block
    reaches more than `most_beyond` px beyond the walls, no move follows."""
    library = push_library()
    push, cut = np.divmod(moves, len(library.lengths))
    poses, cost = _compose(nodes.poses[kept], library.poses[push, cut]), steps
    cost[beyond_walls(poses) > most_beyond] = np.inf
    cells = (library.end_arcs[push, cut] / ARC_CELL).astype(int)
    corners = allowed(to_window(WAYPOINTS, poses[:, None]))
    ways = np.array([ways_between(tuple(row))[cell] for row, cell in zip(corners.tolist(), cells, strict=True)])
    return _Nodes(poses, cost, ways, moves if nodes.first is None else nodes.first[kept])


def _keep(total: Floats) -> tuple[np.ndarray, np.ndarray]:
    """The BEAM best (node, move) of totals [S, M], at most SAME_CONTACT of them from one node and contact."""
    cuts = len(push_library().lengths)
    by_contact = total.reshape(-1, cuts)
    best = np.argpartition(by_contact, SAME_CONTACT, axis=-1)[:, :SAME_CONTACT]
    flat = (np.arange(len(by_contact))[:, None] * cuts + best).ravel()
    flat = flat[np.argsort(total.ravel()[flat], kind="stable")[:BEAM]]
    return np.divmod(flat[np.isfinite(total.ravel()[flat])], total.shape[1])


@cache
def _moves() -> _Moves:
    poses = push_library().poses.reshape(-1, 3)
    centre = to_window(CENTRE, poses)
    parts = (centre[:, 0], centre[:, 1], np.cos(poses[:, 2]), np.sin(poses[:, 2]), pose_distance(poses, np.zeros(3)))
    return _Moves(*(part.astype(np.float32) for part in parts))


def _distances_after(poses: Floats) -> np.ndarray:
    """`pose_distance` after every move of the library from poses [S, 3]: [S, M] float32."""
    moves, goal = _moves(), to_window(CENTRE, GOAL_POSE)
    columns = (poses[:, 0] - goal[0], poses[:, 1] - goal[1], np.cos(poses[:, 2]), np.sin(poses[:, 2]))
    x, y, cos, sin = (column.astype(np.float32)[:, None] for column in columns)
    angle = poses[:, 2] - GOAL_POSE[2]
    cos_goal, sin_goal = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
    turn = 1 - cos_goal * moves.cos + sin_goal * moves.sin
    shift_x, shift_y = x + cos * moves.x - sin * moves.y, y + sin * moves.x + cos * moves.y
    distances: np.ndarray = np.sqrt(np.maximum(shift_x**2 + shift_y**2 + np.float32(2 * SPREAD) * turn, 0))
    return distances


def _steps_to_go(distances: np.ndarray) -> np.ndarray:
    """A pessimistic guess of the steps to the goal from `pose_distance`: so many a halving near it, linear far away."""
    near = np.minimum(distances, FAR)
    steps: np.ndarray = STEPS_PER_HALVING * np.log2(1 + near / 2) + STEPS_PER_PX * (distances - near)
    return steps


def beyond_walls(poses: Floats) -> Floats:
    """How far in px a block at poses [..., 3] reaches beyond the walls: [...]."""
    corners = to_window(OUTLINE, poses[..., None, :])
    beyond: Floats = np.maximum(WALLS[0] - corners, corners - WALLS[1]).max((-1, -2)).clip(0)
    return beyond


def _compose(poses: Floats, moves: Floats) -> Floats:
    """Poses [..., 3] moved by `moves` [..., 3] given in their own frames."""
    return np.concatenate((to_window(moves[..., :2], poses), poses[..., 2:] + moves[..., 2:]), axis=-1)
