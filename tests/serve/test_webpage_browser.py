"""The page as a person meets it: in Chromium, on a phone and on a laptop, with a mouse, a keyboard and a camera."""

import csv
import io
import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from accessibility import assert_accessible
from conftest import write_shapes

import kit

pytestmark = pytest.mark.browser
PHONE, LAPTOP, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}, {"width": 1800, "height": 1000}


@contextmanager
def served(folder, **settings):
    code = f"from kit.serve import Settings, run; run({str(folder)!r}, Settings(port=0, **{settings!r}))"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().split()[1]
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def address(run):
    with served(run.bundle) as address:
        yield address


@pytest.fixture(scope="module")
def many_classes(tiny, tmp_path_factory):
    """The address of a bundle that knows 30 classes with long names, and is wrong about most of them."""
    folder = tmp_path_factory.mktemp("many")
    names = tuple(f"<b>a breed whose name is long, number {number}" for number in range(30))
    write_shapes(folder / "images", 5, names)
    run = kit.fine_tune(folder / "images", tiny, valid=0.4, out=folder / "run", onnx=False)
    with served(run.bundle) as address:
        yield address


def visit(chromium, address, viewport, **options):
    context = chromium.new_context(viewport=viewport, **options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(address)
    page.locator("h1").wait_for()
    return page


@pytest.fixture(params=[PHONE, LAPTOP], ids=["phone", "laptop"])
def page(request, chromium, address):
    page = visit(chromium, address, request.param)
    yield page
    page.context.close()


@pytest.fixture
def files(shapes, tmp_path):
    bad, archive = tmp_path / "bad.jpg", tmp_path / "some.zip"
    bad.write_text("no image")
    with zipfile.ZipFile(archive, "w") as members:
        members.write(shapes / "square" / "00.png", "in/one.png")
        members.writestr("../out.png", b"x")
    return [shapes / "circle" / "00.png", bad, archive]


def drop(page, file):
    page.locator("input[type=file]").first.set_input_files(file)


def clear(page):
    page.locator(".photo .icon-button-wrapper button").first.click()


def test_a_photo_is_classified_and_each_classs_heat_map_can_be_seen(page, shapes, tmp_path):
    drop(page, shapes / "circle" / "00.png")
    page.locator(".result h2").wait_for()
    assert re.search(r"\d %", page.locator(".result h2").inner_text())
    page.locator(".strength input").fill("30")
    assert page.locator(".result").evaluate("one => one.style.getPropertyValue('--strength')") == "0.3"
    for place in range(3):
        page.locator(".classes input").nth(place).check()
        shown = page.locator(".heat:visible").evaluate_all("all => all.map(one => one.dataset.place)")
        assert shown in ([str(place)], [])
    page.screenshot(path=tmp_path / "classify.png", full_page=True)
    clear(page)
    page.get_by_text("Drop a photo, paste one").wait_for()
    drop(page, shapes / "square" / "01.png")
    page.locator('.classes input[value="0"]:checked').wait_for()
    assert page.locator(".strength input").input_value() == "30"


def test_a_file_that_is_no_image_says_why_and_the_next_photo_works(page, files, shapes):
    drop(page, files[1])
    page.get_by_text("not an image of the formats").wait_for()
    clear(page)
    drop(page, shapes / "circle" / "00.png")
    page.locator(".result h2").wait_for()


def test_an_example_is_chosen_by_keyboard_alone(page):
    example = page.locator(".gallery-item, .gallery button").first
    example.focus()
    page.keyboard.press("Enter")
    page.locator(".result h2").wait_for()
    page.locator(".classes input").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".classes input").nth(1).is_checked()
    page.locator(".strength input").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".strength input").input_value() == "69"


def test_a_camera_takes_a_photo(chromium, address):
    page = visit(chromium, address, LAPTOP, permissions=["camera"])
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_text(re.compile("Click to Access Webcam", re.I)).click()
    page.wait_for_function("document.querySelector('.photo video')?.videoWidth > 0")
    page.locator(".photo button[aria-label='capture photo']").click()
    page.locator(".result h2").wait_for()
    page.context.close()


