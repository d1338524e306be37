"""A Space where it is to run: in a fresh virtual environment with its own requirements, seen in Chromium."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accessibility import assert_accessible

import kit
from kit import bundle
from kit.serve import write_space
from kit.views.view import view_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(shapes, tiny, tmp_path_factory):
    """A run on images so large that a heat map has more than one place."""
    return kit.fine_tune(shapes, tiny, size=96, out=tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    return write_space(run.bundle, tmp_path_factory.mktemp("spaces") / "shapes")


def telling(run, folder: Path) -> tuple[str, int]:
    """A recorded image, and the place among its likeliest classes of one whose heat map is another than the first's."""
    predictor = bundle.load(run.bundle)
    for name in json.loads((folder / "smoke.json").read_text()):
        one, maps = predictor.explain(folder / name)
        first, *others = (maps[predictor.vocab.index(label)] for label, _ in one.top(5))
        for place, other in enumerate(others, 1):
            if np.abs(first / max(first.max(), 1e-12) - other / max(other.max(), 1e-12)).max() > 0.2:
                return name, place
    raise AssertionError("all heat maps are alike")


@pytest.fixture(scope="module")
def python(folder, tmp_path_factory) -> Path:
    """The interpreter of an environment that holds what requirements.txt names, and nothing else."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], check=True)
    return python


@pytest.fixture(scope="module")
def address(folder, python):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    app = subprocess.Popen([python, "app.py"], cwd=folder, env=os.environ | settings, stdout=subprocess.PIPE, text=True)
    try:
        yield next(found[0] for line in app.stdout if (found := re.search(r"http://\S+", line)))
    finally:
        app.terminate()
        app.wait(30)


@pytest.fixture
def page(chromium, address):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(30_000)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.locator("h1").first.wait_for()
    yield page
    page.close()


def test_the_fresh_environment_holds_none_of_the_training_packages(python):
    said = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    names = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert "gradio" in names
    assert not names & {"kit", "torch", "torchvision", "fastai", "timm", "onnx"}


def test_there_it_gives_the_recorded_answers_through_gradio_client(folder, python):
    done = subprocess.run([python, "smoke.py"], cwd=folder, capture_output=True, text=True, check=False)
    count = len(json.loads((folder / "smoke.json").read_text()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} of {count} answers as recorded" in done.stdout


def test_there_it_gives_the_recorded_answer_in_chromium_and_draws_what_spoke_for_it(page, run, folder, address):
    name, place = telling(run, folder)
    expected = json.loads((folder / "smoke.json").read_text())[name]
    page.locator("input[type=file]").first.set_input_files(folder / name)
    page.get_by_role("heading", level=2, name=expected["label"]).wait_for()
    unlike = page.get_by_text("does not look like the training images")
    unlike.wait_for(state="visible" if expected["unlike"] else "hidden")
    page.get_by_text("Bright parts of the picture contribute to").wait_for()
    first = page.get_by_test_id("image").locator("img").or_(page.locator(".image-frame img")).last
    source = first.get_attribute("src")
    page.get_by_role("radio").nth(place).check()
    page.wait_for_function("([one, before]) => one.src !== before", arg=[first.element_handle(), source])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []


def test_it_begins_with_a_sentence_and_an_answered_example_and_takes_a_photo_by_one_button(page, run, folder):
    claim = json.loads((folder / "model.json").read_text())["claim"]
    assert claim == view_of(bundle.load(run.bundle).config).claim
    page.get_by_text(claim).wait_for()
    page.get_by_text("For example:").wait_for()
    page.get_by_role("heading", name=" %").wait_for()
    assert page.get_by_text("Show it a photo").is_hidden()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take or choose a photo").click()
    chooser.value.set_files(folder / "smoke.png")
    page.get_by_text("For example:").wait_for(state="hidden")
    page.get_by_role("button", name="Example 2").click()
    page.get_by_role("heading", name=" %").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_on_a_phone_and_a_screen_in_light_and_dark(chromium, address, width, scheme):
    page = chromium.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address)
    page.get_by_text("Bright parts of the picture contribute to").wait_for()
    page.get_by_role("button", name="Example 1").wait_for()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_a_file_that_is_no_image_says_why_there_and_an_example_still_works(page, tmp_path, folder):
    (tmp_path / "bad.jpg").write_text("no image")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "bad.jpg")
    page.get_by_text("This photo cannot be used: not an image").wait_for()
    page.locator(".gallery-item, .gallery button").first.click()
    page.get_by_role("heading", name=" %").wait_for()
    assert (
        page.get_by_text("This photo cannot be used").count() == 0
        or not page.get_by_text("cannot be read").is_visible()
    )
