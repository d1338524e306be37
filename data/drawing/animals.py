"""An animal to be drawn: its breed, its coat and its look, in one value that every drawing function takes.

animal = meet("Tabby", seed=4)
"""

from dataclasses import dataclass

from drawing.breeds import BREEDS, Breed
from drawing.coats import Coat
from drawing.looks import Look, choose


@dataclass(frozen=True)
class Animal:
    """What is drawn: the breed gives the shapes, the look gives all the rest."""

    breed: Breed
    coat: Coat
    look: Look

    @property
    def profile(self) -> bool:
        """Whether the head is drawn from the side; a cat whose ears are folded would pass for a dog that way."""
        return self.look.profile and self.breed.ears != "folded"


def meet(name: str, seed: int) -> Animal:
    """The animal of a breed and a seed; the seed's look does not depend on the breed."""
    breed, look = BREEDS[name], choose(seed)
    return Animal(breed, Coat(breed.pattern, look.palette, seed), look)