def test_a_photo_is_pasted(chromium, address):
    page = visit(chromium, address, LAPTOP, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("""async () => {
        const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 40})
        const image = await new Promise(done => canvas.toBlob(done, 'image/png'))
        await navigator.clipboard.write([new ClipboardItem({'image/png': image})])
    }""")
    page.get_by_role("button", name="Paste from clipboard").click()
    page.locator(".result h2").wait_for()
    page.context.close()


def test_many_files_become_a_table_that_sorts_and_a_csv(page, files, tmp_path):
    page.get_by_role("tab", name="Many").click()
    page.locator("input[type=file][multiple]").set_input_files(files)
    page.get_by_text("2 of 4 predicted, 2 could not be opened").wait_for()
    names = page.locator(".rows tbody th")
    page.get_by_role("button", name="probability").click()
    assert {text.split("\n")[0] for text in names.all_inner_texts()[:2]} == {"bad.jpg", "../out.png"}
    page.get_by_role("button", name="probability").press("Enter")
    assert {text.split("\n")[0] for text in names.all_inner_texts()[2:]} == {"bad.jpg", "../out.png"}
    page.screenshot(path=tmp_path / "many.png", full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").or_(page.get_by_text("Download as CSV")).first.click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [row["path"] for row in rows] == ["00.png", "bad.jpg", "in/one.png", "../out.png"]


def test_a_file_over_the_limit_says_so(chromium, address, tmp_path):
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(11_000_000))
    page = visit(chromium, address, LAPTOP)
    page.get_by_role("tab", name="Many").click()
    page.locator("input[type=file][multiple]").set_input_files(large)
    page.get_by_text(re.compile("exceed the maximum allowed size")).first.wait_for()
    page.context.close()


def test_about_is_the_card_made_readable(page, tmp_path):
    page.get_by_role("tab", name="About").click()
    for heading in ("Error rate", "What it is", "Confusion matrix", "Results by class", "Limits"):
        page.get_by_role("heading", name=heading).wait_for()
    assert page.locator(".matrix tbody tr").count() == 3
    page.screenshot(path=tmp_path / "about.png", full_page=True)


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP, WIDE], ids=["phone", "laptop", "wide"])
def test_many_classes_with_long_names_stay_in_their_places(chromium, many_classes, viewport, shapes, tmp_path):
    page = visit(chromium, many_classes, viewport)
    drop(page, shapes / "circle" / "00.png")
    page.locator(".result h2").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("tab", name="About").click()
    matrix = page.get_by_role("region", name="Confusion matrix")
    assert matrix.locator("tbody tr").count() == 25
    assert page.locator(".photos li").count() == 6
    assert page.locator(".photos img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    page.screenshot(path=tmp_path / "about.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_a_matrix_wider_than_a_phone_scrolls_in_its_box_by_keyboard_and_keeps_its_names(chromium, many_classes):
    page = visit(chromium, many_classes, PHONE)
    page.get_by_role("tab", name="About").click()
    matrix = page.get_by_role("region", name="Confusion matrix")
    assert matrix.evaluate("one => one.scrollWidth > one.clientWidth")
    name = matrix.locator("tbody th").first
    before = name.bounding_box()["x"]
    matrix.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.matrix').scrollLeft > 20")
    assert name.bounding_box()["x"] == pytest.approx(before, abs=2)
    page.context.close()


CONTRASTS = """() => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    const pen = canvas.getContext('2d', {willReadFrequently: true})
    const light = colours => {
        pen.clearRect(0, 0, 1, 1)
        for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1) }
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map(
            value => value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    return [...document.querySelectorAll('.matrix td, .matrix th')].map(cell => {
        const behind = []
        for (let one = cell; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor)
        const [dark, bright] = [light(behind), light([...behind, getComputedStyle(cell).color])].sort((a, b) => a - b)
        return (bright + 0.05) / (dark + 0.05)
    })
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_cell_of_the_matrix_can_be_read(chromium, many_classes, scheme):
    page = visit(chromium, many_classes, LAPTOP, color_scheme=scheme)
    page.get_by_role("tab", name="About").click()
    page.locator(".matrix").wait_for()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) == 26 * 27
    assert min(contrasts) >= 4.5
    page.context.close()


def test_what_is_pressed_is_large_enough_for_a_finger_and_has_a_name(chromium, address, files):
    page = visit(chromium, address, PHONE)
    drop(page, files[0])
    page.locator(".result h2").wait_for()
    buttons = [one for one in page.get_by_role("button").all() if one.is_visible()]
    assert len(buttons) >= 5
    for one in buttons:
        box, name = one.bounding_box(), one.get_attribute("aria-label") or one.inner_text()
        assert min(box["width"], box["height"]) >= 32, name
        assert name.strip()
    page.context.close()


def test_a_picture_that_the_browser_cannot_show_is_no_broken_picture(page, files, shapes):
    drop(page, files[1])
    page.locator(".photo img").wait_for(state="hidden")
    clear(page)
    drop(page, shapes / "circle" / "00.png")
    page.locator(".photo img").wait_for(state="visible")


def test_the_page_keeps_its_width_from_tab_to_tab(chromium, address):
    page = visit(chromium, address, WIDE)
    widths = set()
    for tab in ("Many", "About", "One photo"):
        page.get_by_role("tab", name=tab).click()
        widths.add(page.locator("h1").bounding_box()["x"])
    assert len(widths) == 1
    page.context.close()


def test_nothing_is_asked_of_another_machine_nor_kept_in_the_browser_and_nothing_sticks_out(page, address, files):
    drop(page, files[0])
    page.locator(".result h2").wait_for()
    for tab in ("Many", "About", "One photo"):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("tab", name=tab).click()
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
    assert page.wrong == []
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("indexedDB.databases().then(all => all.length)") == 0


def test_the_page_is_seen_in_light_and_dark_and_wide(chromium, address, files, tmp_path):
    colours = set()
    for scheme in ("light", "dark"):
        page = visit(chromium, address, WIDE, color_scheme=scheme)
        drop(page, files[0])
        page.locator(".result h2").wait_for()
        colours.add(page.locator(".result h2 span").evaluate("one => getComputedStyle(one).color"))
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        page.context.close()
    assert len(colours) == 2


def test_a_login_stands_before_the_page(chromium, run, files):
    with served(run.bundle, auth="anna", password="right") as address:
        context = chromium.new_context(viewport=PHONE)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(address)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("wrong user or password").wait_for()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert_accessible(page)
        page.get_by_label("User").fill("anna")
        page.get_by_label("Password").fill("right")
        page.keyboard.press("Enter")
        page.locator("h1", has_text="circle").wait_for()
        drop(page, files[0])
        page.locator(".result h2").wait_for()
        context.close()
