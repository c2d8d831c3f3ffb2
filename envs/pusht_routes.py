"""The agent's way around the block to the beginning of a push."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .pusht_pushes import AGENT_RADIUS, OUTLINE, outline_distance, push_library, to_block, to_window

Floats = NDArray[np.float64]

CLEARANCE = AGENT_RADIUS + 11.0  # px from the agent's centre to the block on its way around
TOUCHING = AGENT_RADIUS + 4.0  # a way that comes closer than this to the block is not free
BOUNDS = (8.0, 504.0)  # px, where the agent may go
ARC_CELL = 6.0  # px of the outline that share their ways to the next push

_CORNERS = np.array([(-60, 0), (60, 0), (60, 30), (15, 120), (-15, 120), (-60, 30)], dtype=np.float64)
_OUTWARD = np.array([(-1, -1), (1, -1), (1, 1), (1, 1), (-1, 1), (-1, 1)], dtype=np.float64)
WAYPOINTS = _CORNERS + CLEARANCE * _OUTWARD
"""[6, 2] px, in the frame of the block: the corners of the convex turns at CLEARANCE."""


def allowed(points: Floats) -> np.ndarray:
    """Whether the agent may go to window points [..., 2]."""
    return np.asarray(np.all((points > BOUNDS[0]) & (points < BOUNDS[1]), axis=-1))


@cache
def ways_between(open_corners: tuple[bool, ...]) -> Floats:
    """[cells, C] px: ways around the block from touching each ARC_CELL of its outline to each push of the library.

    open_corners [6]: which WAYPOINTS the agent may use, the others being behind a wall.
    """
    to_corners, between, to_starts, ways = _free_between()
    inner = np.flatnonzero(open_corners)
    between = _shortest(between[np.ix_(inner, inner)])[0]
    around = (to_corners[:, inner, None] + between).min(1, initial=np.inf)
    shortest: Floats = np.minimum(ways, (around[:, :, None] + to_starts[inner]).min(1, initial=np.inf))
    return CLEARANCE - AGENT_RADIUS + shortest  # it backs off first


@cache
def _free_between() -> tuple[Floats, ...]:
    """Lengths of the straight ways among the places beside each ARC_CELL, corners and pushes."""
    edges = np.roll(OUTLINE, -1, axis=0) - OUTLINE
    lengths = np.linalg.norm(edges, axis=1)
    ends = np.cumsum(lengths)
    places = []
    for arc in np.arange(ARC_CELL / 2, ends[-1], ARC_CELL):
        side = int(np.searchsorted(ends, arc))
        tangent = edges[side] / lengths[side]
        touch = OUTLINE[side] + (arc - ends[side] + lengths[side]) * tangent
        places.append(touch + CLEARANCE * np.array([tangent[1], -tangent[0]]))
    leaves, starts = np.array(places), push_library().starts
    return (
        _free_lengths(leaves, WAYPOINTS),
        _free_lengths(WAYPOINTS, WAYPOINTS),
        _free_lengths(WAYPOINTS, starts),
        _free_lengths(leaves, starts),
    )


def _shortest(lengths: Floats) -> tuple[Floats, np.ndarray]:
    """Floyd and Warshall: shortest lengths [K, K] over all nodes, and the node [K, K] that follows on the way."""
    lengths = lengths.copy()
    np.fill_diagonal(lengths, 0)
    follow = np.tile(np.arange(len(lengths)), (len(lengths), 1))
    for middle in range(len(lengths)):
        through = lengths[:, middle, None] + lengths[middle]
        better = through < lengths
        follow = np.where(better, follow[:, middle, None], follow)
        lengths = np.where(better, through, lengths)
    return lengths, follow


class Routes:
    """Ways for the agent around a block that stands still: straight pieces over the six waypoints."""

    def __init__(self, agent: Floats, block: Floats) -> None:
        self.block = block
        self.agent = to_block(agent, block)
        distance, foot, _ = (part[0] for part in outline_distance(self.agent[None]))
        away = (self.agent - foot) / max(float(np.linalg.norm(self.agent - foot)), 1e-6)
        self.leave = self.agent + max(CLEARANCE - distance, 0.0) * away
        corners = WAYPOINTS[allowed(to_window(WAYPOINTS, block))]
        self.nodes = np.concatenate((self.leave[None], corners))
        self.gaps, self.follow = _shortest(_free_lengths(self.nodes, self.nodes))

    def lengths(self, targets: Floats) -> Floats:
        """Length in px of the shortest free way from the agent to each of targets [C, 2] (frame of the block)."""
        lengths: Floats = self._through(targets).min(0) + np.linalg.norm(self.leave - self.agent)
        return lengths

    def path(self, target: Floats) -> Floats:
        """The shortest free way to one target [2] in the frame of the block, as window points [K, 2]."""
        last = int(self._through(target[None])[:, 0].argmin())
        points, node = [self.agent, self.leave], 0
        while node != last:
            node = int(self.follow[node, last])
            points.append(self.nodes[node])
        return to_window(np.array([*points, target]), self.block)

    def _through(self, targets: Floats) -> Floats:
        ways: Floats = self.gaps[0][:, None] + _free_lengths(self.nodes, targets)
        return ways


def _free_lengths(starts: Floats, ends: Floats) -> Floats:
    """Lengths [S, E] of the straight ways between points that do not touch the block, infinite for the others."""
    shares = np.linspace(0, 1, 24)[:, None]
    ways = starts[:, None, None] + shares * (ends[:, None] - starts[:, None, None])
    nearest = outline_distance(ways.reshape(-1, 2))[0].reshape(ways.shape[:-1]).min(-1)
    return np.where(nearest >= TOUCHING, np.linalg.norm(starts[:, None] - ends, axis=-1), np.inf)
