"""The page as a person meets it: in Chromium, on a phone and on a laptop, with a mouse, a keyboard and a camera."""

import csv
import io
import json
import re
import socket
import subprocess
import sys
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from accessibility import assert_accessible
from conftest import write_shapes

import kit
from kit.manifest import EXAMPLES, photos
from kit.serve import webpage

pytestmark = pytest.mark.browser
PHONE, LAPTOP, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}, {"width": 1800, "height": 1000}


@contextmanager
def served(folder, before="", **settings):
    """The address of a server in a process of its own. before: code that runs in it first."""
    settings = {"port": 0} | settings
    code = f"{before}\nfrom kit.serve import Settings, run; run({str(folder)!r}, Settings(**{settings!r}))"
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


def verdict(page) -> str:
    """What stands in the place of the answer when nothing is waited for."""
    page.locator(".looking").wait_for(state="detached")
    return page.locator(".verdict").inner_text()


def label_of(page) -> str:
    verdict(page)
    return page.locator(".result h2 b").inner_text()


def test_a_photo_is_classified_and_each_classs_heat_map_can_be_seen(page, shapes, tmp_path):
    drop(page, shapes / "circle" / "00.png")
    assert re.search(r"\d %", verdict(page))
    page.locator(".strength input").fill("30")
    assert page.locator(".result").evaluate("one => one.style.getPropertyValue('--strength')") == "0.3"
    for place in range(3):
        page.locator(".classes input").nth(place).check()
        shown = page.locator(".heat:visible").evaluate_all("all => all.map(one => one.dataset.place)")
        assert shown in ([str(place)], [])
    page.screenshot(path=tmp_path / "classify.png", full_page=True)
    drop(page, shapes / "square" / "01.png")
    verdict(page)
    assert page.locator('.classes input[value="0"]').is_checked()
    assert page.locator(".strength input").input_value() == "30"


def test_the_first_example_is_answered_when_the_page_opens(page, predictor):
    first = predictor.predict(predictor.folder / photos(predictor.config, EXAMPLES)[0])[0]
    assert label_of(page) == first.label
    assert page.get_by_role("button", name="Example 1").get_attribute("aria-pressed") == "true"


def test_a_file_that_is_no_image_says_why_and_the_next_photo_works(page, files, shapes):
    drop(page, files[1])
    assert "Not an image of the formats" in verdict(page)
    drop(page, shapes / "circle" / "00.png")
    page.locator(".result h2").wait_for()


@contextmanager
def held(page, function="show"):
    """Requests to a function of the page wait: the routes that arrived, each to be continued."""
    arrived = []
    number = page.evaluate(f"gradio_config.dependencies.find(one => one.api_name === {function!r}).id")

    def hold(route):
        if json.loads(route.request.post_data)["fn_index"] == number:
            arrived.append(route)
        else:
            route.continue_()

    page.route("**/run/predict", hold)
    yield arrived
    page.unroute("**/run/predict")


def arrive(page, arrived, count):
    while len(arrived) < count:
        page.wait_for_timeout(20)  # Playwright handles its events meanwhile


