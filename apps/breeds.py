"""Which of 37 breeds: names by a pattern, and presizing, on Oxford Pets.

    python apps/breeds.py                              # fetches the 7,390 photos once (800 MB)
    python apps/breeds.py --images FOLDER --arch resnet18 --epochs 5

Presizing: each photo is first made 460 pixels square; turning, zooming and cropping to 224 then happens to the whole
batch at once, in one interpolation, and no corner comes out empty.
"""

from kit import data, fine_tune
from kit.cli.script import script


def main(images: str = "pets", arch: str = "resnet50", epochs: int = 1, batch: int = 64):
    breed = data.pattern(r"^(.+)_\d+\.jpg$")
    run = fine_tune(images, label=breed, presize=460, size=224, arch=arch, epochs=epochs, batch=batch)
    print(f"error_rate {run.error_rate}")
    for breed, taken_for, times in run.evaluation.most_confused()[:5]:
        print(f"{times} x {breed} taken for {taken_for}")


if __name__ == "__main__":
    script(main)
