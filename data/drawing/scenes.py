"""Places where the animals are: rooms, gardens, beaches, nights, winters, skies and papered walls.

ground = scene(pen, "beach", wide=1.2, high=1.0, chance=random.Random(2))
"""

import random

from drawing.colours import CLOTHES, WHITE, Colour, darker, mix
from drawing.pen import Pen
from drawing.shapes import box, curve, ellipse

SCENES = ("room", "garden", "beach", "night", "winter", "sky", "wallpaper", "autumn", "studio")


def scene(pen: Pen, name: str, wide: float, high: float, chance: random.Random) -> None:
    """Paint the whole picture; the pen's unit is its shorter side. The ground begins above 0.66 of the height."""
    _SCENES[name](pen, wide, high, chance)


def _sweep(pen: Pen, wide: float, top: float, bottom: float, upper: Colour, lower: Colour) -> None:
    for i in range(16):
        y, step = top + (bottom - top) * i / 16, (bottom - top) / 16
        pen.fill(box(-0.1, y, wide + 0.1, y + step * 1.1), mix(upper, lower, i / 15))


def _hill(pen: Pen, wide: float, high: float, y: float, colour: Colour, chance: random.Random) -> None:
    tops = [(wide * i / 4, y + chance.uniform(-0.05, 0.05)) for i in range(-1, 6)]
    pen.fill([*curve(tops), (wide * 1.3, high * 1.2), (-wide * 0.3, high * 1.2)], colour)


def _cloud(pen: Pen, x: float, y: float, size: float, colour: Colour = WHITE) -> None:
    for u, v, r in ((-0.9, 0.1, 0.55), (0, -0.2, 0.8), (0.9, 0.08, 0.6), (0.2, 0.25, 0.6), (-0.4, 0.3, 0.5)):
        pen.fill(ellipse(x + u * size, y + v * size, r * size, r * size * 0.8), colour)


def _tree(pen: Pen, x: float, y: float, size: float, leaf: Colour) -> None:
    pen.part(box(x - 0.1 * size, y - 0.7 * size, x + 0.1 * size, y), (134, 96, 70), 0.006)
    for u, v, r in ((-0.4, -0.9, 0.42), (0.4, -0.95, 0.44), (0, -1.35, 0.5)):
        pen.part(ellipse(x + u * size, y + v * size, r * size, r * size), leaf, 0.006)


def _garden(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.38, 0.6)
    _sweep(pen, wide, 0, far + 0.1, chance.choice(((140, 200, 240), (176, 214, 236))), (228, 244, 246))
    _cloud(pen, wide * chance.random(), far * chance.uniform(0.2, 0.5), chance.uniform(0.06, 0.11))
    _hill(pen, wide, high, far, (158, 204, 132), chance)
    _tree(pen, wide * chance.uniform(0.05, 0.95), far + 0.08, chance.uniform(0.2, 0.3), (104, 168, 104))
    grass = chance.choice(((126, 188, 104), (150, 200, 110), (108, 172, 108)))
    _hill(pen, wide, high, far + 0.1, grass, chance)
    for _ in range(14):
        x, y, size = wide * chance.random(), chance.uniform(far + 0.16, high), chance.uniform(0.008, 0.016)
        pen.fill(ellipse(x, y, size, size), chance.choice((WHITE, (252, 220, 110), (244, 160, 180))))


def _beach(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.3, 0.45)
    evening = chance.random() < 0.4
    _sweep(pen, wide, 0, far, (250, 186, 150) if evening else (150, 212, 244), (255, 232, 196))
    pen.fill(ellipse(wide * chance.random(), far * chance.uniform(0.2, 0.9), 0.09, 0.09), (255, 240, 170))
    sea = (92, 150, 176) if evening else (84, 180, 206)
    _sweep(pen, wide, far, far + 0.22, darker(sea, 0.9), mix(sea, WHITE, 0.35))
    for _ in range(6):
        x, y = wide * chance.random(), far + chance.uniform(0.02, 0.14)
        pen.line([(x, y), (x + 0.05, y - 0.008), (x + 0.1, y)], mix(sea, WHITE, 0.6), 0.008)
    _hill(pen, wide, high, far + 0.19, mix((244, 222, 176), WHITE, 0.4), chance)
    _hill(pen, wide, high, far + 0.22, (242, 216, 164), chance)


def _night(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.45, 0.62)
    upper = chance.choice(((38, 44, 88), (54, 40, 92), (28, 56, 92)))
    _sweep(pen, wide, 0, far + 0.1, upper, mix(upper, (150, 130, 180), 0.5))
    x, y = wide * chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.2)
    pen.soft(ellipse(x, y, 0.15, 0.15), (255, 244, 200), 0.4, 0.05)
    pen.fill(ellipse(x, y, 0.085, 0.085), (255, 244, 206))
    for _ in range(24):
        size = chance.uniform(0.003, 0.008)
        pen.fill(ellipse(wide * chance.random(), far * chance.random(), size, size), (255, 250, 220))
    _hill(pen, wide, high, far, mix(upper, (70, 110, 110), 0.5), chance)
    _hill(pen, wide, high, far + 0.1, mix(upper, (90, 130, 110), 0.7), chance)


def _winter(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.4, 0.6)
    _sweep(pen, wide, 0, far + 0.1, (168, 194, 222), (232, 238, 246))
    for _ in range(4):
        x, size = wide * chance.random(), chance.uniform(0.14, 0.26)
        for i in range(3):
            y, half = far + 0.06 - i * size * 0.5, size * (0.5 - 0.1 * i)
            pen.part([(x - half, y), (x, y - size * 0.8), (x + half, y)], (98, 140, 132), 0.006)
    _hill(pen, wide, high, far, (226, 234, 244), chance)
    _hill(pen, wide, high, far + 0.12, (244, 247, 252), chance)


