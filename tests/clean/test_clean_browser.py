"""The page in Chromium: decisions by keyboard, a killed server, going on, and a right CSV."""

import csv
import os
import re
import signal
import subprocess
import sys

import httpx
import pytest
from accessibility import assert_accessible

pytestmark = pytest.mark.browser


def started(folder, where, *, command=("clean",), options=()) -> tuple[subprocess.Popen, str]:
    """A server of the command, and its address."""
    told = [sys.executable, "-m", "kit.cli.main", *command, str(folder), "--port", "0", "--no-open", "--size", "96"]
    process = subprocess.Popen(
        [*told, "--arch", "tf_efficientnet_lite0", *options], cwd=where, stdout=subprocess.PIPE, text=True
    )
    return process, re.search(r"http://\S+", process.stdout.readline())[0]


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def strike(page, key: str) -> None:
    """Press a key when the page is no longer busy with the one before: it ignores keys until then."""
    page.wait_for_function("document.body.ariaBusy !== 'true'")
    page.keyboard.press(key)


def press(page, key: str) -> str:
    """Press a key, wait for the next card, and return the name of the image it was about."""
    before = page.text_content("#caption")
    strike(page, key)
    page.wait_for_function("before => document.getElementById('caption').textContent !== before", arg=before)
    return before.partition(",")[0]


def test_only_this_machine_and_its_own_page_are_served(drawings, tmp_path):
    process, url = started(drawings, tmp_path)
    try:
        assert httpx.get(url).status_code == 200
        assert httpx.get(url, headers={"Host": "evil.test"}).status_code in (400, 421)
        foreign = {"Origin": "https://evil.test"}
        assert httpx.post(f"{url}/clean/undo", json={}, headers=foreign).status_code == 403
        assert httpx.get(f"{url}/..%2f..%2fetc/passwd").status_code == 404
        assert httpx.get(f"{url}/clean/image/..%2f..%2fetc%2fpasswd").status_code in (404, 422)
    finally:
        process.kill()
        process.wait()


def test_decisions_by_keyboard_survive_kill_9_and_go_on(page, drawings, tmp_path):
    process, url = started(drawings, tmp_path)
    page.goto(url)
    page.wait_for_selector("#photo[src]")
    suggested = page.text_content("#classes .suggested").split()[-1]
    relabelled = press(page, "1")
    kept = press(page, "k")
    dropped = press(page, "d")
    press(page, "u")
    assert page.text_content("#caption").startswith(dropped)
    press(page, "d")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    strike(page, "k")
    page.wait_for_function("document.getElementById('message').textContent.includes('no decision is lost')")

    process, url = started(drawings, tmp_path)
    page.goto(url)
    page.wait_for_selector("#photo[src]")
    assert page.text_content("#count").startswith("3 of ")
    assert not page.text_content("#caption").startswith((relabelled, kept, dropped))
    last = press(page, "k")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    with (tmp_path / "drawings-labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows[relabelled]["label"] == suggested != rows[relabelled]["old_label"]
    assert [rows[name]["action"] for name in (relabelled, kept, dropped, last)] == ["label", "keep", "drop", "keep"]
    assert rows[dropped]["split"] == "out"
    assert all(row["action"] == "" for name, row in rows.items() if name not in (relabelled, kept, dropped, last))


def test_two_pages_do_not_overwrite_each_other_and_the_map_opens_cards(page, chromium, drawings, tmp_path):
    process, url = started(drawings, tmp_path)
    try:
        other = chromium.new_page()
        for one in (page, other):
            one.goto(url)
            one.wait_for_selector("#photo[src]")
        name = press(page, "d")
        strike(other, "k")
        other.wait_for_function("document.getElementById('message').textContent.includes('another window')")
        assert other.text_content("#caption").startswith(name)
        other.wait_for_function("document.getElementById('label-line').textContent.includes('dropped')")
        other.close()

        page.wait_for_function("fetch('clean/map').then(answer => answer.status === 200)")
        page.click("#map-button")
        page.wait_for_function("document.querySelectorAll('#legend li').length > 2")
        assert "cat" in page.text_content("#legend")
        assert_accessible(page)
        strike(page, "f")
        page.wait_for_function("document.getElementById('similar-title').textContent === 'More like this'")
        page.click("#effect-button")
        page.wait_for_function("document.getElementById('message').textContent.includes('by their new labels')")
    finally:
        process.kill()
        process.wait()


def test_the_page_says_what_went_wrong_and_goes_back_to_the_card(page, drawings, tmp_path):
    process, url = started(drawings, tmp_path)
    try:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(url)
        page.wait_for_selector("#photo[src]")
        first = page.text_content("#caption")
        answer = {"error": "the disk is full", "fix": "make room"}
        page.route("**/clean/decide", lambda route: route.fulfill(status=422, json=answer))
        strike(page, "d")
        page.wait_for_selector("#message.trouble")
        assert page.text_content("#caption") == first
        assert page.evaluate("document.getElementById('message').getBoundingClientRect().bottom <= innerHeight")
        assert_accessible(page)
        page.unroute("**/clean/decide")

        page.click("#similar button")  # another image; then the same card again
        page.wait_for_function("first => document.getElementById('caption').textContent !== first", arg=first)
        press(page, "d")
        assert page.text_content("#caption") == first
        page.fill("#new-label", "<img src=x onerror=document.title=1>")
        page.press("#new-label", "Enter")
        page.wait_for_function("first => document.getElementById('caption').textContent !== first", arg=first)
        assert page.text_content("#classes").count("<img src=x") == 1
        assert page.locator("#classes img, #label-line img, #message img").count() == 0
        for _ in range(2):
            strike(page, "u")
            page.wait_for_function("document.getElementById('message').textContent.includes('is undone')")
            page.evaluate("say('')")
        page.evaluate("state.version = 'of an earlier start'")
        strike(page, "d")
        page.wait_for_function("document.getElementById('message').textContent.includes('was started again')")
        assert page.text_content("#count").startswith("0 of ")
        strike(page, "d")
        page.wait_for_function("document.getElementById('count').textContent.startsWith('1 of ')")
    finally:
        process.kill()
        process.wait()


def test_new_images_are_labelled_by_keyboard(page, shapes, tmp_path):
    process, url = started(shapes, tmp_path, command=("label",), options=("--classes", "circle,square"))
    try:
        page.goto(url)
        page.wait_for_selector("#photo[src]")
        assert page.text_content("h1") == f"Label {shapes.name}"
        first = press(page, "1")
        page.fill("#new-label", "triangle")
        before = page.text_content("#caption")
        page.press("#new-label", "Enter")
        page.wait_for_function("before => document.getElementById('caption').textContent !== before", arg=before)
        assert "triangle" in page.text_content("#classes")
        assert page.text_content("#count") == "2 of 24 labelled"
        assert not page.is_visible("#keep")
        assert not page.is_visible("#effect-button")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    with (tmp_path / f"{shapes.name}-labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert rows == {first: "circle", before.partition(",")[0]: "triangle"}
