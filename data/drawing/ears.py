"""Ears: upright and folded ones of cats, hanging and upright ones of dogs, from the front and from the side.

ear(pen, animal, "pointed")
"""

from drawing.animals import Animal
from drawing.colours import PINK, mix
from drawing.pen import Pen
from drawing.shapes import Outline, curled, curve, ellipse, middle, moved

# Each is the outline of the right ear, seen from the front, in units of the head's radius.
_OUTLINES = {
    "pointed": [(0.16, -0.68), (0.42, -1.12), (0.8, -1.52), (0.94, -1.0), (0.96, -0.36), (0.55, -0.4)],
    "tall": [(0.12, -0.66), (0.5, -1.24), (1.02, -1.66), (1.1, -1.0), (0.95, -0.2), (0.5, -0.4)],
    "small": [(0.36, -0.68), (0.56, -1.02), (0.9, -1.2), (1.0, -0.86), (0.98, -0.4), (0.6, -0.45)],
    "folded": [(0.26, -0.84), (0.58, -0.98), (0.92, -0.86), (1.04, -0.46), (0.78, -0.5), (0.44, -0.62)],
    "upright": [(0.12, -0.72), (0.28, -1.14), (0.56, -1.5), (0.82, -1.1), (0.88, -0.42), (0.5, -0.45)],
    "long": [(0.5, -0.72), (0.92, -0.6), (1.22, 0.0), (1.22, 0.66), (0.96, 0.86), (0.72, 0.5), (0.66, -0.1)],
    "woolly": [(0.5, -0.6), (0.98, -0.5), (1.3, 0.1), (1.22, 0.7), (0.86, 0.78), (0.64, 0.3), (0.62, -0.1)],
    "flop": [(0.4, -0.78), (0.86, -0.84), (1.2, -0.46), (1.14, 0.1), (0.92, 0.36), (0.76, -0.04), (0.62, -0.4)],
    "rose": [(0.42, -0.8), (0.72, -1.0), (1.16, -0.74), (1.22, -0.38), (0.92, -0.4), (0.64, -0.42)],
}
_SIDE_ROSE = [(-0.02, -0.62), (-0.34, -0.76), (-0.86, -0.5), (-1.04, -0.16), (-0.72, -0.2), (-0.3, -0.3)]
BEHIND = ("pointed", "tall", "small", "upright")


def front_ears(pen: Pen, animal: Animal, behind: bool) -> None:
    """Both ears of a head seen from the front: the upright ones behind it, the hanging ones before it."""
    kind = animal.breed.ears
    if (kind in BEHIND) != behind:
        return
    wide = animal.breed.face[0] ** 0.5
    for mirror in (False, True):
        _ear(pen.at(0, 0, mirror=mirror), animal, [(x * wide, y) for x, y in _OUTLINES[kind]])


def side_ears(pen: Pen, animal: Animal, behind: bool) -> None:
    """The ears of a head seen from the side; upright ones grow behind the skull, so that they have no lower edge."""
    kind = animal.breed.ears
    if kind in BEHIND:
        for x, turn in ((0.1, -4), (-0.44, -12)) if behind else ():
            _ear(pen.at(x, 0.0, turn=turn), animal, _OUTLINES[kind])
    elif not behind:
        points = _SIDE_ROSE if kind == "rose" else moved(_OUTLINES[kind], -0.98, 0.12)
        _ear(pen.at(0, 0, turn=6), animal, points)


def _ear(pen: Pen, animal: Animal, points: Outline) -> None:
    outline = curve(points, closed=True)
    if animal.breed.ears == "woolly":
        outline = curled(ellipse(*middle(points), 0.4, 0.68, -8), 13, 0.12)
    animal.coat.part(pen, outline, "ear", (0, 0, 1, 1))
    if animal.breed.ears in BEHIND:
        _inner(pen, animal, outline)


def _inner(pen: Pen, animal: Animal, outline: Outline) -> None:
    x, y = middle(outline)
    small = [(x + (u - x) * 0.58, y + 0.05 + (v - y) * 0.62) for u, v in outline]
    pen.fill(small, mix(animal.coat.of("ear"), PINK, 0.62))
