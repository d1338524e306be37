"""Several classes an image, and numbers, as a person meets them: in Chromium, on a phone."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from task_bundles import multilabel, regression

pytestmark = pytest.mark.browser
MAKERS = {"several": multilabel, "numbers": regression}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module", params=MAKERS)
def shown(request, tiny, chromium, tmp_path_factory):
    """The page of a bundle of the task on a phone, and its predictor."""
    predictor = MAKERS[request.param](tmp_path_factory.mktemp(request.param), tiny)
    code = f"from kit.serve import Settings, run; run({str(predictor.folder)!r}, Settings(port=0))"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        page = chromium.new_page(viewport=PHONE)
        page.set_default_timeout(30_000)
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(server.stdout.readline().split()[1])
        page.locator("h1").wait_for()
        yield page, predictor
        page.close()
    finally:
        server.terminate()
        server.wait(30)


def test_each_task_is_used_from_end_to_end_on_a_phone(shown, tmp_path):
    page, predictor = shown
    photos = sorted(predictor.folder.parent.parent.glob("*.png"))[:4]
    fits = "document.documentElement.scrollWidth <= innerWidth"
    page.locator("input[type=file]").first.set_input_files(photos[2])
    page.locator(".looking").wait_for(state="detached")
    choices = page.locator(".classes input")
    assert choices.count() == 2
    choices.nth(1).check()
    visible = page.locator(".heat:visible").evaluate_all("all => all.map(one => one.dataset.place)")
    assert visible in (["1"], [])
    assert page.evaluate(fits)
    page.screenshot(path=tmp_path / "one.png", full_page=True)

    page.get_by_role("tab", name="Many photos").click()
    page.locator("input[type=file][multiple]").set_input_files(photos)
    page.get_by_text("4 of 4").wait_for()
    assert page.locator(".cards b").count() >= 4
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert [row["path"] for row in rows] == [photo.name for photo in photos]
    assert page.evaluate(fits)

    page.get_by_role("tab", name="About").click()
    for heading in ("What it is", "Limits", "by number" if predictor.task == "regression" else "by class"):
        page.get_by_role("heading", name=heading).wait_for()
    page.screenshot(path=tmp_path / "about.png", full_page=True)
    assert page.evaluate(fits)
    assert page.wrong == []