def _autumn(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.4, 0.58)
    _sweep(pen, wide, 0, far + 0.1, (250, 222, 170), (253, 240, 212))
    _tree(pen, wide * chance.uniform(0, 0.4), far + 0.08, 0.3, (226, 130, 66))
    _tree(pen, wide * chance.uniform(0.6, 1), far + 0.06, 0.24, (238, 176, 76))
    _hill(pen, wide, high, far, (206, 160, 98), chance)
    _hill(pen, wide, high, far + 0.12, (188, 138, 88), chance)
    for _ in range(22):
        leaf = ellipse(wide * chance.random(), chance.uniform(far, high), 0.022, 0.012, chance.uniform(0, 180))
        pen.fill(leaf, chance.choice(((224, 104, 58), (240, 184, 74), (172, 72, 56))))


def _sky(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    top = chance.choice(((112, 178, 236), (246, 170, 160), (150, 150, 220)))
    _sweep(pen, wide, 0, high, top, mix(top, WHITE, 0.75))
    for _ in range(4):
        _cloud(pen, wide * chance.random(), high * chance.uniform(0.05, 0.6), chance.uniform(0.05, 0.12))
    for i in range(9):
        x = wide * (i / 8) + chance.uniform(-0.03, 0.03)
        _cloud(pen, x, high * chance.uniform(0.84, 0.94), chance.uniform(0.14, 0.2), mix(top, WHITE, 0.86))


def _room(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    far = high * chance.uniform(0.5, 0.64)
    wall = mix(chance.choice(CLOTHES), (250, 238, 220), chance.uniform(0.55, 0.8))
    pen.fill(box(-0.1, -0.1, wide + 0.1, far + 0.1), wall)
    _window(pen.at(wide * chance.uniform(0.1, 0.75), far * chance.uniform(0.1, 0.25)), chance)
    floor = chance.choice(((190, 140, 98), (162, 116, 88), (214, 176, 132)))
    pen.fill(box(-0.1, far, wide + 0.1, high + 0.1), floor)
    for i in range(1, 5):
        pen.line([(-0.1, far + i * i * 0.025), (wide + 0.1, far + i * i * 0.025)], darker(floor, 0.86), 0.006)
    pen.fill(box(-0.1, far - 0.035, wide + 0.1, far), mix(wall, WHITE, 0.6))
    rug = chance.choice(CLOTHES)
    pen.part(ellipse(wide * chance.uniform(0.3, 0.7), high * 0.9, wide * 0.42, 0.12), mix(rug, WHITE, 0.25), 0.012)


def _window(pen: Pen, chance: random.Random) -> None:
    if chance.random() < 0.3:
        pen.part(ellipse(0.12, 0.12, 0.1, 0.1), WHITE, 0.02)
        pen.line([(0.12, 0.05), (0.12, 0.12), (0.17, 0.14)], chance.choice(CLOTHES), 0.014)
        return
    pane = chance.choice(((176, 218, 240), (250, 214, 160), (60, 70, 120)))
    pen.part(box(-0.02, -0.02, 0.28, 0.3), WHITE, 0.008)
    for x, y in ((0, 0), (0.14, 0), (0, 0.15), (0.14, 0.15)):
        pen.fill(box(x + 0.005, y + 0.005, x + 0.12, y + 0.13), pane)


def _wallpaper(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    colour = mix(chance.choice(CLOTHES), chance.choice((WHITE, (60, 56, 80))), chance.uniform(0.25, 0.6))
    other = mix(colour, chance.choice((WHITE, (50, 50, 70))), 0.3)
    pen.fill(box(-0.1, -0.1, wide + 0.1, high + 0.1), colour)
    chance.choice((_dots, _stripes, _checks))(pen.at(wide / 2, high / 2, turn=chance.uniform(-30, 30)), other)
    if chance.random() < 0.6:
        pen.fill(box(-0.1, high * 0.82, wide + 0.1, high + 0.1), mix(other, (120, 90, 80), 0.4))


def _dots(pen: Pen, colour: Colour) -> None:
    for row in range(-8, 9):
        for column in range(-8, 9):
            pen.fill(ellipse((column + 0.5 * (row % 2)) * 0.15, row * 0.13, 0.034, 0.034), colour)


def _stripes(pen: Pen, colour: Colour) -> None:
    for column in range(-9, 10):
        pen.fill(box(column * 0.14, -1.5, column * 0.14 + 0.065, 1.5), colour)


def _checks(pen: Pen, colour: Colour) -> None:
    for row in range(-9, 9):
        for column in range(-9 + row % 2, 9, 2):
            pen.fill(box(column * 0.13, row * 0.13, (column + 1) * 0.13, (row + 1) * 0.13), colour)


def _studio(pen: Pen, wide: float, high: float, chance: random.Random) -> None:
    colour = mix(chance.choice(CLOTHES), WHITE, chance.uniform(0.1, 0.7))
    _sweep(pen, wide, 0, high, colour, mix(colour, WHITE, 0.4))
    pen.fill(ellipse(wide / 2, high * 0.5, 0.46, 0.46), mix(colour, WHITE, 0.3))
    pen.fill(ellipse(wide / 2, high * 0.98, wide * 0.8, 0.2), darker(colour, 0.88))


_SCENES = {
    "room": _room,
    "garden": _garden,
    "beach": _beach,
    "night": _night,
    "winter": _winter,
    "sky": _sky,
    "wallpaper": _wallpaper,
    "autumn": _autumn,
    "studio": _studio,
}
