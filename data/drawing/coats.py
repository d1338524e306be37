"""Coats: how stripes, points, patches, white fronts and spots lie on a body, a head, a leg, an ear or a tail.

Coat("stripes", PALETTES["ginger"], seed=3).part(pen, outline, "body", (0, 0, 1, 1))
"""

import random
from dataclasses import dataclass

from drawing.colours import Colour, Palette, darker, ink, mix
from drawing.pen import Pen
from drawing.shapes import Outline, curve, ellipse, tube

PATTERNS = ("stripes", "points", "plain", "patches", "bicolour", "spots")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Coat:
    """A pattern in a palette's colours; the seed says where its marks lie."""

    pattern: str
    palette: Palette
    seed: int

    @property
    def ground(self) -> Colour:
        """The colour under the marks."""
        pale = {"points": 0.45, "patches": 0.88, "spots": 0.55}.get(self.pattern, 0.0)
        return mix(self.palette.base, self.palette.light, pale)

    @property
    def muzzle(self) -> Colour:
        """The colour of the snout."""
        if self.pattern == "points":
            return mix(self.palette.mark, self.ground, 0.22)
        return mix(self.palette.base, self.palette.light, 0.6 if self.pattern in ("plain", "stripes") else 0.95)

    @property
    def face(self) -> Colour:
        """The colour round the eyes."""
        return mix(self.palette.mark, self.ground, 0.3) if self.pattern == "points" else self.ground

    def of(self, kind: str) -> Colour:
        """The colour a part is filled with before its marks."""
        if self.pattern == "points" and kind in ("ear", "tail"):
            return self.palette.mark
        if self.pattern == "patches" and kind in ("ear", "tail"):
            return self.palette.base if self.seed % 2 else self.palette.mark
        if self.pattern == "spots" and kind == "ear":
            return mix(self.ground, self.palette.mark, 0.55)
        return self.ground

    def part(self, pen: Pen, outline: Outline, kind: str, box: Box, dim: float = 1.0, joint: int = 0) -> None:
        """Draw one part of the animal with its marks; `box` is the middle and the radii of the part.

        A limb's first and last `joint` points get no edge: there it grows out of the body.
        """
        colour = darker(self.of(kind), dim)
        pen.fill(outline, colour)
        draw = _MARKS.get((self.pattern, kind))
        if draw:
            with pen.inside(outline) as inner:
                draw(inner, self, box, random.Random(self.seed + len(kind)))
        pen.shade(outline)
        pen.edge(outline, ink(colour), joint=joint)


