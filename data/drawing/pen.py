"""A pen on a picture: it carries a place, a size, a turn and a mirror, so that shapes are drawn in units of their own.

pen = Pen(image).at(200, 150, scale=40, turn=10); pen.part(ellipse(0, 0, 1, 1), (230, 160, 80))
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from drawing.colours import Colour, darker, ink
from drawing.shapes import Outline, Point, curve, moved


class Pen:
    """Draws on `image`; `frame` (a, b, c, d, x, y) takes the pen's own units to pixels."""

    def __init__(self, image: Image.Image, frame: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)):
        self.image = image
        self.frame = frame

    @property
    def scale(self) -> float:
        """Pixels for one unit."""
        a, b, c, d, _, _ = self.frame
        return math.sqrt(abs(a * d - b * c))

    def at(self, x: float, y: float, scale: float = 1.0, turn: float = 0.0, mirror: bool = False) -> "Pen":
        """A pen on the same picture whose origin lies at (x, y) of this one."""
        a, b, c, d, _, _ = self.frame
        cos, sin = scale * math.cos(math.radians(turn)), scale * math.sin(math.radians(turn))
        side = -1.0 if mirror else 1.0
        p, q, r, s = cos * side, -sin, sin * side, cos
        turned = (a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s)
        return Pen(self.image, (*turned, *self.place([(x, y)])[0]))

    def place(self, points: Sequence[Point]) -> Outline:
        """The points in pixels."""
        a, b, c, d, e, f = self.frame
        return [(a * x + b * y + e, c * x + d * y + f) for x, y in points]

    def fill(self, outline: Outline, colour: Colour) -> None:
        """One flat shape."""
        ImageDraw.Draw(self.image).polygon(self.place(outline), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A smooth line through the points, with round ends."""
        self._trace(curve(points), colour, width)

    def edge(self, outline: Outline, colour: Colour, width: float = 0.05, joint: int = 0) -> None:
        """The line round a shape; with `joint`, it leaves out that many points at the start and at the end."""
        self._trace(outline[joint:-joint] if joint else [*outline, outline[0]], colour, width)

    def _trace(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        placed, reach = self.place(points), max(width * self.scale / 2, 0.8)
        canvas = ImageDraw.Draw(self.image)
        canvas.line(placed, fill=colour, width=max(round(2 * reach), 1), joint="curve")
        for x, y in (placed[0], placed[-1]):
            canvas.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)

    def part(self, outline: Outline, colour: Colour, width: float = 0.05) -> None:
        """A shape of an animal or a thing: filled, shaded at the lower right, with an edge of its own colour."""
        self.fill(outline, colour)
        self.shade(outline)
        self.edge(outline, ink(colour), width)

    def mask(self, outline: Outline) -> Image.Image:
        """The shape as white on black, as large as the picture."""
        return self._mask(self.place(outline))

    def _mask(self, placed: Outline) -> Image.Image:
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(placed, fill=255)
        return mask

    @contextmanager
    def inside(self, outline: Outline) -> Iterator["Pen"]:
        """Keep what the block draws inside a shape."""
        before = self.image.copy()
        yield self
        self.image.paste(Image.composite(self.image, before, self.mask(outline)))

    def shade(self, outline: Outline, strength: float = 0.14, reach: float = 0.16) -> None:
        """Darken a shape's lower right rim: every picture has its light at the upper left."""
        step = reach * self.scale
        lit_up = self._mask(moved(self.place(outline), -step, -step))
        rim = ImageChops.subtract(self.mask(outline), lit_up)
        self._blend(self.image.point(lambda value: int(value * (1 - strength))), rim)

    def soft(self, outline: Outline, colour: Colour, strength: float, blur: float) -> None:
        """A shape with blurred borders, seen through: blush, glow, a shadow on the ground."""
        shape = self.mask(outline).filter(ImageFilter.GaussianBlur(blur * self.scale))
        self._blend(Image.new("RGB", self.image.size, colour), shape.point(lambda value: int(value * strength)))

    def shadow(self, outline: Outline, strength: float = 0.35, blur: float = 0.12) -> None:
        """A soft shadow."""
        self.soft(outline, darker((70, 60, 80), 0.5), strength, blur)

    def _blend(self, over: Image.Image, mask: Image.Image) -> None:
        where = mask.getbbox()
        if where:
            self.image.paste(over.crop(where), where[:2], mask.crop(where))
