"""What every face has: eyes that are open, happy or winking, and blush.

eyes(pen, animal, [(-0.4, 0.0), (0.4, 0.0)], 0.22)
"""

from drawing.animals import Animal
from drawing.colours import BLUSH, DARK, WHITE, Colour, darker, mix
from drawing.pen import Pen
from drawing.shapes import Point, curve, ellipse


def eyes(pen: Pen, animal: Animal, places: list[Point], size: float) -> None:
    """The eyes, as the animal's mood will have them."""
    mood = animal.look.mood
    for i, (x, y) in enumerate(places):
        closed = mood == "happy" or animal.look.pose == "sleep" or (mood == "wink" and i == 1)
        draw = _closed if closed else _cat_eye if animal.breed.is_cat else _dog_eye
        draw(pen.at(x, y, size, mirror=x < 0), animal)


def contrast(colour: Colour) -> Colour:
    """The colour of fine lines on a coat: dark on most, pale on a dark one."""
    return DARK if sum(colour) > 330 else mix(colour, WHITE, 0.5)


def _closed(pen: Pen, animal: Animal) -> None:
    if animal.look.pose == "sleep":
        pen = pen.at(0, 0, turn=180)
    pen.line([(-0.95, 0.2), (-0.5, -0.35), (0, -0.5), (0.5, -0.35), (0.95, 0.2)], contrast(animal.coat.face), 0.36)


def _cat_eye(pen: Pen, animal: Animal) -> None:
    almond = curve([(-1.05, 0.28), (-0.5, -0.72), (0.3, -0.98), (1.2, -0.5), (0.75, 0.6), (-0.25, 0.9)], closed=True)
    _iris(pen, animal, almond)
    pen.fill(ellipse(0.05, -0.03, 0.27, 0.84), (28, 22, 28))
    _shine(pen.at(-0.14, 0, 0.88))
    pen.edge(almond, DARK, 0.24)


def _dog_eye(pen: Pen, animal: Animal) -> None:
    round_eye = ellipse(0, 0, 0.92, 0.96)
    _iris(pen, animal, round_eye)
    pen.fill(ellipse(0, 0.02, 0.56, 0.6), (28, 22, 28))
    _shine(pen)
    pen.edge(round_eye, DARK, 0.24)


def _iris(pen: Pen, animal: Animal, outline: list[Point]) -> None:
    pen.fill(outline, animal.look.iris)
    with pen.inside(outline):
        pen.fill(ellipse(0, -0.9, 1.5, 0.75), darker(animal.look.iris, 0.72))


def _shine(pen: Pen) -> None:
    pen.fill(ellipse(-0.28, -0.36, 0.3, 0.3), WHITE)
    pen.fill(ellipse(0.34, 0.36, 0.15, 0.15), WHITE)


def side_box(animal: Animal) -> tuple[float, float, float, float]:
    """The middle and the radii of a head seen from the side, for its marks: a mask lies in front, spots everywhere."""
    return (0.35, 0, 0.75, 0.9) if animal.coat.pattern in ("points", "bicolour") else (0.0, 0, 0.85, 0.85)


def blush(pen: Pen, x: float, y: float, strength: float = 0.42) -> None:
    """A rosy cheek."""
    pen.soft(ellipse(x, y, 0.2, 0.13), BLUSH, strength, 0.05)
