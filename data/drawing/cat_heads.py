"""The heads of cats: wide and short, with whiskers, a small nose and slit eyes, from the front and from the side.

front(pen, animal)
"""

from drawing.animals import Animal
from drawing.colours import PINK, WHITE, darker, mix
from drawing.ears import front_ears, side_ears
from drawing.faces import blush, contrast, eyes, side_box
from drawing.pen import Pen
from drawing.shapes import Outline, both_sides, curve, ellipse, tufted


def front(pen: Pen, animal: Animal) -> None:
    """A cat's head that looks at you; its radius is about one unit."""
    x, y = animal.look.gaze[0] * 0.13, animal.look.gaze[1] * 0.07
    front_ears(pen.at(-x * 0.35, 0), animal, behind=True)
    wide, high = animal.breed.face
    skull = _skull(animal)
    animal.coat.part(pen, skull, "head", (x * 0.8, y, wide, high))
    with pen.inside(skull):
        blush(pen.at(x, y), -0.66 * wide, 0.36)
        blush(pen.at(x, y), 0.66 * wide, 0.36)
    front_ears(pen, animal, behind=False)
    _features(pen.at(x, y), animal)


def _skull(animal: Animal) -> Outline:
    wide, high = animal.breed.face
    slim = 0.06 if animal.breed.muzzle > 0.1 else 0.0
    right = [
        (0, -high),
        (0.55 * wide, -0.86 * high),
        (0.94 * wide, -0.3),
        (wide, 0.22 - slim),
        (0.74 * wide, 0.68 - slim),
    ]
    outline = both_sides([*right, (0.3 * wide, 0.9 + slim), (0, 0.94 + slim)])
    return tufted(outline, 22, 0.13) if animal.breed.fur == "tufts" else outline


def _features(pen: Pen, animal: Animal) -> None:
    wide = animal.breed.face[0]
    low = animal.breed.muzzle
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.17, 0.47 + low, 0.25, 0.19, side * 8), animal.coat.muzzle)
    pen.fill(ellipse(0, 0.63 + low, 0.16, 0.12), animal.coat.muzzle)
    eyes(pen, animal, [(-0.42 * wide, 0.0), (0.42 * wide, 0.0)], 0.25)
    _mouth(pen.at(0, low), animal)
    for side in (False, True):
        _whiskers(pen.at(0, low, mirror=side), animal)


def _mouth(pen: Pen, animal: Animal) -> None:
    line = contrast(animal.coat.muzzle)
    if animal.look.tongue:
        pen.part(ellipse(0, 0.64, 0.1, 0.12), PINK, 0.03)
    pen.line([(0, 0.34), (0, 0.47), (-0.12, 0.57), (-0.28, 0.5)], line, 0.045)
    pen.line([(0, 0.47), (0.12, 0.57), (0.28, 0.5)], line, 0.045)
    nose = curve([(-0.13, 0.25), (0, 0.23), (0.13, 0.25), (0.06, 0.35), (0, 0.39), (-0.06, 0.35)], closed=True)
    pen.fill(nose, animal.look.nose)
    pen.fill(ellipse(-0.04, 0.28, 0.035, 0.02), mix(animal.look.nose, WHITE, 0.6))


def _whiskers(pen: Pen, animal: Animal) -> None:
    colour = WHITE if sum(animal.coat.ground) < 480 else darker(animal.coat.palette.mark, 0.6)
    reach = animal.breed.face[0] + 0.42
    for start, end in ((0.4, 0.26), (0.47, 0.5), (0.54, 0.74)):
        pen.line([(0.3, start), (0.7, (start + end) / 2 - 0.04), (reach, end)], colour, 0.032)


def side(pen: Pen, animal: Animal) -> None:
    """A cat's head in profile; it looks to the right."""
    side_ears(pen, animal, behind=True)
    # A flat face shows most from the side.
    snout = animal.breed.muzzle * (1 if animal.breed.muzzle > 0 else 2)
    points = [(-0.9, 0.05), (-0.7, -0.6), (-0.1, -0.88), (0.42, -0.72), (0.74, -0.26), (0.88 + snout, 0.08)]
    outline = curve(
        [*points, (0.98 + snout, 0.3), (0.84 + snout, 0.54), (0.5, 0.7), (-0.05, 0.86), (-0.68, 0.66)], closed=True
    )
    if animal.breed.fur == "tufts":
        outline = tufted(outline, 20, 0.11)
    animal.coat.part(pen, outline, "head", side_box(animal))
    side_ears(pen, animal, behind=False)
    _side_features(pen.at(snout, 0), animal)


def _side_features(pen: Pen, animal: Animal) -> None:
    pen.fill(ellipse(0.72, 0.36, 0.23, 0.2, 10), animal.coat.muzzle)
    pen.fill(curve([(0.8, 0.04), (0.96, 0.08), (0.96, 0.22), (0.84, 0.18)], closed=True), animal.look.nose)
    pen.line([(0.92, 0.24), (0.86, 0.42), (0.7, 0.48), (0.58, 0.4)], contrast(animal.coat.muzzle), 0.045)
    blush(pen, 0.2, 0.36)
    eyes(pen, animal, [(0.4, -0.12)], 0.25)
    _whiskers(pen.at(0.52, 0.04, 0.75), animal)
    _whiskers(pen.at(0.86, 0.04, 0.6, mirror=True), animal)
