"""Cat or dog: the first model of the fast.ai course, on Oxford Pets.

    python apps/pets.py                                # fetches the 7,390 photos once (800 MB)
    python apps/pets.py --images FOLDER --arch resnet18

A file whose name starts with a capital letter shows a cat. A random fifth of the photos is the validation set: the same
one that fastai's RandomSplitter(valid_pct=0.2, seed=42) chooses.
"""

from kit import fine_tune, is_cat
from kit.cli.script import script


def main(images: str = "pets", arch: str = "resnet34", epochs: int = 1, batch: int = 64):
    run = fine_tune(images, label=is_cat, split="random", valid=0.2, seed=42, arch=arch, epochs=epochs, batch=batch)
    print(f"error_rate {run.error_rate}")


if __name__ == "__main__":
    script(main)