def _body_stripes(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    for place in range(-3, 4):
        at = x + place * across * 0.3 + chance.uniform(-0.05, 0.05)
        lean, end = chance.uniform(-0.1, 0.1), y + down * chance.uniform(-0.25, 0.2)
        points = [(at, y - down * 1.15), (at + lean, (y - down + end) / 2), (at - lean, end)]
        pen.fill(tube(points, (0.13, 0.1, 0.02)), coat.palette.mark)


def _head_stripes(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    for place in (-0.3, 0.0, 0.3):
        points = [(x + place * 1.25 * across, y - down * 1.1), (x + place * across * 0.8, y - down * 0.48)]
        pen.fill(tube(points, (0.11, 0.03)), coat.palette.mark)
    for side in (-1, 1):
        for low in (0.12, 0.4):
            points = [(x + side * across * 1.1, y + low * down), (x + side * across * 0.66, y + (low + 0.06) * down)]
            pen.fill(tube(points, (0.09, 0.02)), coat.palette.mark)


def _bands(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    for place in (-0.5, -0.05, 0.4):
        top = y + place * down + chance.uniform(-0.05, 0.05)
        pen.line([(x - across * 1.2, top), (x, top + 0.06), (x + across * 1.2, top)], coat.palette.mark, 0.11)


def _dark_end(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    pen.soft(ellipse(x, y + down, across * 2.2, down * 0.95), coat.palette.mark, 0.95, 0.1)


def _dark_face(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    pen.soft(ellipse(x, y + 0.25 * down, across * 0.62, down * 0.66), coat.palette.mark, 0.85, 0.14)


def _patches(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    sides = [(-0.62, -0.62), (0.66, -0.3), (0.0, 0.55), (0.05, -0.95)]
    first = chance.randrange(2)
    for i, (u, v) in enumerate(sides[: chance.choice((3, 4))]):
        colour = coat.palette.base if (i + first) % 2 else coat.palette.mark
        spread = [chance.uniform(0.75, 1.2) * 0.48 for _ in range(7)]
        ring = ellipse(0, 0, 1, 1)[::6]
        middle = (x + (u + chance.uniform(-0.15, 0.15)) * across, y + (v + chance.uniform(-0.1, 0.1)) * down)
        blob = [(middle[0] + a * r * across, middle[1] + b * r * down) for (a, b), r in zip(ring, spread, strict=True)]
        pen.fill(curve(blob, closed=True), colour)


def _head_patches(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    first, other = (coat.palette.base, coat.palette.mark)[:: chance.choice((1, -1))]
    pen.fill(ellipse(x - across * 0.66, y - down * 0.42, across * 0.56, down * 0.72, 20), first)
    pen.fill(ellipse(x + across * 0.68, y - down * 0.4, across * 0.54, down * 0.7, -20), other)


def _white_face(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    wide = chance.uniform(0.1, 0.2)
    right = [(0, -1.05), (wide, -0.8), (wide * 0.9, -0.2), (0.6, 0.22), (0.8, 0.8), (0, 1.2)]
    left = [(-u, v) for u, v in right[::-1][:-1]]
    points = [(x + u * across, y + v * down) for u, v in right + left]
    pen.fill(curve(points, closed=True), coat.palette.light)


def _white_front(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    pen.fill(ellipse(x + chance.uniform(-0.05, 0.05), y + down * 0.05, across * 0.55, down * 0.9), coat.palette.light)


def _white_belly(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    pen.fill(ellipse(x + across * 0.2, y + down * 0.95, across * 1.1, down * 0.6, -8), coat.palette.light)


def _white_end(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    pen.fill(ellipse(x, y + down * 0.9, across * 2.4, down * 0.7), coat.palette.light)


def _spots(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    for row in range(-3, 4):
        for column in range(-3, 4):
            u, v = (column + 0.5 * (row % 2)) * 0.32, row * 0.32
            size = chance.uniform(0.075, 0.15)
            at = (x + (u + chance.uniform(-0.08, 0.08)) * across, y + (v + chance.uniform(-0.08, 0.08)) * down)
            pen.fill(ellipse(*at, size, size * chance.uniform(0.7, 1.0), chance.uniform(0, 90)), coat.palette.mark)


def _head_spots(pen: Pen, coat: Coat, box: Box, chance: random.Random) -> None:
    x, y, across, down = box
    for u, v in ((-0.5, -0.68), (0.1, -0.78), (0.55, -0.6), (-0.85, -0.1), (0.86, -0.05), (-0.75, 0.45), (0.72, 0.5)):
        size = chance.uniform(0.07, 0.13)
        at = (x + (u + chance.uniform(-0.08, 0.08)) * across, y + v * down)
        pen.fill(ellipse(*at, size, size * 0.85, chance.uniform(0, 90)), coat.palette.mark)


_MARKS = {
    ("stripes", "body"): _body_stripes,
    ("stripes", "front"): _body_stripes,
    ("stripes", "head"): _head_stripes,
    ("stripes", "leg"): _bands,
    ("points", "leg"): _dark_end,
    ("points", "head"): _dark_face,
    ("patches", "body"): _patches,
    ("patches", "front"): _patches,
    ("patches", "head"): _head_patches,
    ("bicolour", "body"): _white_belly,
    ("bicolour", "front"): _white_front,
    ("bicolour", "head"): _white_face,
    ("bicolour", "leg"): _white_end,
    ("spots", "body"): _spots,
    ("spots", "front"): _spots,
    ("spots", "head"): _head_spots,
    ("spots", "leg"): _head_spots,
}
