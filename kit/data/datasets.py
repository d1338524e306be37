"""Named data sets: `sample`, drawn images that are part of kit, and `pets`, Oxford Pets, downloaded once.

kit check pets --label is_cat
"""

from pathlib import Path

from kit.fetch import Source, download, extract
from kit.files import cache_folder, packaged

PETS_SOURCES = (
    Source(
        "https://s3.amazonaws.com/fast-ai-imageclas/oxford-iiit-pet.tgz",
        "e4db5c768afd933bb91f5f594d7417a4",
        algorithm="md5",
        first_bytes=2**20,
        size=811_706_944,
    ),
    Source(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
        "5c4f3ee8e5d25df40f4fd59a7f44e54c",
        algorithm="md5",
    ),
)


def sample() -> Path:
    """The folder of the drawn cats and dogs (drawn by data/draw_sample.py of the repository)."""
    return packaged("sample")


def pets() -> Path:
    """The folder of the 7,390 photos of Oxford Pets; downloaded, checked and unpacked into the cache the first time.

    Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs, CVPR 2012; CC BY-SA 4.0. Raises `FetchError` without network.
    """
    folder = cache_folder() / "oxford-pets"
    if not folder.is_dir():
        archive = download(PETS_SOURCES, cache_folder() / "oxford-pets.tar.gz", "the photos of Oxford Pets")
        extract(archive, folder)
    return next(path for path in folder.rglob("images") if path.is_dir())


NAMED = {"sample": sample, "pets": pets}