def test_50_no_old_answer_stands_beside_a_new_photo_however_it_comes(chromium, address, shapes):
    page = visit(chromium, address, LAPTOP, permissions=["clipboard-read", "clipboard-write", "camera"])
    page.evaluate(COPY_AN_IMAGE)
    ways = {
        "file": lambda: drop(page, shapes / "circle" / "00.png"),
        "example": lambda: page.get_by_role("button", name="Example 1").click(),
        "button": lambda: page.get_by_role("button", name="Paste from clipboard").click(),
        "keys": lambda: page.keyboard.press("Control+v"),
        "dropped": lambda: page.evaluate(DROP_AN_IMAGE),
        "camera": lambda: take_a_photo(page),
    }
    for name, come in ways.items():
        page.locator(".result").wait_for()
        with held(page) as arrived:
            come()
            page.get_by_text("Looking …").wait_for()
            assert page.locator(".result").count() == 0, name
            assert page.locator(".looking img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0, name
            arrive(page, arrived, 1)
            assert page.locator(".result").count() == 0, name
            arrived[0].continue_()
            verdict(page)
    assert page.wrong == []
    page.context.close()


def test_50_of_two_quick_photos_the_last_one_is_answered_whichever_answer_comes_first(page, shapes):
    answers = {}
    for name in ("circle", "square"):
        drop(page, shapes / name / "00.png")
        answers[name] = verdict(page).split("Computed")[0]
    for first, second in (("circle", "square"), ("square", "circle")):
        with held(page) as arrived:
            drop(page, shapes / first / "00.png")
            arrive(page, arrived, 1)
            drop(page, shapes / second / "00.png")
            arrive(page, arrived, 2)
            arrived[1].continue_()
            assert verdict(page).split("Computed")[0] == answers[second]
            with suppress(Exception):  # the browser has cancelled this request
                arrived[0].continue_()
            assert verdict(page).split("Computed")[0] == answers[second]


def test_50_a_server_that_is_gone_says_so_and_one_that_is_back_is_found_again(chromium, run, shapes):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(run.bundle, port=port) as address:
        page = visit(chromium, address, PHONE)
        drop(page, shapes / "circle" / "00.png")
        answer = verdict(page).split("Computed")[0]
        page.get_by_role("tab", name="Many").click()
        page.get_by_role("tab", name="One photo").click()
    drop(page, shapes / "circle" / "00.png")
    assert "The server does not answer" in verdict(page)
    assert page.locator(".result").count() == 0
    page.get_by_role("tab", name="Many").click()
    page.locator("input[type=file][multiple]").set_input_files(shapes / "circle" / "00.png")
    page.locator(".many .trouble", has_text="The server does not answer").wait_for()
    with served(run.bundle, port=port):
        page.locator(".many").get_by_role("button", name="Try again").click()
        page.get_by_text("1 of 1 predicted").wait_for()
        page.get_by_role("tab", name="One photo").click()
        page.locator(".one").get_by_role("button", name="Try again").click()
        assert verdict(page).split("Computed")[0] == answer
    assert page.wrong == []
    page.context.close()


def test_50_a_full_server_says_so_in_place_of_the_answer(chromium, run, shapes):
    with served(run.bundle, before="import kit.serve.server as server; server.QUEUE = -2") as address:
        page = visit(chromium, address, LAPTOP)
        drop(page, shapes / "circle" / "00.png")
        assert "The server is full" in verdict(page)
        assert page.locator(".result").count() == 0
        page.locator(".one").get_by_role("button", name="Try again").wait_for()
        page.get_by_role("tab", name="Many").click()
        page.locator("input[type=file][multiple]").set_input_files(shapes / "circle" / "00.png")
        page.locator(".many .trouble", has_text="The server is full").wait_for()
        page.context.close()


def test_50_an_answer_that_does_not_come_is_given_up_and_can_be_asked_for_again(chromium, address, shapes):
    page = visit(chromium, address, LAPTOP)
    page.clock.install()
    with held(page) as arrived:
        drop(page, shapes / "circle" / "00.png")
        arrive(page, arrived, 1)
        page.clock.fast_forward("01:01")
        assert "No answer after 60 seconds" in verdict(page)
    page.get_by_role("button", name="Try again").click()
    page.locator(".result").wait_for()
    page.context.close()


@pytest.mark.parametrize(
    ("status", "body", "text", "button"),
    [
        (401, '{"error": "sign in first", "fix": "open /login"}', "You are signed out", "Reload"),
        (404, '{"error": "there is no such function: 7", "fix": "-"}', "This page is older than the server", "Reload"),
        (502, "<html>Bad Gateway</html>", "The server does not answer (502)", "Try again"),
        (
            500,
            '{"error": "something went wrong (number 12ab)", "fix": "tell"}',
            "Something went wrong (number 12ab)",
            "",
        ),
    ],
)
def test_50_every_refusal_says_what_to_do(chromium, address, shapes, status, body, text, button):
    page = visit(chromium, address, LAPTOP)
    page.route("**/run/predict", lambda route: route.fulfill(status=status, body=body))
    drop(page, shapes / "circle" / "00.png")
    assert text in verdict(page)
    assert page.locator(".verdict button").all_inner_texts() == [button] * bool(button)
    page.context.close()


def test_an_example_is_chosen_by_keyboard_alone(page):
    page.get_by_role("button", name="Example 1").focus()
    with held(page) as arrived:
        page.keyboard.press("Enter")
        arrive(page, arrived, 1)
        arrived[0].continue_()
        verdict(page)
    page.locator(".classes input").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".classes input").nth(1).is_checked()
    page.locator(".strength input").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".strength input").input_value() == "69"


