"""The twelve breeds: six cats and six dogs, each by its coat's pattern and the shapes of its parts.

BREEDS["Siamese"].ears
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Breed:
    """One breed by its shapes; lengths are in units of a head's radius."""

    name: str
    species: str
    pattern: str
    ears: str
    tail: str
    face: tuple[float, float]
    muzzle: float
    length: float
    girth: float
    legs: float
    fur: str = "smooth"

    @property
    def is_cat(self) -> bool:
        """Whether it is a cat."""
        return self.species == "cat"


def _table(*breeds: Breed) -> dict[str, Breed]:
    return {breed.name: breed for breed in breeds}


# Every pattern belongs to one cat and one dog, so that no pattern tells the species.
BREEDS = _table(
    Breed("Tabby", "cat", "stripes", "pointed", "slim", (1.06, 0.9), 0.0, 1.35, 1.15, 0.85),
    Breed("Siamese", "cat", "points", "tall", "slim", (0.92, 0.92), 0.12, 1.35, 0.9, 1.1),
    Breed("Persian", "cat", "plain", "small", "bushy", (1.14, 0.92), -0.06, 1.2, 1.3, 0.6, "tufts"),
    Breed("Calico", "cat", "patches", "pointed", "slim", (1.04, 0.9), 0.0, 1.3, 1.1, 0.8),
    Breed("Scottish_Fold", "cat", "bicolour", "folded", "slim", (1.14, 0.96), -0.04, 1.25, 1.25, 0.7),
    Breed("Bengal", "cat", "spots", "pointed", "slim", (0.98, 0.9), 0.06, 1.5, 1.0, 1.0),
    Breed("greyhound", "dog", "stripes", "rose", "whip", (0.76, 0.96), 1.15, 1.45, 0.95, 1.4),
    Breed("dachshund", "dog", "points", "long", "sabre", (0.82, 0.94), 1.0, 2.0, 0.95, 0.42),
    Breed("poodle", "dog", "plain", "woolly", "pompom", (0.84, 0.94), 0.85, 1.2, 1.1, 1.05, "curls"),
    Breed("beagle", "dog", "patches", "long", "sabre", (0.92, 0.94), 0.72, 1.35, 1.15, 0.85),
    Breed("husky", "dog", "bicolour", "upright", "ring", (1.0, 0.94), 0.74, 1.4, 1.2, 1.0, "tufts"),
    Breed("dalmatian", "dog", "spots", "flop", "sabre", (0.86, 0.96), 0.85, 1.45, 1.05, 1.2),
)

CATS = tuple(breed for breed in BREEDS.values() if breed.is_cat)
DOGS = tuple(breed for breed in BREEDS.values() if not breed.is_cat)
