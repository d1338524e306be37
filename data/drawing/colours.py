"""Every colour of the drawings: coats, eyes, noses, clothes; one list each, for cats and dogs alike.

base = mix(PALETTES["ginger"].base, (255, 255, 255), 0.3)
"""

from dataclasses import dataclass

Colour = tuple[int, int, int]

WHITE: Colour = (255, 253, 248)
DARK: Colour = (52, 38, 42)
PINK: Colour = (244, 156, 160)
BLUSH: Colour = (246, 120, 124)


@dataclass(frozen=True)
class Palette:
    """A coat's three colours: most of it, its light parts and its marks."""

    base: Colour
    light: Colour
    mark: Colour


PALETTES = {
    "ginger": Palette((238, 160, 82), (255, 236, 208), (196, 104, 44)),
    "cream": Palette((244, 216, 172), (255, 247, 232), (206, 156, 104)),
    "brown": Palette((166, 118, 80), (242, 220, 192), (100, 64, 44)),
    "grey": Palette((158, 160, 168), (240, 240, 242), (96, 98, 110)),
    "charcoal": Palette((86, 84, 96), (236, 232, 232), (46, 44, 54)),
    "silver": Palette((216, 214, 212), (252, 251, 250), (124, 120, 126)),
    "chocolate": Palette((126, 86, 66), (236, 208, 178), (74, 46, 38)),
    "fawn": Palette((222, 182, 136), (252, 238, 218), (110, 76, 62)),
    "blue": Palette((126, 142, 164), (230, 236, 242), (74, 86, 110)),
}

EYES: tuple[Colour, ...] = ((122, 172, 84), (226, 168, 56), (92, 160, 206), (182, 120, 66), (214, 142, 84))
NOSES: tuple[Colour, ...] = ((58, 44, 48), (92, 58, 52), (222, 122, 124))
CLOTHES: tuple[Colour, ...] = (
    (214, 66, 70),
    (60, 120, 190),
    (240, 186, 58),
    (76, 156, 108),
    (152, 96, 176),
    (238, 130, 162),
    (58, 170, 176),
)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two; `share` is the second one's part."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def darker(colour: Colour, factor: float) -> Colour:
    """The colour with its light multiplied by `factor`."""
    return tuple(round(value * factor) for value in colour)


def ink(colour: Colour) -> Colour:
    """The colour of the line round a shape: its own, much darker and a little brown."""
    return mix(darker(colour, 0.52), DARK, 0.45)
