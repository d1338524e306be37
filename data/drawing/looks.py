"""Everything about a drawing that does not tell cats from dogs, chosen by its seed alone, before the breed is known.

choose(seed=7).scene
"""

import random
from dataclasses import dataclass

from drawing.colours import CLOTHES, EYES, NOSES, PALETTES, Colour, Palette
from drawing.light import Light, choose_light
from drawing.props import PROPS
from drawing.scenes import SCENES

POSES = ("sit", "sit", "sit", "stand", "stand", "lie", "face", "face", "face", "peek", "peek", "sleep", "jump")
FORMATS = ((112, 112), (128, 112), (112, 128), (136, 112), (112, 136), (120, 120), (132, 116))
MOODS = ("open", "open", "open", "open", "happy", "wink")
WEAR = ("nothing", "nothing", "collar", "collar", "bow", "scarf", "hat", "flower")


@dataclass(frozen=True)
class Look:
    """One seed's choices: cats and dogs take them from the same lists with the same chances."""

    seed: int
    format: tuple[int, int]
    scene: str
    pose: str
    palette: Palette
    iris: Colour
    nose: Colour
    mood: str
    tongue: bool
    profile: bool
    gaze: tuple[float, float]
    nod: float
    mirror: bool
    tilt: float
    size: float
    place: tuple[float, float]
    wear: str
    cloth: Colour
    prop: str
    light: Light


def choose(seed: int) -> Look:
    """The look that belongs to a seed."""
    chance = random.Random(f"look {seed}")
    pick, between = chance.choice, chance.uniform
    return Look(
        seed=seed,
        format=pick(FORMATS),
        scene=pick(SCENES),
        pose=pick(POSES),
        palette=PALETTES[pick(tuple(PALETTES))],
        iris=pick(EYES),
        nose=pick(NOSES),
        mood=pick(MOODS),
        tongue=chance.random() < 0.4,
        profile=chance.random() < 0.25,
        gaze=(between(-1, 1), between(-0.6, 0.7)),
        nod=between(-14, 14),
        mirror=chance.random() < 0.5,
        tilt=between(-6, 6),
        size=between(0.76, 1.0),
        place=(between(-1, 1), between(-1, 1)),
        wear=pick(WEAR),
        cloth=pick(CLOTHES),
        prop=pick(PROPS),
        light=choose_light(chance),
    )