def take_a_photo(page):
    page.get_by_role("button", name="Take a photo").click()
    page.wait_for_function("document.querySelector('.camera video').videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()


def test_a_phones_camera_is_the_largest_button_and_opens_the_phones_own_app(chromium, address):
    page = visit(chromium, address, PHONE, has_touch=True, is_mobile=True)
    take, choose = (page.get_by_role("button", name=name).bounding_box() for name in ("Take a photo", "Choose a photo"))
    assert take["y"] < choose["y"]
    assert take["height"] >= 60
    assert take["width"] > 300
    assert page.get_by_text("paste from clipboard").is_hidden()
    assert "Drop Image Here" not in page.locator("body").inner_text()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    page.context.close()


COPY_AN_IMAGE = """async () => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 40})
    const image = await new Promise(done => canvas.toBlob(done, 'image/png'))
    await navigator.clipboard.write([new ClipboardItem({'image/png': image})])
}"""
DROP_AN_IMAGE = """async () => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 40})
    const image = await new Promise(done => canvas.toBlob(done, 'image/png'))
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([image], 'a.png', {type: 'image/png'}))
    document.querySelector('h1').dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}))
}"""


def test_without_a_camera_or_a_photo_in_the_clipboard_the_page_says_so(chromium, address):
    page = visit(chromium, address, LAPTOP)
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error()) }")
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_text("The camera cannot be used").wait_for()
    page.evaluate("() => { navigator.clipboard.read = () => Promise.resolve([]) }")
    page.get_by_role("button", name="Paste from clipboard").click()
    page.get_by_text("There is no photo in the clipboard").wait_for()
    page.context.close()


def test_many_files_become_cards_the_least_sure_first_and_a_csv_for_excel(page, files, shapes, predictor, tmp_path):
    page.get_by_role("tab", name="Many").click()
    accented = tmp_path / "猫é बिल्ली.png"
    accented.write_bytes((shapes / "triangle" / "00.png").read_bytes())
    page.locator("input[type=file][multiple]").set_input_files([*files, accented])
    page.get_by_text("3 of 5 predicted, 2 could not be opened").wait_for()
    names = page.locator(".cards span").all_inner_texts()
    sure = [shapes / "circle" / "00.png", shapes / "square" / "00.png", accented]
    order = {"00.png": 0, "in/one.png": 1, accented.name: 2}
    found = predictor.predict(sure)
    expected = sorted(order, key=lambda name: (not found[order[name]].unlike, found[order[name]].probability))
    assert [name for name in names if name in order] == expected
    assert set(names[3:]) == {"bad.jpg", "../out.png"}
    assert page.locator(".cards img").evaluate_all("all => all.map(one => one.naturalWidth > 0)") == [True] * 3
    page.screenshot(path=tmp_path / "many.png", full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    data = Path(download.value.path()).read_bytes()
    assert data.startswith(b"\xef\xbb\xbfpath,prediction")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["path"] for row in rows] == ["00.png", "bad.jpg", "in/one.png", "../out.png", accented.name]
    page.locator("input[type=file][multiple]").set_input_files(files[1])
    page.get_by_text("0 of 1 predicted, 1 could not be opened").wait_for()
    assert page.locator(".cards li").count() == 1


