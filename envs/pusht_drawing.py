"""The Push-T window as Diffusion Policy's demonstrations show it, pixel for pixel, whatever pygame is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pygame
import pymunk
from gym_pusht.envs.pymunk_override import DrawOptions, light_color, to_pygame

WINDOW = 512
EDGE_RADIUS = 2  # of the outline of a block, px
GOAL_COLOR = "LightGreen"
FAR = 2**31

Point = tuple[int, int]
Color = str | tuple[int, int, int, int]


def fill_polygon(surface: pygame.Surface, color: Color, points: Sequence[Point]) -> None:
    """Fill a convex polygon with the pixels that pygame before 2.6 gives it.

    The demonstrations were drawn by such a version: on each line of pixels it cuts an edge's horizontal distance from
    the edge's upper end to a whole number, towards that end. Since 2.6 pygame rounds down instead, and edges that lean
    to the left are drawn one pixel further left. The border belongs to the polygon; what is outside the surface is cut.
    """
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    lines = np.arange(top, bottom + 1)
    left, right = np.full(len(lines), FAR), np.full(len(lines), -FAR)
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        (x1, y1), (x2, y2) = (start, end) if start[1] <= end[1] else (end, start)
        rows = slice(y1 - top, y2 - top + 1)
        distance = (lines[rows] - y1) * abs(x2 - x1) // max(y2 - y1, 1)
        crossings = x1 + distance if x2 > x1 else x1 - distance
        np.minimum(left[rows], crossings, out=left[rows])
        np.maximum(right[rows], crossings, out=right[rows])
        if y1 == y2:
            left[rows], right[rows] = np.minimum(left[rows], x2), np.maximum(right[rows], x2)
    # Cut at the surface: columns and rows that are not there must not count from the other end.
    width, height = surface.get_size()
    shown = slice(max(0, -top), max(0, height - top))
    left, right = left[shown], right[shown]
    columns = np.arange(max(0, min(x for x, _ in points)), min(width, max(x for x, _ in points) + 1))[:, None]
    if len(columns) and len(left):
        pixels = pygame.surfarray.pixels2d(surface)  # [width, height]
        box = pixels[columns[0, 0] : columns[-1, 0] + 1, max(top, 0) : bottom + 1]
        box[(columns >= left) & (columns <= right)] = surface.map_rgb(pygame.Color(color))


class PushTDrawOptions(DrawOptions):  # type: ignore[misc]  # gym-pusht has no types
    """gym-pusht's drawing of bodies with this module's polygons."""

    def draw_fat_segment(self, a: Any, b: Any, radius: float, outline_color: Any, fill_color: Any) -> None:
        """A segment from a to b with round ends, `radius` px on either side."""
        color, (start, end) = fill_color.as_int(), (to_pygame(point, self.surface) for point in (a, b))
        width = round(max(1, 2 * radius))
        pygame.draw.lines(self.surface, color, False, [start, end], width)
        length = np.hypot(end[0] - start[0], end[1] - start[1])
        if width <= 2 or length == 0:
            return
        # The original takes both components as positive, so that some outlines are thinner than others.
        across = round(abs(end[1] - start[1]) * radius / length), round(abs(end[0] - start[0]) * radius / length)
        corners = [
            (start[0] - across[0], start[1] - across[1]),
            (start[0] + across[0], start[1] + across[1]),
            (end[0] + across[0], end[1] + across[1]),
            (end[0] - across[0], end[1] - across[1]),
        ]
        fill_polygon(self.surface, color, corners)
        for point in (start, end):
            pygame.draw.circle(self.surface, color, point, round(radius))

    def draw_polygon(self, verts: Sequence[Any], radius: float, outline_color: Any, fill_color: Any) -> None:
        """A filled block with an outline of `EDGE_RADIUS`."""
        corners = [to_pygame(vertex, self.surface) for vertex in verts]
        fill_polygon(self.surface, light_color(fill_color).as_int(), corners)
        for i, vertex in enumerate(verts):
            self.draw_fat_segment(vertex, verts[(i + 1) % len(verts)], EDGE_RADIUS, fill_color, fill_color)


def draw_window(space: pymunk.Space, goal: Sequence[Sequence[pymunk.Vec2d]]) -> pygame.Surface:
    """The window of 512 x 512 px: the goal, and over it walls, agent and block.

    Args:
        space: the simulated bodies.
        goal: corners, in px, of the convex polygons that make up the goal.
    """
    surface = pygame.Surface((WINDOW, WINDOW), depth=32)
    surface.fill("white")
    options = PushTDrawOptions(surface)
    for corners in goal:
        fill_polygon(surface, GOAL_COLOR, [to_pygame(corner, surface) for corner in corners])
    space.debug_draw(options)
    return surface


def small_picture(surface: pygame.Surface, size: int) -> np.ndarray:
    """The window of `draw_window`, scaled down bilinearly as in the demonstrations: [size, size, 3] uint8."""
    flat = np.frombuffer(surface.get_buffer(), np.uint8)  # type: ignore[call-overload]
    pixels = flat.reshape(surface.get_height(), surface.get_width(), 4)
    order = [shift // 8 for shift in surface.get_shifts()[:3]]
    picture: np.ndarray = cv2.resize(pixels, (size, size))[:, :, order]
    return picture
