"""What all tests share: tiny images that the tests draw themselves, one trained run, and the folder of real photos."""

import gc
import os
import random
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageOps

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes that each take all cores are slower than one
MUCH = 200_000_000
SHAPES = ("circle", "square", "triangle")


def draw_shape(shape: str, seed: int, size: int = 64) -> Image.Image:
    """One shape, somewhere, in some colour, on some other colour, with its own speckles: no two are alike."""
    dice = random.Random(f"{shape} {seed}")
    image = Image.new("RGB", (size, size), tuple(dice.randrange(0, 100) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = dice.randrange(size), dice.randrange(size)
        pen.rectangle([x, y, x + dice.randrange(14), y + dice.randrange(14)], fill=tuple(dice.choices(range(120), k=3)))
    side = dice.randrange(size // 3, size // 2)
    x, y = dice.randrange(size - side), dice.randrange(size - side)
    colour = tuple(dice.randrange(150, 256) for _ in range(3))
    if shape == "circle":
        pen.ellipse([x, y, x + side, y + side], fill=colour)
    elif shape == "square":
        pen.rectangle([x, y, x + side, y + side], fill=colour)
    else:
        pen.polygon([(x, y + side), (x + side // 2, y), (x + side, y + side)], fill=colour)
    return image


def write_shapes(folder: Path, count: int = 8, shapes: tuple[str, ...] = SHAPES, first: int = 0) -> Path:
    """FOLDER/SHAPE/NN.png: `count` images of each shape."""
    for shape in shapes:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw_shape(shape, number).save(folder / shape / f"{number:02}.png")
    return folder


def with_paths_of_this_machine(folder: Path, *further: str) -> list[str]:
    """The files of a folder that hold a path or name of this machine, or one of `further`, with what they hold."""
    names = [f"{Path.home()}/", f"{tempfile.gettempdir()}/", f"{Path(__file__).parents[1]}/", "site-packages", *further]
    names += [socket.gethostname()] * (len(socket.gethostname()) > 5)  # shorter ones are in any large file
    files = ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return [f"{path}: {name}" for path, content in files for name in names if name.encode() in content]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file run in one process, so that what they share is made once; slow ones share little."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if "not slow" in config.option.markexpr else None


@pytest.fixture(scope="session", autouse=True)
def _modules_are_no_garbage():
    """Keep what the imports made out of garbage collections, which then take a fraction of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_heaps_of_garbage():
    """Collect what a test left in cycles, where that is much: a learner is one, and Python counts no bytes."""
    before = resident()
    yield
    if resident() - before > MUCH:
        gc.collect()


def resident() -> int:
    """The bytes of memory that this process uses; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A folder of 24 drawn images, a folder a class. Read it; do not write to it."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def tiny():
    """A recipe for runs of about a second, on a network of half a million weights."""
    from kit import Recipe

    options = {"size": 32, "batch": 4, "workers": 0, "device": "cpu", "layers": "whole", "freeze_epochs": 0}
    return Recipe(arch="test_resnet", weights="none", **options)


@pytest.fixture(scope="session")
def light(tiny, tmp_path_factory):
    """The same with both phases, frozen and whole, from a file of weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), path)
    return replace(tiny, weights=str(path), freeze_epochs=1)


@pytest.fixture(scope="session")
def quick(light):
    """The same network with a linear head that is learned from features."""
    return replace(light, layers="head")


@pytest.fixture(scope="session")
def run(shapes, tiny, tmp_path_factory):
    """One finished run on the drawn shapes."""
    import kit

    return kit.fine_tune(shapes, tiny, out=tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="session")
def drawings(tmp_path_factory) -> Path:
    """48 of the drawings that come with kit, cats and dogs in folders; one of each lies in the other folder, and one
    image is a mirrored copy. Read it; do not write to it."""
    folder = tmp_path_factory.mktemp("data") / "drawings"
    found = sorted((Path(__file__).parents[1] / "data" / "sample").glob("*.jpg"))
    for name, other, is_cat, stray in (("cat", "dog", True, 3), ("dog", "cat", False, 5)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / other).mkdir(exist_ok=True)
        for place, path in enumerate([path for path in found if path.name[0].isupper() == is_cat][:24]):
            shutil.copy(path, folder / (other if place == stray else name) / path.name)
    with Image.open(sorted((folder / "dog").glob("[a-z]*.jpg"))[0]) as image:
        ImageOps.mirror(image).save(folder / "dog" / "mirrored.jpg")
    return folder


@pytest.fixture(scope="session")
def of_package():
    """A recipe whose network's ImageNet weights come with a package, for drawings."""
    from kit import Recipe

    return Recipe(arch="tf_efficientnet_lite0", size=96, device="cpu")


@pytest.fixture(scope="session")
def pets() -> Path:
    """The folder of real photos of Oxford Pets, where KIT_SHARED names it."""
    shared = os.environ.get("KIT_SHARED")
    folder = Path(shared or "nowhere") / "images" / "pets"
    if not folder.is_dir():
        pytest.skip("needs KIT_SHARED=FOLDER with photos of Oxford Pets in FOLDER/images/pets (names: data/README.md)")
    return folder


@pytest.fixture(scope="module")
def chromium():
    """Chromium, with a camera that shows a test picture."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def predictor(run):
    """What predicts with the bundle of that run."""
    from kit import bundle

    return bundle.load(run.bundle)


@pytest.fixture(scope="module")
def photo(shapes) -> bytes:
    """A good image, as a file's bytes."""
    return (shapes / "circle" / "00.png").read_bytes()


@pytest.fixture(scope="module")
def shared_server(predictor):
    """A server of that bundle, for the tests of bad inputs."""
    from over_sockets import served

    with served(predictor) as server:
        yield server


@pytest.fixture
def server(shared_server, photo):
    """The same; after each test it must still answer a good request."""
    from over_sockets import good

    yield shared_server
    assert good(shared_server.port, photo)
