"""The SGD playground as a person meets it: in Chromium, on a phone and on a laptop, stepping, running, running away."""

import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accessibility import assert_accessible

pytestmark = pytest.mark.browser
APP = Path(__file__).parent.parent / "apps" / "sgd_playground.py"
PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, APP, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert any("Running on local URL" in line for line in server.stdout), "the app ended before it served its page"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(params=[PHONE, LAPTOP], ids=["phone", "laptop"])
def page(request, chromium, address):
    page = chromium.new_page(viewport=request.param)
    page.set_default_timeout(10_000)
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(address)
    page.locator("svg.map").wait_for()
    yield page
    page.close()


def says(page, text: str) -> None:
    page.locator(".verdict", has_text=re.compile(text)).wait_for()


def at_step(page, step: int) -> None:
    page.locator(".tiles dd").first.filter(has_text=re.compile(f"^{step}$")).wait_for()


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def set_slider(page, label: str, value: float) -> None:
    box = page.get_by_role("spinbutton", name=re.compile(label))
    box.fill(str(value))
    box.press("Tab")


def test_step_run_and_reset_walk_and_fill_the_table(page, tmp_path):
    says(page, "At the start")
    press(page, "Step")
    at_step(page, 1)
    assert page.locator(".numbers tbody tr").count() == 2
    press(page, "Run 20")
    at_step(page, 21)
    assert page.locator(".numbers tbody tr").count() == 22
    says(page, "Going down")
    page.screenshot(path=tmp_path / "walk.png", full_page=True)
    press(page, "Reset")
    at_step(page, 0)


def test_a_rate_above_the_bound_diverges_and_the_page_says_why(page, tmp_path):
    set_slider(page, "Learning rate", 1.3)
    says(page, re.escape("The learning rate 1.3 is not below 2 / c = 1, the bound for SGD"))
    press(page, "Run 20")
    says(page, r"Diverged after \d+ steps.*curvature c everywhere is 2.*distance by 1 − 1.3 × 2 = −1.6")
    page.screenshot(path=tmp_path / "diverged.png", full_page=True)


def test_every_landscape_and_every_optimiser_can_be_walked(page, tmp_path):
    for name in ["parabola", "saddle", "two minima", "tiny network", "stretched valley"]:
        page.get_by_role("listbox", name="Landscape").or_(page.get_by_label("Landscape")).first.click()
        page.get_by_role("option", name=name).click()
        page.locator(f"svg[aria-label^='Map of the {name}: step 0']").wait_for()
        press(page, "Run 20")
        page.locator(f"svg[aria-label^='Map of the {name}: step 20']").wait_for()
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    for name in ["Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW", "SGD"]:
        before = page.locator("svg.map").get_attribute("aria-label")
        page.get_by_role("radio", name=name, exact=True).check()
        page.locator(f'svg.map:not([aria-label="{before}"])').wait_for()


def test_a_click_on_the_map_moves_the_start(page):
    box = page.locator("svg.map").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25)
    page.locator("svg[aria-label*='step 0']:not([aria-label*='(-7, 2)'])").wait_for()
    x, y = map(float, re.search(r"\((.*), (.*)\)", page.locator("svg.map").get_attribute("aria-label")).groups())
    assert abs(x - 5) < 0.1 and abs(y - 5) < 0.1


def test_the_keyboard_alone_steps_and_changes_rate_and_optimiser(page):
    button = page.get_by_role("button", name="Step", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    at_step(page, 1)
    before = page.locator("svg.map").get_attribute("aria-label")
    page.get_by_role("slider", name=re.compile("Learning rate")).focus()
    page.keyboard.press("ArrowLeft")
    page.locator(f'svg.map:not([aria-label="{before}"])').wait_for()
    page.get_by_role("radio", name="Momentum", exact=True).focus()
    page.keyboard.press("Space")
    page.get_by_text("A ball with inertia").wait_for()


def test_two_visitors_do_not_disturb_each_other(page, chromium, address):
    other = chromium.new_page(viewport=LAPTOP)
    other.goto(address)
    press(page, "Run 20")
    at_step(page, 20)
    press(other, "Step")
    at_step(other, 1)
    press(page, "Step")
    at_step(page, 21)
    other.close()


def test_nothing_is_asked_of_another_machine_nor_kept_in_the_browser_and_nothing_sticks_out(page, address):
    press(page, "Run 20")
    at_step(page, 20)
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
    assert page.wrong == []
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_is_seen_in_light_and_dark(chromium, address, tmp_path):
    colours = set()
    for scheme in ("light", "dark"):
        page = chromium.new_page(viewport=LAPTOP, color_scheme=scheme)
        page.goto(address)
        page.locator("svg.map").wait_for()
        press(page, "Run 20")
        at_step(page, 20)
        colours.add(page.evaluate("getComputedStyle(document.querySelector('.map .band')).fill"))
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        for size in (LAPTOP, PHONE):
            page.set_viewport_size(size)
            assert_accessible(page)
        page.close()
    assert len(colours) == 2


def test_milliseconds_from_click_to_picture_are_printed(page):
    took = []
    for step in range(1, 11):
        begun = time.perf_counter()
        press(page, "Step")
        at_step(page, step)
        took.append(1000 * (time.perf_counter() - begun))
    print(f"click to picture: median {statistics.median(took):.0f} ms, most {max(took):.0f} ms")
