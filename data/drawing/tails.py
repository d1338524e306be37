"""Tails: slim and bushy ones of cats, tapered, curled and pompom ones of dogs.

tail(pen, animal, lift=0.5)
"""

from drawing.animals import Animal
from drawing.colours import mix
from drawing.pen import Pen
from drawing.shapes import Outline, curled, curve, ellipse, tube, tufted

# Each runs from the rump at (0, 0) to the left, in units of the head's radius: points, then half widths.
_LINES = {
    "slim": ([(0.2, 0.1), (-0.5, 0.1), (-0.95, -0.5), (-0.8, -1.3), (-1.15, -1.85)], (0.16, 0.15, 0.14, 0.13)),
    "bushy": ([(0.2, 0.1), (-0.5, 0.0), (-1.0, -0.5), (-1.05, -1.2)], (0.2, 0.4, 0.46, 0.26)),
    "whip": ([(0.2, 0.0), (-0.3, 0.3), (-0.55, 0.85), (-0.95, 1.1)], (0.15, 0.1, 0.07, 0.04)),
    "sabre": ([(0.2, 0.1), (-0.35, -0.25), (-0.65, -0.75), (-0.72, -1.2)], (0.24, 0.2, 0.14, 0.05)),
    "ring": ([(0.2, 0.2), (-0.4, -0.3), (-0.25, -0.95), (0.35, -0.95), (0.4, -0.5)], (0.24, 0.32, 0.32, 0.16)),
    "pompom": ([(0.2, 0.1), (-0.25, -0.35), (-0.4, -0.75)], (0.14, 0.12, 0.11)),
}


def tail(pen: Pen, animal: Animal) -> None:
    """The animal's tail; the pen's origin is where it grows."""
    kind = animal.breed.tail
    points, widths = _LINES[kind]
    outline = tube(points, widths)
    if kind in ("bushy", "ring"):
        outline = tufted(outline, 22, 0.12)
    animal.coat.part(pen, outline, "tail", (0, 0, 1, 1))
    with pen.inside(outline):
        _marks(pen, animal, points)
    if kind == "pompom":
        animal.coat.part(pen, curled(ellipse(-0.42, -0.9, 0.34, 0.34), 11, 0.1), "tail", (0, 0, 1, 1))


def _marks(pen: Pen, animal: Animal, points: Outline) -> None:
    line, palette = curve(points), animal.coat.palette
    if animal.coat.pattern == "stripes":
        for x, y in line[6::5]:
            pen.fill(ellipse(x, y, 0.5, 0.07, 10), palette.mark)
    if animal.coat.pattern in ("bicolour", "patches"):
        pen.fill(ellipse(*line[-1], 0.4, 0.4), palette.light)
    if animal.coat.pattern == "spots":
        for x, y in line[6::6]:
            pen.fill(ellipse(x, y, 0.1, 0.08), mix(palette.mark, palette.base, 0.1))
