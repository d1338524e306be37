"""The report: one file without a network, with the result, the photos behind each cell, and how to make it again."""

import re
from dataclasses import replace

import numpy as np
import pytest
from accessibility import assert_accessible
from PIL import Image

from kit import Recipe
from kit.data.audit import Finding
from kit.evaluate.classification import Evaluation
from kit.runs import command
from kit.views.report import Report, render, write_report
from kit.views.view import confused_most

NASTY = "<script>alert('x')</script>"


@pytest.fixture
def report(tmp_path):
    """Twelve images of three classes, three of them wrong, under names that try to be HTML."""
    vocab, paths, labels, rows = ["ape", "bee", NASTY], [], [], []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 30), (20 * number, 90, 120)).save(path)
        paths.append(str(path))
        labels.append(vocab[number % 3])
        row = np.full(3, 0.1)
        row[(number + (number > 8)) % 3] = 0.8
        rows.append(row)
    Image.new("RGB", (8, 8)).save(tmp_path / "curves.png")
    evaluation = Evaluation.from_probabilities(paths, labels, np.array(rows), vocab)
    findings = [Finding("warning", f"odd {NASTY}")]
    chosen = {"rate": 0.002, "versions": {"torch": "2.15"}, "left_out": [1] * 9}
    picture = tmp_path / "curves.png"
    return Report(evaluation, Recipe(epochs=3), chosen, picture, "kit fine-tune x", picture, findings, ["a note"])


def test_the_result_is_said_with_its_interval(report):
    html = render(report)
    assert "25.0 %" in html
    assert "Measured on 12 images that it was not trained on. 3 of 12 predictions are wrong." in html
    assert "95 % interval: 8.9 % to 53.2 %" in html
    assert "a note" in html


def test_nothing_in_it_asks_a_network_and_every_text_is_escaped(report):
    html = render(report)
    assert re.findall(r"(?:src|href)=[\"'](?!data:)", html) == []
    assert "http" not in re.sub(r"data:image[^\"]+", "", html)
    assert NASTY not in html
    assert html.count("<script>") == 1
    assert "odd &lt;script&gt;" in html


def test_each_cell_of_the_matrix_has_its_photos_behind_it(report):
    html = render(report)
    cells = re.findall(r'data-cell="(\d-\d)"', html)
    assert sorted(cells) == ["0-0", "0-1", "1-1", "1-2", "2-0", "2-2"]
    for cell in cells:
        behind = html.split(f'<template id="cell-{cell}">')[1].split("</template>")[0]
        assert behind.count("<img ") == (3 if cell[0] == cell[2] else 1)
    assert "1 of 4 ape: predicted as bee" in html
    assert "true: <b>ape</b><br>predicted: <b>bee</b> (80 %)<br><small>9.png</small>" in html


@pytest.mark.browser
def test_a_cell_shows_its_photos_and_a_heading_sorts_its_table(report, chromium, tmp_path):
    write_report(report, tmp_path / "report.html")
    page = chromium.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("[data-cell='0-1']").click()
    assert page.locator("#behind img").count() == 1
    page.locator("[data-cell='0-1']").click()
    assert page.locator("#behind img").count() == 0
    names = page.locator("[aria-label='Results by class'] tbody th")
    page.get_by_role("button", name="class").click()
    assert names.all_inner_texts() == [NASTY, "ape", "bee"]
    page.get_by_role("button", name="class").click()
    assert names.all_inner_texts() == ["bee", "ape", NASTY]
    assert errors == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_screen_in_light_and_dark(report, chromium, tmp_path, width, scheme):
    words = "kit fine-tune photos --label '^(.+)  x' " + "/a/very/long/name" * 9
    write_report(replace(report, command=words), tmp_path / "report.html")
    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("[data-cell='0-1']").click()
    for name in ("Recipe", "Chosen automatically"):
        page.locator("summary", has_text=name).click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".command pre").text_content() == words
    assert_accessible(page)


@pytest.mark.browser
@pytest.mark.parametrize("clipboard", ["there", "refused", "missing"])
def test_the_command_can_be_copied_with_and_without_the_clipboard_api(report, chromium, tmp_path, clipboard):
    write_report(report, tmp_path / "report.html")
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    if clipboard == "missing":
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    elif clipboard == "refused":
        page.add_init_script("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    if clipboard != "missing":
        assert page.evaluate("navigator.clipboard.readText()") == "kit fine-tune x"
    context.close()


def test_the_recipe_marks_what_was_told_and_the_choices_are_flat(report):
    html = render(report)
    told = re.findall(r'<tr class="changed"><th scope="row">(\w+)</th>', html)
    assert told == ["epochs"]
    assert '<th scope="row">versions torch</th><td>2.15</td>' in html
    assert "9 of them; see recipe.json" in html
    assert "kit fine-tune x" in html


def test_a_photo_that_is_gone_is_left_out(report, tmp_path):
    before = render(report).count("<img ")
    (tmp_path / "9.png").unlink()
    assert render(report).count("<img ") == before - 2


def test_all_right_and_all_wrong_can_be_told(report):
    table = report.result.predictions
    for part in (table[table["correct"]], table[~table["correct"]]):
        html = render(replace(report, result=Evaluation(part.reset_index(drop=True), report.result.vocab)))
        assert f"Measured on {len(part)} images" in html


def test_calibration_is_a_diagram_with_a_dot_for_each_tenth(report):
    html = render(report)
    assert "Before calibration, probabilities are off by 5.0 points on average" in html
    assert 'aria-label="Share of right predictions against their probability: 0.75 at 0.80"' in html
    assert html.count("<circle") == 1


def test_of_many_classes_those_confused_most_are_shown():
    right = {(place, place): 5 for place in range(40)}
    assert confused_most(right | {(30, 31): 9, (2, 39): 4}, 40) == [2, 30, 31, 39]
    everywhere = {(place, place + 1): 40 - place for place in range(39)}
    assert confused_most(everywhere, 40) == list(range(25))
    assert confused_most(right, 40) == []
    assert confused_most(right, 25) == list(range(25))
    assert confused_most({}, 3) == []


def test_a_run_writes_its_report(run):
    html = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "circle or square or triangle" in html
    again = replace(run.recipe, arch=run.learner.spec.architecture.full_name)
    assert command(run.source, again) in html.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "kit fine-tune 'my photos'"),
        ({"freeze_epochs": 2, "augment": False}, "kit fine-tune 'my photos' --freeze-epochs 2 --no-augment"),
        ({"label": "^(.+)_[0-9]+"}, "kit fine-tune 'my photos' --label '^(.+)_[0-9]+'"),
    ],
)
def test_the_command_that_makes_it_again_tells_what_was_told(changes, said):
    assert command("my photos", Recipe(**changes)) == said


def test_a_table_is_trained_on_again_in_python():
    assert command(object(), Recipe(epochs=2)) == "kit.fine_tune(table, epochs=2)"
