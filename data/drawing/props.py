"""Things that stand in front of the animal and hide a part of it, the same for cats and dogs.

prop(pen, "fence", wide=1.2, chance=random.Random(2))
"""

import random

from drawing.colours import CLOTHES, WHITE, darker, mix
from drawing.pen import Pen
from drawing.shapes import box, curve, ellipse, tube

PROPS = ("nothing", "nothing", "nothing", "fence", "carton", "grass", "cushion", "ball", "flowers", "bubbles", "cup")


def prop(pen: Pen, name: str, wide: float, high: float, chance: random.Random) -> None:
    """Draw a thing at the lower border; the pen's unit is the shorter side of the picture."""
    draw = _PROPS.get(name)
    if draw:
        draw(pen, wide, high, chance)


def _fence(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    colour = chance.choice((WHITE, (196, 150, 100), (126, 168, 180)))
    top = high - chance.uniform(0.2, 0.28)
    pen.part(box(-0.1, top + 0.08, wide + 0.1, top + 0.12), darker(colour, 0.93), 0.006)
    start = chance.uniform(-0.1, 0.0)
    for i in range(9):
        x = start + i * 0.19
        picket = [
            (x, high + 0.05),
            (x, top + 0.03),
            (x + 0.04, top - 0.02),
            (x + 0.08, top + 0.03),
            (x + 0.08, high + 0.05),
        ]
        pen.part(picket, colour, 0.006)


def _carton(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    x, top, half = wide * chance.uniform(0.3, 0.7), high - chance.uniform(0.2, 0.3), chance.uniform(0.3, 0.42)
    colour = (206, 164, 112)
    pen.part([(x - half, top), (x - half - 0.1, top + 0.09), (x - half + 0.02, top + 0.12)], darker(colour, 0.9), 0.006)
    pen.part([(x + half, top), (x + half + 0.1, top + 0.09), (x + half - 0.02, top + 0.12)], darker(colour, 0.9), 0.006)
    pen.part(box(x - half, top, x + half, high + 0.1), colour, 0.008)
    pen.fill(box(x - 0.05, top + 0.005, x + 0.05, top + 0.12), mix(colour, WHITE, 0.4))


def _grass(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    for _ in range(34):
        x, tall = chance.uniform(-0.05, wide + 0.05), chance.uniform(0.1, 0.24)
        lean = chance.uniform(-0.07, 0.07)
        colour = chance.choice(((92, 158, 84), (70, 134, 76), (122, 180, 90)))
        pen.fill(
            tube(
                [(x, high + 0.02), (x + lean * 0.3, high - tall * 0.6), (x + lean, high - tall)], (0.018, 0.014, 0.003)
            ),
            colour,
        )


def _cushion(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    x, half, colour = wide * chance.uniform(0.2, 0.8), chance.uniform(0.28, 0.4), chance.choice(CLOTHES)
    top = high - chance.uniform(0.16, 0.24)
    points = [
        (x - half, top - 0.01),
        (x, top + 0.02),
        (x + half, top - 0.01),
        (x + half * 0.96, high),
        (x, high + 0.06),
    ]
    outline = curve([*points, (x - half * 0.96, high)], closed=True)
    pen.part(outline, colour, 0.01)
    with pen.inside(outline):
        for i in range(-3, 4):
            pen.fill(ellipse(x + i * half * 0.3, top + 0.08 + 0.05 * (i % 2), 0.02, 0.02), mix(colour, WHITE, 0.6))


def _ball(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    x, size, colour = wide * chance.uniform(0.12, 0.88), chance.uniform(0.11, 0.17), chance.choice(CLOTHES)
    outline = ellipse(x, high - size * 0.85, size, size)
    pen.shadow(ellipse(x, high - 0.01, size, 0.03), 0.3, 0.02)
    pen.part(outline, colour, 0.008)
    with pen.inside(outline):
        band = [(x - size, high - size * 0.7), (x, high - size * 1.05), (x + size, high - size * 1.1)]
        pen.line(band, WHITE, size * 0.35)
    pen.fill(ellipse(x - size * 0.4, high - size * 1.35, size * 0.18, size * 0.12, -30), WHITE)


def _flowers(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    for _ in range(9):
        x, y = chance.uniform(0, wide), high - chance.uniform(0.04, 0.24)
        pen.line([(x, high + 0.02), (x + 0.01, (y + high) / 2), (x, y)], (84, 148, 84), 0.012)
        blossom, colour = pen.at(x, y, 0.042, chance.uniform(0, 70)), chance.choice(CLOTHES)
        for turn in range(0, 360, 72):
            blossom.at(0, 0, turn=turn).fill(ellipse(0, -0.75, 0.5, 0.6), colour)
        blossom.fill(ellipse(0, 0, 0.45, 0.45), (252, 224, 120))


def _bubbles(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    for _ in range(11):
        x, y, size = chance.uniform(0, wide), chance.uniform(0, high), chance.uniform(0.02, 0.06)
        tint = mix(chance.choice(CLOTHES), WHITE, 0.6)
        pen.soft(ellipse(x, y, size, size), tint, 0.35, 0.002)
        pen.edge(ellipse(x, y, size, size), tint, 0.007)
        pen.fill(ellipse(x - size * 0.4, y - size * 0.45, size * 0.22, size * 0.15, -40), WHITE)


def _cup(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    x, colour = wide * chance.uniform(0.15, 0.85), chance.choice(CLOTHES)
    top = high - chance.uniform(0.2, 0.26)
    pen.edge(ellipse(x + 0.13, top + 0.11, 0.06, 0.065), darker(colour, 0.8), 0.03)
    body = [(x - 0.13, top), (x + 0.13, top), (x + 0.115, high + 0.02), (x - 0.115, high + 0.02)]
    pen.part(body, colour, 0.008)
    pen.part(ellipse(x, top, 0.13, 0.03), mix(colour, WHITE, 0.5), 0.008)
    with pen.inside(body):
        pen.line([(x - 0.2, top + 0.1), (x + 0.2, top + 0.1)], WHITE, 0.03)


_PROPS = {
    "fence": _fence,
    "carton": _carton,
    "grass": _grass,
    "cushion": _cushion,
    "ball": _ball,
    "flowers": _flowers,
    "bubbles": _bubbles,
    "cup": _cup,
}
