"""The heads of dogs: a long muzzle with a big nose, round eyes, often a tongue, from the front and from the side.

front(pen, animal)
"""

from drawing.animals import Animal
from drawing.colours import DARK, PINK, WHITE, darker, mix
from drawing.ears import front_ears, side_ears
from drawing.faces import blush, contrast, eyes, side_box
from drawing.pen import Pen
from drawing.shapes import Outline, both_sides, curled, curve, ellipse, tube, tufted


def front(pen: Pen, animal: Animal) -> None:
    """A dog's head that looks at you; its radius is about one unit."""
    x, y = animal.look.gaze[0] * 0.12, animal.look.gaze[1] * 0.07
    wide, high = animal.breed.face
    front_ears(pen.at(-x * 0.35, 0), animal, behind=True)
    skull = _skull(animal)
    animal.coat.part(pen, skull, "head", (x * 0.8, y, wide, high))
    with pen.inside(skull):
        blush(pen.at(x, y), -0.66 * wide, 0.26)
        blush(pen.at(x, y), 0.66 * wide, 0.26)
    if animal.breed.fur == "curls":
        _topknot(pen, animal)
    _features(pen.at(x, y), animal)
    front_ears(pen, animal, behind=False)


def _skull(animal: Animal) -> Outline:
    wide, high = animal.breed.face
    right = [(0, -high), (0.55 * wide, -0.85 * high), (0.95 * wide, -0.35), (0.96 * wide, 0.15), (0.7 * wide, 0.6)]
    outline = both_sides([*right, (0.42, 0.86), (0, 0.94)])
    return tufted(outline, 22, 0.13) if animal.breed.fur == "tufts" else outline


def _topknot(pen: Pen, animal: Animal) -> None:
    outline = curled(ellipse(0, -0.82, 0.74, 0.46), 13, 0.13)
    animal.coat.part(pen, outline, "wool", (0, -0.8, 0.7, 0.5))


def _features(pen: Pen, animal: Animal) -> None:
    wide, muzzle = animal.breed.face[0], animal.breed.muzzle
    eyes(pen, animal, [(-0.42 * wide, -0.12), (0.42 * wide, -0.12)], 0.21)
    for mirror in (False, True):
        pen.at(0, 0, mirror=mirror).line(_brow(wide), mix(animal.coat.ground, DARK, 0.5), 0.06)
    _snout(pen.at(0, 0.06 + 0.05 * muzzle), animal, 0.4 + 0.06 * wide, 0.3 + 0.13 * muzzle)


def _brow(wide: float) -> Outline:
    return [(0.3 * wide, -0.47), (0.44 * wide, -0.54), (0.58 * wide, -0.5)]


def _snout(pen: Pen, animal: Animal, across: float, down: float) -> None:
    middle = 0.12 + down
    if animal.look.tongue:
        _tongue(pen.at(0.06, middle + down * 0.72))
    outline = both_sides(
        [
            (0, 0.04),
            (across * 0.62, 0.1),
            (across, middle + 0.06),
            (across * 0.66, middle + down * 0.8),
            (0, middle + down),
        ]
    )
    pen.part(outline, animal.coat.muzzle, 0.045)
    _mouth(pen, animal, across, middle + down * 0.42)
    _nose(pen.at(0, 0.17), animal)


def _mouth(pen: Pen, animal: Animal, across: float, low: float) -> None:
    line = contrast(animal.coat.muzzle)
    pen.line([(0, 0.24), (0, low), (-across * 0.32, low + 0.12), (-across * 0.68, low - 0.02)], line, 0.05)
    pen.line([(0, low), (across * 0.32, low + 0.12), (across * 0.68, low - 0.02)], line, 0.05)


def _nose(pen: Pen, animal: Animal) -> None:
    right = [(0, -0.16), (0.17, -0.14), (0.26, -0.02), (0.12, 0.12), (0, 0.16)]
    pen.part(both_sides(right), animal.look.nose, 0.03)
    pen.fill(ellipse(-0.09, -0.07, 0.07, 0.035, -10), mix(animal.look.nose, WHITE, 0.7))


def _tongue(pen: Pen) -> None:
    outline = tube([(0, -0.1), (0.02, 0.15), (0.03, 0.36)], (0.15, 0.17, 0.15))
    pen.part(outline, PINK, 0.035)
    pen.line([(0, 0.05), (0.02, 0.32)], darker(PINK, 0.8), 0.035)


def side(pen: Pen, animal: Animal) -> None:
    """A dog's head in profile; it looks to the right."""
    side_ears(pen, animal, behind=True)
    reach = animal.breed.muzzle * 0.75
    if animal.look.tongue:
        _tongue(pen.at(0.5 + reach * 0.6, 0.46, 0.95))
    back = [(-0.84, 0.05), (-0.66, -0.58), (-0.05, -0.86), (0.42, -0.62), (0.64, -0.2)]
    snout = [
        (0.7 + reach, -0.04),
        (0.86 + reach, 0.16),
        (0.74 + reach, 0.42),
        (0.55, 0.58),
        (-0.05, 0.82),
        (-0.62, 0.62),
    ]
    outline = curve([*back, *snout], closed=True)
    if animal.breed.fur == "tufts":
        outline = tufted(outline, 20, 0.1)
    animal.coat.part(pen, outline, "head", side_box(animal))
    with pen.inside(outline):
        pen.fill(ellipse(0.85 + reach * 0.6, 0.3, 0.34 + reach * 0.5, 0.36), animal.coat.muzzle)
    _side_features(pen, animal, reach)


def _side_features(pen: Pen, animal: Animal, reach: float) -> None:
    pen.line(
        [(0.8 + reach, 0.34), (0.5 + reach * 0.5, 0.36), (0.3 + reach * 0.2, 0.26)], contrast(animal.coat.muzzle), 0.05
    )
    pen.part(ellipse(0.82 + reach, 0.04, 0.2, 0.17, 20), animal.look.nose, 0.03)
    pen.fill(ellipse(0.77 + reach, -0.03, 0.06, 0.035), mix(animal.look.nose, WHITE, 0.7))
    blush(pen, 0.2, 0.3)
    eyes(pen, animal, [(0.26, -0.2)], 0.2)
    if animal.breed.fur == "curls":
        _topknot(pen.at(-0.12, 0), animal)
    side_ears(pen, animal, behind=False)