def test_a_file_over_the_limit_says_so_before_it_is_sent(chromium, address, tmp_path):
    large = tmp_path / "=large,.jpg"
    large.write_bytes(bytes(11_000_000))
    page = visit(chromium, address, LAPTOP)
    drop(page, large)
    assert "11 MB is too large: this page takes up to 10 MB" in verdict(page)
    page.get_by_role("tab", name="Many").click()
    page.locator("input[type=file][multiple]").set_input_files(large)
    page.get_by_text("0 of 1 predicted, 1 could not be opened").wait_for()
    assert [url for url in page.asked if "upload" in url] == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    (row,) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig")))
    assert (row["path"], row["prediction"]) == ("'=large,.jpg", "")
    assert "too large" in row["error"]
    page.context.close()


def test_a_second_visitor_with_many_photos_sees_how_many_are_ahead_and_then_gets_the_turn(chromium, address, shapes):
    first, second = (visit(chromium, address, LAPTOP) for _ in range(2))
    for page in (first, second):
        page.get_by_role("tab", name="Many").click()
    some = sorted(shapes.glob("circle/*.png"))[:3]
    with held(first, "show_some") as arrived:
        first.locator("input[type=file][multiple]").set_input_files(some)
        arrive(first, arrived, 1)
        arrived[0].continue_()
        arrive(first, arrived, 2)
        second.locator("input[type=file][multiple]").set_input_files(some)
        second.get_by_text("1 visitor is ahead of you").wait_for()
        assert second.locator(".cards li").count() == 0
        first.get_by_role("button", name="Stop").click()
        first.get_by_text("Stopped after 1.").wait_for()
        arrive(first, arrived, 3)
        arrived[2].continue_()
        second.get_by_text("3 of 3 predicted").wait_for()
    for page in (first, second):
        page.context.close()


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP], ids=["phone", "laptop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_either_tab_nor_in_what_fails(chromium, address, files, viewport, scheme):
    page = visit(chromium, address, viewport, color_scheme=scheme)
    assert_accessible(page)
    drop(page, files[1])
    assert verdict(page)
    assert_accessible(page)
    page.route("**/run/predict", lambda route: route.abort())
    drop(page, files[0])
    assert "The server does not answer" in verdict(page)
    assert_accessible(page)
    page.unroute("**/run/predict")
    page.get_by_role("tab", name="Many").click()
    assert_accessible(page)
    page.locator("input[type=file][multiple]").set_input_files(files)
    page.get_by_text("2 of 4 predicted").wait_for()
    assert_accessible(page)
    page.get_by_role("tab", name="About").click()
    page.locator(".matrix").wait_for()
    assert_accessible(page)
    page.context.close()


def test_a_link_to_the_page_is_shown_as_kits_own(chromium, address):
    page = visit(chromium, address, LAPTOP)
    read = "name => document.querySelector(`meta[property='og:${name}']`).content"
    assert page.title() == page.evaluate(read, "title") == "Tells 3 kinds apart: circle, square and triangle"
    assert page.evaluate(read, "description").startswith("Tells 3 kinds apart: circle, square and triangle; wrong on")
    picture = page.evaluate(read, "image")
    assert picture == f"{address}/preview.jpg"
    assert page.request.get(picture).headers["content-type"] == "image/jpeg"
    icon = page.request.get(page.evaluate("document.querySelector('link[rel~=icon]').href"))
    assert icon.body() == (Path(webpage.__file__).parent / "icon.png").read_bytes()
    assert "gradio" not in " ".join(page.locator("meta").evaluate_all("all => all.map(one => one.content)")).lower()
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
    verdict(page)
    buttons = [one for one in page.get_by_role("button").all() if one.is_visible()]
    assert len(buttons) >= 4
    for one in buttons:
        box, name = one.bounding_box(), one.get_attribute("aria-label") or one.inner_text()
        assert min(box["width"], box["height"]) >= 32, name
        assert name.strip()
    page.context.close()


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
    verdict(page)
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
