"""Light on a finished drawing: exposure, warm and cold tints, a beam from the side, a vignette, some blur, grain.

shown = lit(image, choose_light(random.Random(1)), seed=1)
"""

import random
from dataclasses import dataclass

import numpy
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Light:
    """How a drawing is lit; 0 is none of it for everything but `exposure`."""

    exposure: float
    warmth: float
    beam: float
    angle: float
    vignette: float
    blur: float
    grain: float


def choose_light(chance: random.Random) -> Light:
    """Mostly plain daylight, sometimes dusk, glare, lamplight, fog on the lens."""
    return Light(
        exposure=chance.choice((1.0, 1.0, chance.uniform(0.78, 0.93), chance.uniform(1.05, 1.22))),
        warmth=chance.choice((0.0, chance.uniform(-0.14, 0.14))),
        beam=chance.choice((0.0, 0.0, chance.uniform(0.15, 0.35))),
        angle=chance.uniform(0, 6.28),
        vignette=chance.choice((0.0, 0.0, chance.uniform(0.2, 0.42))),
        blur=chance.choice((0.0, 0.0, 0.0, chance.uniform(0.35, 0.65))),
        grain=chance.choice((0.0, 0.0, 0.0, chance.uniform(2.0, 6.0))),
    )


def lit(image: Image.Image, light: Light, seed: int) -> Image.Image:
    """The drawing in that light."""
    if light.blur:
        image = image.filter(ImageFilter.GaussianBlur(light.blur))
    pixels = numpy.asarray(image, dtype=numpy.float64)
    pixels = pixels * light.exposure * (1 + light.warmth * numpy.array([1.0, 0.15, -1.0]))
    pixels = pixels * _field(pixels.shape[0], pixels.shape[1], light)[..., None]
    grain = numpy.random.default_rng(seed).normal(0, 1, pixels.shape[:2])[..., None] * light.grain
    return Image.fromarray(numpy.clip(numpy.rint(pixels + grain), 0, 255).astype(numpy.uint8))


def _field(high: int, wide: int, light: Light) -> numpy.ndarray:
    down, across = numpy.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    beam = 1 + light.beam * (numpy.cos(light.angle) * across + numpy.sin(light.angle) * down) / 1.2
    return beam * (1 - light.vignette * numpy.clip(numpy.hypot(across, down) - 0.45, 0, None))
