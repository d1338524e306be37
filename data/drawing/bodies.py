"""Bodies in seven poses: sitting, standing, lying, a face close by, peeking over an edge, asleep, and in mid-air.

pose(pen, animal)
"""

import random

from drawing import cat_heads, dog_heads
from drawing.animals import Animal
from drawing.clothes import wear_head, wear_neck
from drawing.colours import PINK, darker, mix
from drawing.pen import Pen
from drawing.shapes import Outline, both_sides, curled, curve, ellipse, tube, tufted
from drawing.tails import tail

Extent = tuple[float, float, float, float]


def extent(animal: Animal) -> Extent:
    """The left, top, right and bottom of the pose in the animal's units; its feet stand on 0."""
    long, high = animal.breed.length, animal.breed.legs + animal.breed.girth
    snout = 0.2 + animal.breed.muzzle * 0.75 if animal.profile else 0.0
    return {
        "sit": (-1.7, -4.3, 1.7, 0.15),
        "stand": (-long - 0.9, -high - 1.9, long + 1.55 + snout, 0.15),
        "lie": (-long - 0.8, -2.9, long + 1.2 + snout, 0.15),
        "face": (-1.35, -1.6, 1.35 + snout, 1.5),
        "peek": (-1.5, -2.1, 1.5, 1.3),
        "sleep": (-2.6, -2.5, 2.5, 0.25),
        "jump": (-long - 1.7, -high - 3.1, long + 1.6 + snout, 0.15),
    }[animal.look.pose]


def pose(pen: Pen, animal: Animal) -> None:
    """Draw the animal; its feet stand on the line y = 0 of the pen, its face close by is centred."""
    _POSES[animal.look.pose](pen, animal)


def _coated(animal: Animal, outline: Outline, count: int = 26) -> Outline:
    if animal.breed.fur == "tufts":
        return tufted(outline, count, 0.14)
    return curled(outline, count, 0.12) if animal.breed.fur == "curls" else outline


def _head(pen: Pen, animal: Animal, profile: bool = False) -> None:
    heads = cat_heads if animal.breed.is_cat else dog_heads
    turned = pen.at(0, 0, turn=animal.look.nod)
    (heads.side if profile else heads.front)(turned, animal)
    wear_head(turned, animal)


def _paw(pen: Pen, animal: Animal, x: float, y: float, wide: float = 0.3) -> None:
    outline = ellipse(x, y, wide, 0.19)
    colour = animal.coat.palette.mark if animal.coat.pattern == "points" else animal.coat.muzzle
    pen.part(outline, colour, 0.045)
    for toe in (-0.32, 0.32):
        pen.line([(x + toe * wide, y + 0.02), (x + toe * wide, y + 0.14)], mix(darker(colour, 0.6), PINK, 0.2), 0.04)


def _leg(pen: Pen, animal: Animal, top: tuple[float, float], foot: tuple[float, float], dim: float = 1.0) -> None:
    thick = 0.2 if animal.breed.legs > 1.3 else 0.25
    knee = ((top[0] + foot[0]) / 2 + 0.04, (top[1] + foot[1]) / 2)
    outline = tube([top, knee, foot], (thick * 1.25, thick, thick * 0.95))
    half = (foot[1] - top[1]) / 2
    animal.coat.part(pen, outline, "leg", (knee[0], knee[1], thick, half), dim, joint=7)
    if animal.breed.fur == "curls":
        animal.coat.part(pen, curled(ellipse(foot[0], foot[1] - 0.25, 0.3, 0.26), 10, 0.09), "wool", (0, 0, 1, 1), dim)
    _paw(pen, animal, foot[0] + 0.08, foot[1] + 0.06, 0.27)


def _sit(pen: Pen, animal: Animal) -> None:
    wide = 0.55 + 0.35 * animal.breed.girth
    tail(pen.at(-wide * 0.75, -0.35, 0.9), animal)
    for x in (-1, 1):
        animal.coat.part(pen, _coated(animal, ellipse(x * wide * 0.8, -0.5, 0.5, 0.52), 14), "haunch", (0, 0, 1, 1))
        _paw(pen, animal, x * wide * 0.92, -0.06, 0.36)
    right = [(0, -2.5), (0.55, -2.2), (wide * 0.78, -1.4), (wide * 0.86, -0.6), (wide * 0.5, -0.12), (0, -0.06)]
    animal.coat.part(pen, _coated(animal, both_sides(right)), "front", (0, -1.25, wide, 1.2))
    for x in (-0.3, 0.3):
        _leg(pen, animal, (x * 1.1, -1.1), (x, -0.12))
    wear_neck(pen.at(0, -2.1), animal, 0.62)
    _head(pen.at(0, -2.9), animal)


def _stand(pen: Pen, animal: Animal) -> None:
    breed, chance = animal.breed, random.Random(animal.look.seed)
    long, hips, back = breed.length, -breed.legs, -breed.legs - breed.girth
    step = [chance.uniform(-0.28, 0.28) for _ in range(4)]
    if animal.look.pose == "jump":
        step = [-0.6, 0.62, -0.42, 0.8]
    for x, swing in ((-long + 0.55, step[0]), (long - 0.3, step[1])):
        _leg(pen, animal, (x, hips - 0.35), (x + swing, -0.16), 0.82)
    tail(pen.at(-long + 0.05, back + 0.35), animal)
    animal.coat.part(
        pen, _coated(animal, _trunk(animal), 34), "body", (0, back + breed.girth / 2, long, breed.girth / 2)
    )
    for x, swing in ((-long + 0.3, step[2]), (long - 0.55, step[3])):
        _leg(pen, animal, (x, hips - 0.3), (x + swing, -0.06))
    wear_neck(pen.at(long + 0.2, back - 0.02, turn=26), animal, 0.52)
    _head(pen.at(long + 0.4, back - 0.6, 0.9), animal, animal.profile)


