from __future__ import annotations

import numpy as np
import pytest

from policy_accel.envs.pusht import PushT
from policy_accel.envs.pusht_planner import plan, pose_distance
from policy_accel.envs.pusht_pushes import (
    AGENT_RADIUS,
    OUTLINE,
    outline_distance,
    push_library,
    to_block,
    to_window,
)
from policy_accel.envs.pusht_routes import Routes, ways_between

GOAL = np.array([256.0, 256.0, np.pi / 4])


def test_the_outline_is_the_block_of_the_simulator():
    env = PushT()
    env.reset(options={"state": [50, 50, 256, 256, 1.2]})
    corners = np.array([env.block.local_to_world(v) for shape in env.block.shapes for v in shape.get_vertices()])
    expected = to_window(OUTLINE, np.array([256, 256, 1.2]))
    for corner in corners:
        assert np.linalg.norm(expected - corner, axis=1).min() < 1e-9


def test_distance_to_the_outline_by_brute_force():
    points = np.random.default_rng(0).uniform(-120, 200, (300, 2))
    edges = np.roll(OUTLINE, -1, axis=0) - OUTLINE
    dense = (OUTLINE[:, None] + np.linspace(0, 1, 600)[:, None] * edges[:, None]).reshape(-1, 2)
    brute = np.linalg.norm(points[:, None] - dense, axis=-1).min(1)
    inside = ((abs(points[:, 0]) < 60) & (abs(points[:, 1] - 15) < 15)) | (
        (abs(points[:, 0]) < 15) & (abs(points[:, 1] - 60) < 60)
    )
    np.testing.assert_allclose(outline_distance(points)[0], np.where(inside, 0, brute), atol=0.15)


def test_frames_are_inverse():
    points = np.random.default_rng(1).normal(size=(5, 2))
    pose = np.array([30.0, -4.0, 2.2])
    np.testing.assert_allclose(to_block(to_window(points, pose), pose), points, atol=1e-12)


@pytest.mark.parametrize("push", [3, 30, 60])
def test_a_push_of_the_library_does_the_same_in_the_environment(push):
    library = push_library()
    pose, length = np.array([250.0, 270.0, 2.0]), 40
    cut = int(np.abs(library.lengths - length).argmin())
    touch = library.starts[push] + 20 * library.directions[push]
    goal = to_window(touch + library.lengths[cut] * library.directions[push], pose)
    env = PushT()
    state, _ = env.reset(options={"state": [*to_window(library.starts[push], pose), *pose]})
    way = goal - state[:2]
    for share in (*np.linspace(0.1, 1, 8), *[1] * 8):
        state, *_ = env.step(state[:2] * 0 + goal - (1 - share) * way)
    turned = library.poses[push, cut]
    expected = np.array([*to_window(turned[:2], pose), pose[2] + turned[2]])
    assert pose_distance(expected, pose) > 15
    assert pose_distance(state[2:].astype(float), expected) < 0.1 * pose_distance(expected, pose)


def test_pose_distance_by_hand():
    moved = GOAL + np.array([3.0, 4.0, 0.0])
    assert pose_distance(GOAL) == pytest.approx(0)
    assert pose_distance(moved) == pytest.approx(5)
    turned = np.array([10.0, 20.0, 0.3])
    shift = to_window(OUTLINE, turned) - to_window(OUTLINE, GOAL)
    assert pose_distance(turned) == pytest.approx(np.sqrt((shift**2).sum(1).mean()))


def test_ways_go_around_the_block_and_are_shortest_in_the_open():
    block = np.array([256.0, 200.0, 0.0])
    open_way = Routes(np.array([100.0, 450.0]), block).path(np.array([-100.0, 200.0]))
    np.testing.assert_allclose(np.linalg.norm(np.diff(open_way, axis=0), axis=1).sum(), np.hypot(56, 50), atol=1e-6)
    routes = Routes(np.array([256.0, 150.0]), block)
    target = np.array([0.0, 160.0])
    path = routes.path(target)
    pieces = [path[i] + s * (path[i + 1] - path[i]) for i in range(len(path) - 1) for s in np.linspace(0, 1, 50)]
    assert outline_distance(to_block(np.array(pieces), block))[0].min() > AGENT_RADIUS
    length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    assert routes.lengths(target[None])[0] == pytest.approx(length)
    assert length > 300  # through the block it would be 210


def test_ways_between_pushes_are_ways_of_an_agent_that_touches():
    library, block = push_library(), np.array([256.0, 256.0, 0.0])
    agent = np.array([256.0 - 57 + 3 * 6, 256 - AGENT_RADIUS])  # touches the top side in the middle of cell 3
    expected = Routes(agent, block).lengths(library.starts)
    np.testing.assert_allclose(ways_between((True,) * 6)[3], expected, rtol=1e-9)


def test_ways_near_a_wall_do_not_lead_behind_the_block():
    block = np.array([256.0, 28.0, 0.0])  # the top side is 28 px from the upper wall
    library = push_library()
    agent = np.array([256.0 + 15 + AGENT_RADIUS, 28 + 72.0])  # touches the stem from the right in the middle of cell 39
    routes = Routes(agent, block)
    expected = routes.lengths(library.starts)
    assert routes.path(library.starts[-1])[:, 1].min() > 8
    open_corners = (False, False, True, True, True, True)
    np.testing.assert_allclose(ways_between(open_corners)[39], expected, rtol=1e-9)
    assert (ways_between((True,) * 6)[39] < expected - 1).any()


def test_one_push_is_enough_where_one_push_is_enough():
    library = push_library()
    push, cut = 10, 20
    turned = library.poses[push, cut]
    angle = GOAL[2] - turned[2]
    pose = np.array([*(GOAL[:2] - to_window(turned[:2], np.array([0, 0, angle]))), angle])
    agent = to_window(library.starts[push] - 30 * library.directions[push], pose)
    chosen = plan(agent, pose)
    end = library.starts[push] + (20 + library.lengths[cut]) * library.directions[push]
    np.testing.assert_allclose(chosen.end, to_window(end, pose), atol=4)
    np.testing.assert_allclose(chosen.approach[[0, -1]], [agent, to_window(library.starts[push], pose)], atol=6)
