from __future__ import annotations

import math
import os

import cv2
import numpy as np
import pytest

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import pygame

from policy_accel.envs.pusht import PushT
from policy_accel.envs.pusht_drawing import fill_polygon, small_picture

SIDE = 40
RED = (255, 0, 0, 255)


def filled(points: list[tuple[int, int]]) -> np.ndarray:
    surface = pygame.Surface((SIDE, SIDE), depth=32)
    fill_polygon(surface, RED, points)
    return pygame.surfarray.array3d(surface)[..., 0].T > 0  # [row, column]


def scanned(points: list[tuple[int, int]]) -> np.ndarray:
    """The pixels of a convex polygon, line by line, as a C compiler divides: towards zero."""
    picture = np.zeros((SIDE, SIDE), dtype=bool)
    for y in range(min(y for _, y in points), max(y for _, y in points) + 1):
        crossings = []
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], *points[:1]], strict=True):
            if y1 == y2 == y:
                crossings += [x1, x2]
            elif min(y1, y2) <= y <= max(y1, y2) and y1 != y2:
                (upper, y_upper), (lower, y_lower) = sorted([(x1, y1), (x2, y2)], key=lambda point: point[1])
                crossings.append(upper + math.trunc((y - y_upper) * (lower - upper) / (y_lower - y_upper)))
        for x in range(min(crossings), max(crossings) + 1):
            if 0 <= x < SIDE and 0 <= y < SIDE:
                picture[y, x] = True
    return picture


def rectangles(count: int) -> list[list[tuple[int, int]]]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        centre, angle = generator.uniform(-5, SIDE + 5, 2), generator.uniform(0, np.pi)
        along, across = generator.uniform(0, 25, 2)
        corners = np.array([[-along, -across], [along, -across], [along, across], [-along, across]])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        found.append([(round(x), round(y)) for x, y in corners @ turn.T + centre])
    return found


def test_polygons_are_filled_line_by_line():
    for points in rectangles(200):
        np.testing.assert_array_equal(filled(points), scanned(points), err_msg=str(points))


def test_upright_rectangles_are_those_of_pygame():
    for (x, y), (right, bottom) in (((3, 5), (30, 9)), ((0, 0), (39, 39)), ((-4, 6), (7, 60)), ((50, 3), (60, 9))):
        points = [(x, y), (right, y), (right, bottom), (x, bottom)]
        surface = pygame.Surface((SIDE, SIDE), depth=32)
        pygame.draw.polygon(surface, RED, points)
        np.testing.assert_array_equal(filled(points), pygame.surfarray.array3d(surface)[..., 0].T > 0)


@pytest.mark.parametrize("points", [[(5, 7), (9, 7), (12, 7)], [(4, 3), (4, 3), (4, 9)]])
def test_polygons_without_area_are_lines(points):
    np.testing.assert_array_equal(filled(points), scanned(points))
    assert filled(points).sum() in (8, 7)


def test_a_small_picture_is_the_scaled_window():
    env = PushT(observation="image")
    env.reset(seed=4)
    surface = env._draw()
    window = np.ascontiguousarray(pygame.surfarray.array3d(surface).transpose(1, 0, 2))
    np.testing.assert_array_equal(small_picture(surface, 96), cv2.resize(window, (96, 96)))
    assert len(np.unique(window.reshape(-1, 3), axis=0)) >= 6
