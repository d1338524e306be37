"""Outlines as lists of points: curves, ellipses, tapered tubes, fur; nothing here knows of pixels or colours.

outline = tufted(ellipse(0, 0, 1, 0.8), count=24, depth=0.1)
"""

import math
from collections.abc import Sequence

Point = tuple[float, float]
Outline = list[Point]


def curve(points: Sequence[Point], closed: bool = False, steps: int = 8) -> Outline:
    """A smooth (Catmull-Rom) line through all the points; closed, it is a rounded shape."""
    count = len(points)
    spans = count if closed else count - 1
    line = [_along(_four(points, i, closed), step / steps) for i in range(spans) for step in range(steps)]
    return line if closed else [*line, points[-1]]


def _four(points: Sequence[Point], i: int, closed: bool) -> list[Point]:
    last = len(points) - 1
    return [points[j % len(points)] if closed else points[min(max(j, 0), last)] for j in range(i - 1, i + 3)]


def _along(four: list[Point], t: float) -> Point:
    return tuple(
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(*four, strict=True)
    )


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Outline:
    """An ellipse by its centre, its two radii and its turn in degrees."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    ring = [(across * math.cos(i * math.pi / 20), down * math.sin(i * math.pi / 20)) for i in range(40)]
    return [(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in ring]


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """A rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def both_sides(right: Sequence[Point]) -> Outline:
    """A closed, rounded shape from the points of its right half, top to bottom."""
    left = [(-x, y) for x, y in reversed(right) if abs(x) > 1e-9]
    return curve([*right, *left], closed=True)


def tube(points: Sequence[Point], widths: Sequence[float]) -> Outline:
    """A limb: a smooth line with a half width at each of its points, and a round far end."""
    line = curve(points)
    reach = [_between(widths, i / (len(line) - 1)) for i in range(len(line))]
    normals = [_normal(line, i) for i in range(len(line))]
    one = [(x + u * r, y + v * r) for (x, y), (u, v), r in zip(line, normals, reach, strict=True)]
    other = [(x - u * r, y - v * r) for (x, y), (u, v), r in zip(line, normals, reach, strict=True)]
    return one + _cap(line[-1], normals[-1], reach[-1]) + other[::-1]


def _cap(end: Point, normal: Point, radius: float) -> Outline:
    start = math.atan2(normal[1], normal[0])
    turns = [start - math.pi * i / 8 for i in range(1, 8)]
    return [(end[0] + radius * math.cos(turn), end[1] + radius * math.sin(turn)) for turn in turns]


def _between(values: Sequence[float], t: float) -> float:
    place = t * (len(values) - 1)
    low = min(int(place), len(values) - 2)
    return values[low] + (values[low + 1] - values[low]) * (place - low)


def _normal(line: Sequence[Point], i: int) -> Point:
    (x0, y0), (x1, y1) = line[max(i - 1, 0)], line[min(i + 1, len(line) - 1)]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    return -(y1 - y0) / length, (x1 - x0) / length


def tufted(outline: Outline, count: int, depth: float) -> Outline:
    """The shape with pointed tufts of fur all round, each leaning a little downwards."""
    ring, centre = evenly(outline, count), middle(outline)
    tips = [_outwards(halfway(a, b), centre, depth) for a, b in _neighbours(ring)]
    return [point for base, (x, y) in zip(ring, tips, strict=True) for point in (base, (x, y + depth * 0.5))]


def curled(outline: Outline, count: int, depth: float) -> Outline:
    """The shape with round curls of wool all round."""
    ring, centre = evenly(outline, count), middle(outline)
    tops = [_outwards(halfway(a, b), centre, depth) for a, b in _neighbours(ring)]
    bumps = [_bump(a, top, b) for (a, b), top in zip(_neighbours(ring), tops, strict=True)]
    return [point for bump in bumps for point in bump]


def _bump(start: Point, top: Point, end: Point) -> Outline:
    shoulder, other = _beyond(start, end, top), _beyond(end, start, top)
    return [start, shoulder, top, other]


def _beyond(near: Point, far: Point, top: Point) -> Point:
    x, y = near[0] + 0.14 * (far[0] - near[0]), near[1] + 0.14 * (far[1] - near[1])
    foot = halfway(near, far)
    return x + 0.75 * (top[0] - foot[0]), y + 0.75 * (top[1] - foot[1])


def _neighbours(ring: Outline) -> list[tuple[Point, Point]]:
    return list(zip(ring, ring[1:] + ring[:1], strict=True))


def _outwards(point: Point, centre: Point, depth: float) -> Point:
    x, y = point[0] - centre[0], point[1] - centre[1]
    length = math.hypot(x, y) or 1.0
    return point[0] + x / length * depth, point[1] + y / length * depth


def halfway(a: Point, b: Point) -> Point:
    """The point between two points."""
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def middle(outline: Outline) -> Point:
    """The mean of an outline's points."""
    return sum(x for x, _ in outline) / len(outline), sum(y for _, y in outline) / len(outline)


def evenly(outline: Outline, count: int) -> Outline:
    """`count` points at equal distances along a closed outline."""
    ends = outline[1:] + outline[:1]
    sides = [math.dist(a, b) for a, b in zip(outline, ends, strict=True)]
    step, walked, chosen = sum(sides) / count, 0.0, []
    for (x, y), (u, v), side in zip(outline, ends, sides, strict=True):
        while side and len(chosen) < count and len(chosen) * step <= walked + side:
            share = (len(chosen) * step - walked) / side
            chosen.append((x + (u - x) * share, y + (v - y) * share))
        walked += side
    return chosen


def moved(outline: Outline, x: float, y: float) -> Outline:
    """The outline, shifted."""
    return [(u + x, v + y) for u, v in outline]
