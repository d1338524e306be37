"""What the animals wear, cats and dogs alike: a collar, a bow, a scarf, a party hat or a flower.

wear_neck(pen, animal, 0.6)
"""

from drawing.animals import Animal
from drawing.colours import WHITE, darker
from drawing.pen import Pen
from drawing.shapes import curve, ellipse, tube


def wear_neck(pen: Pen, animal: Animal, wide: float) -> None:
    """Draw a collar, a bow tie or a scarf; the pen's origin is the middle of the throat."""
    draw = {"collar": _collar, "bow": _bow, "scarf": _scarf}.get(animal.look.wear)
    if draw:
        draw(pen, animal, wide)


def wear_head(pen: Pen, animal: Animal) -> None:
    """Draw a hat or a flower on a head of radius one."""
    if animal.look.wear == "hat":
        _hat(pen.at(0.05, -0.84, turn=6), animal)
    elif animal.look.wear == "flower":
        _flower(pen.at(-0.5, -0.72), animal)


def _band(wide: float) -> list[tuple[float, float]]:
    return [(-wide, -0.14), (-wide * 0.5, 0.08), (0, 0.14), (wide * 0.5, 0.08), (wide, -0.14)]


def _collar(pen: Pen, animal: Animal, wide: float) -> None:
    cloth = animal.look.cloth
    pen.line(_band(wide), darker(cloth, 0.55), 0.27)
    pen.line(_band(wide), cloth, 0.19)
    pen.part(ellipse(0, 0.34, 0.15, 0.15), (250, 208, 84), 0.04)


def _bow(pen: Pen, animal: Animal, wide: float) -> None:
    cloth = animal.look.cloth
    pen.line(_band(wide), darker(cloth, 0.8), 0.14)
    for mirror in (False, True):
        wing = curve([(0.04, 0.16), (0.36, -0.06), (0.56, 0.0), (0.54, 0.36), (0.34, 0.4)], closed=True)
        pen.at(0, 0.04, mirror=mirror).part(wing, cloth)
    pen.part(ellipse(0, 0.2, 0.13, 0.15), darker(cloth, 0.9), 0.04)


def _scarf(pen: Pen, animal: Animal, wide: float) -> None:
    cloth = animal.look.cloth
    end = tube([(wide * 0.4, 0.1), (wide * 0.5, 0.5), (wide * 0.45, 0.95)], (0.16, 0.2, 0.22))
    pen.part(end, darker(cloth, 0.92))
    with pen.inside(end):
        pen.line([(-1, 0.72), (1, 0.78)], WHITE, 0.1)
    pen.line(_band(wide * 1.08), darker(cloth, 0.55), 0.46)
    pen.line(_band(wide * 1.08), cloth, 0.37)
    pen.line([(-wide * 0.4, 0.0), (-wide * 0.36, 0.16)], WHITE, 0.08)
    pen.line([(wide * 0.06, 0.06), (wide * 0.06, 0.24)], WHITE, 0.08)


def _hat(pen: Pen, animal: Animal) -> None:
    cone = [(-0.42, 0.08), (0, -0.95), (0.42, 0.08), (0, 0.17)]
    pen.part(cone, animal.look.cloth)
    with pen.inside(cone):
        for y in (-0.62, -0.3, 0.02):
            pen.line([(-0.6, y + 0.08), (0.6, y - 0.08)], WHITE, 0.1)
    pen.part(ellipse(0, -0.98, 0.15, 0.15), (250, 208, 84), 0.04)


def _flower(pen: Pen, animal: Animal) -> None:
    for turn in range(0, 360, 72):
        pen.at(0, 0, turn=turn).part(ellipse(0, -0.21, 0.15, 0.18), animal.look.cloth, 0.03)
    pen.part(ellipse(0, 0, 0.13, 0.13), (250, 220, 110), 0.03)