def _jump(pen: Pen, animal: Animal) -> None:
    _stand(pen.at(0.1, -1.0, turn=-17), animal)


def _sleep(pen: Pen, animal: Animal) -> None:
    tail(pen.at(-1.35, -0.25, 0.8, turn=-52), animal)
    back = [(-1.6, -0.4), (-1.3, -1.2), (-0.5, -1.75), (0.5, -1.7), (1.2, -1.1), (1.4, -0.4)]
    outline = curve([*back, (0.9, 0.06), (-0.2, 0.12), (-1.2, 0.06)], closed=True)
    animal.coat.part(pen, _coated(animal, outline, 32), "body", (-0.2, -0.8, 1.4, 0.9))
    animal.coat.part(pen, _coated(animal, ellipse(-0.85, -0.45, 0.62, 0.5, -14), 15), "haunch", (0, 0, 1, 1))
    _paw(pen, animal, -0.2, -0.02, 0.38)
    for x in (0.15, 0.5):
        _paw(pen, animal, x + 0.1, 0.1, 0.36)
    wear_neck(pen.at(0.75, -0.45, turn=10), animal, 0.6)
    _head(pen.at(0.95, -0.82, 0.92, turn=10), animal)


def _trunk(animal: Animal) -> Outline:
    breed = animal.breed
    long, low, top = breed.length, -breed.legs, -breed.legs - breed.girth
    # A greyhound's belly is drawn in; the others' hangs a little.
    belly = low - (0.3 if breed.ears == "rose" else -0.02)
    back = [(-long, top + 0.45), (-long + 0.35, top + 0.06), (-0.1, top + 0.08), (long - 0.5, top - 0.06)]
    back += [(long - 0.06, top - 0.62), (long + 0.5, top - 0.5), (long + 0.5, top + 0.1)]
    chest = [(long + 0.12, top + 0.6), (long - 0.12, low - 0.08), (long - 0.6, low + 0.08), (-0.2, belly)]
    return curve([*back, *chest, (-long + 0.4, low - 0.06), (-long - 0.02, low - 0.35)], closed=True)


def _lie(pen: Pen, animal: Animal) -> None:
    long = animal.breed.length
    high = 0.5 + 0.75 * animal.breed.girth
    tail(pen.at(-long + 0.1, -0.4, 0.85, turn=-14), animal)
    points = [(-long, -0.3), (-long + 0.3, -high * 0.9), (-0.2, -high), (long - 0.3, -high * 1.05), (long, -0.6)]
    outline = curve([*points, (long - 0.1, -0.04), (0, 0.03), (-long + 0.2, 0.0)], closed=True)
    animal.coat.part(pen, _coated(animal, outline, 34), "body", (0, -high / 2, long, high / 2))
    haunch = _coated(animal, ellipse(-long + 0.62, -0.46, 0.56, 0.46, -12), 14)
    animal.coat.part(pen, haunch, "haunch", (0, 0, 1, 1))
    _paw(pen, animal, -long + 1.05, -0.06, 0.4)
    for y in (-0.3, -0.16):
        _leg(pen, animal, (long - 0.5, y - 0.1), (long + 0.5, y))
    wear_neck(pen.at(long - 0.3, -high * 0.98, turn=12), animal, 0.6)
    _head(pen.at(long - 0.25, -high - 0.45), animal, animal.profile)


def _face(pen: Pen, animal: Animal) -> None:
    wide = 0.75 + 0.4 * animal.breed.girth
    outline = both_sides([(0, 0.35), (0.5, 0.6), (wide, 1.7), (wide * 1.15, 3.4), (0, 3.8)])
    animal.coat.part(pen, _coated(animal, outline, 30), "front", (0, 1.9, wide, 1.3))
    wear_neck(pen.at(0, 0.86), animal, 0.66)
    _head(pen, animal, animal.profile)


def _peek(pen: Pen, animal: Animal) -> None:
    neck = both_sides([(0, 0.1), (0.7, 0.5), (0.95, 1.6), (0, 1.7)])
    animal.coat.part(pen, neck, "front", (0, 1.0, 0.9, 0.8))
    _head(pen.at(0, -0.28), animal)
    _ledge(pen, animal)
    for x in (-0.85, 0.85):
        animal.coat.part(pen, ellipse(x, 0.98, 0.27, 0.28), "leg", (x, 0.9, 0.25, 0.2))
        _paw(pen, animal, x, 1.16, 0.29)


def _ledge(pen: Pen, animal: Animal) -> None:
    colour = mix(animal.look.cloth, (200, 160, 110), 0.5)
    pen.part([(-6, 0.92), (6, 0.92), (6, 5), (-6, 5)], colour)
    for x in range(-5, 6, 2):
        pen.line([(x + 0.4, 1.3), (x + 0.4, 5)], darker(colour, 0.8), 0.05)
    pen.line([(-6, 1.28), (6, 1.28)], darker(colour, 0.72), 0.07)


_POSES = {"sit": _sit, "stand": _stand, "lie": _lie, "face": _face, "peek": _peek, "sleep": _sleep, "jump": _jump}
