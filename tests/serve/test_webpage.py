"""The page's parts without a browser: what is seen of one image and of many, and the programs around it."""

import csv
import io
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from kit import bundle
from kit.cli.serve import ask_password
from kit.errors import KitError
from kit.manifest import EXAMPLES, photos
from kit.serve import gradio_internals, server, webpage
from kit.tasks import of
from kit.tasks.text import percent
from kit.views.view import view_of

APP = Path(__file__).parents[2] / "apps" / "pets_demo.py"


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


@pytest.fixture(scope="module")
def photo(shapes):
    return str(shapes / "circle" / "00.png")


def test_one_image_gives_its_class_a_heat_map_of_each_class_and_the_time(predictor, photo):
    seen = webpage.predict_one(predictor, photo)
    assert f"<b>{predictor.predict(photo)[0].label}</b>" in seen
    assert seen.count('type="radio"') == 3
    assert seen.count('class="heat"') >= 1
    assert 'type="range"' in seen
    assert re.search(r"Computed in \d+ ms", seen)
    assert ("This does not look like the training images" in seen) == bool(predictor.predict(photo)[0].unlike)


@pytest.fixture
def functions(predictor, tmp_path, monkeypatch):
    """What the page calls for one photo and for many, and programs, with `tmp_path` as the place of uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return functions_of(predictor)


def functions_of(predictor):
    return [one.fn for one in webpage.page(predictor).fns.values()]


def upload(path: Path) -> dict:
    return {"path": str(path)}


def test_a_file_that_is_no_image_says_why_and_not_where_it_lies(functions, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    seen = functions[0](upload(tmp_path / "bad.jpg"))
    assert "Not an image of the formats JPEG" in seen
    assert str(tmp_path) not in seen


def test_an_unforeseen_error_is_a_number(predictor, photo, tmp_path, monkeypatch):
    def broken(pixels):
        raise RuntimeError("/secret")

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "a.png").write_bytes(Path(photo).read_bytes())
    one, many, program = functions_of(bundle.Predictor(predictor.config, broken, predictor.folder))
    last = many(upload(tmp_path / "a.png"), 0, SimpleNamespace(session_hash="a"))["problem"]
    with pytest.raises(Exception) as error:
        program(upload(tmp_path / "a.png"))
    for seen in (one(upload(tmp_path / "a.png")), last, str(error.value)):
        assert "number " in seen
        assert "secret" not in seen


def test_only_examples_whose_hash_was_checked_are_offered(predictor):
    def shown(config):
        return parts_of(bundle.Predictor(config, predictor.engine, predictor.folder))

    assert shown(predictor.config).count('aria-label="Example ') == len(photos(predictor.config, EXAMPLES)) > 0
    others = {name: digest for name, digest in predictor.config["files"].items() if not name.startswith(EXAMPLES)}
    bare = shown(predictor.config | {"files": others})
    assert "Example" not in bare
    assert webpage.NOTHING in bare


def parts_of(predictor) -> str:
    """The HTML of the page's parts, one after the other."""
    components = webpage.page(predictor).get_config_file()["components"]
    return "\n".join(one["props"].get("value") or "" for one in components if one["type"] == "html")


def test_the_page_begins_with_what_the_model_does_and_with_an_example_that_is_answered(predictor):
    seen = parts_of(predictor)
    title, view = seen[: seen.index('class="desk')], view_of(predictor.config)
    assert title.index("<h1>Tells 3 kinds apart: circle, square and triangle</h1>") == 0
    assert f"{view.record[0].upper()}{view.record[1:]}." in title
    assert predictor.config["architecture"]["name"] not in title
    first = predictor.predict(predictor.folder / photos(predictor.config, EXAMPLES)[0])[0]
    assert f"<b>{first.label}</b> <span>{percent(first.probability)}</span>" in seen
    assert f"It learned from {predictor.config['data']['train']} photos." in seen
    assert "JPEG, PNG, WEBP, GIF, BMP or TIFF, up to 10 MB." in seen


def test_a_page_whose_example_cannot_be_answered_opens_without_an_answer(predictor):
    def broken(pixels):
        raise RuntimeError("/secret")

    seen = parts_of(bundle.Predictor(predictor.config, broken, predictor.folder))
    assert webpage.NOTHING in seen
    assert "secret" not in seen


def test_the_picture_of_a_link_shows_the_examples_or_the_icon(predictor):
    others = {name: digest for name, digest in predictor.config["files"].items() if not name.startswith(EXAMPLES)}
    bare = bundle.Predictor(predictor.config | {"files": others}, predictor.engine, predictor.folder)
    pictures = [Image.open(io.BytesIO(webpage.preview(one))) for one in (predictor, bare)]
    assert {one.size for one in pictures} == {webpage.PREVIEW}
    assert pictures[0].getpixel((600, 5)) != pictures[1].getpixel((600, 5))


@pytest.fixture
def files(tmp_path, photo):
    bad, formula, archive = tmp_path / "bad.jpg", tmp_path / "=1+1.png", tmp_path / "some.zip"
    bad.write_text("no image")
    formula.write_bytes(Path(photo).read_bytes())
    with zipfile.ZipFile(archive, "w") as members:
        members.write(photo, "in/one.png")
        members.writestr("../out.png", b"x")
    return [photo, str(bad), str(formula), str(archive)]


def cards_of(predictor, path) -> list[dict]:
    """The cards of all images of a file, as the page asks for them."""
    cards, start = [], 0
    while start is not None:
        found = webpage.predict_some(predictor, Path(path), start)
        cards, start = cards + found["cards"], found["next"]
    assert len(cards) == found["total"]
    return cards


def test_many_files_are_cards_with_the_reason_of_the_bad_ones_and_lines_without_formulas(predictor, files, tmp_path):
    cards = [card for path in files for card in cards_of(predictor, path)]
    head = webpage.csv_text([of(predictor.task).columns(predictor.vocab)])
    rows = list(csv.DictReader(io.StringIO(head + "".join(card["line"] for card in cards))))
    assert [row["path"] for row in rows] == ["00.png", "bad.jpg", "'=1+1.png", "in/one.png", "../out.png"]
    assert ",".join(rows[0]) == "path,prediction,probability,p_circle,p_square,p_triangle,unlike,error"
    assert sum(float(rows[0][f"p_{name}"]) for name in predictor.vocab) == pytest.approx(1, abs=1e-5)
    assert rows[1]["error"].startswith("not an image")
    assert rows[4]["error"] == "its path leads out of the zip"
    assert str(tmp_path) not in str(cards)
    assert [card["html"].startswith('<li class="bad"') for card in cards] == [False, True, False, False, True]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 20])
def test_a_zip_comes_in_requests_of_a_few_photos_each_of_them_once(predictor, photo, tmp_path, count):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as members:
        for number in range(count):
            members.write(photo, f"{number}.png")
    cards = cards_of(predictor, tmp_path / "some.zip")
    expected = [f"{number}.png" for number in range(count)] or ["some.zip"]
    assert [next(csv.reader([card["line"]]))[0] for card in cards] == expected


def test_a_second_visitor_with_many_photos_is_told_how_many_are_ahead(functions, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(Path(photo).read_bytes())
    many, (first, second, third) = functions[1], (SimpleNamespace(session_hash=name) for name in "abc")
    assert len(many(upload(tmp_path / "a.png"), 0, first)["cards"]) == 1
    assert many(upload(tmp_path / "a.png"), 0, second) == {"ahead": 1}
    assert many(upload(tmp_path / "a.png"), 0, third) == {"ahead": 2}
    assert many(None, 0, first) == {}
    assert many(upload(tmp_path / "a.png"), 0, third) == {"ahead": 1}
    assert len(many(upload(tmp_path / "a.png"), 0, second)["cards"]) == 1


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "－1+1", "-5x"])
def test_no_cell_is_a_formula(cell):
    assert webpage.harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1.5", "-5", "-1e-05", "-2.5e+07", "cat", "1+1", ""])
def test_numbers_and_other_texts_stay_as_they_are(cell):
    assert webpage.harmless(cell) == cell


def test_only_what_was_uploaded_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    assert webpage.uploaded([{"path": str(tmp_path / "a.png")}]) == [str(tmp_path / "a.png")]
    assert webpage.uploaded(None) == []
    for value in ({"path": "/etc/passwd"}, {"path": f"{tmp_path}/../x"}, "/etc/passwd", {"url": "http://x"}, [1]):
        with pytest.raises(KitError, match="was not uploaded here"):
            webpage.uploaded(value)


def test_the_page_is_a_gradio_blocks_that_writes_nothing_beside_its_source(predictor):
    import gradio as gr

    assert isinstance(webpage.page(predictor), gr.Blocks)
    assert not Path(webpage.__file__).with_suffix(".pyi").exists()


def test_the_password_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("KIT_PASSWORD", "secret")
    assert ask_password("anna") == "secret"


def test_a_taken_port_is_said_at_once(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KitError, match=f"127.0.0.1:{port} cannot be used"):
            server.run(run.bundle, server.Settings(port=port))


def test_a_tunnel_that_cannot_be_had_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("gradio.networking.GRADIO_API_SERVER", "http://127.0.0.1:9/")
    with pytest.raises(KitError, match="the public address could not be had: Could not get share link"):
        gradio_internals.open_tunnel(7860)


def test_gradios_settings_in_the_environment_are_set_aside_and_put_back(monkeypatch):
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    with server.private_cache() as cache:
        assert "GRADIO_ALLOWED_PATHS" not in os.environ
        assert cache.stat().st_mode & 0o077 == 0
    assert os.environ["GRADIO_ALLOWED_PATHS"] == "/"
    assert not cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["serve", "demo"])
def test_gradio_client_gets_the_answer_of_the_predictor(program, run, predictor, photo, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        f"from kit.serve import Settings, run; run({str(run.bundle)!r}, Settings(port={port}, auth='a', password='b'))"
    )
    command = ["-c", code] if program == "serve" else [APP, "--folder", str(run.bundle), "--port", str(port)]
    running = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert any(f":{port}" in line for line in running.stdout)
        auth = ("a", "b") if program == "serve" else None
        client = Client(f"http://127.0.0.1:{port}", verbose=False, auth=auth, download_files=tmp_path)
        answer = client.predict(handle_file(photo), api_name="/predict")
        assert answer["label"] == predictor.predict(photo)[0].label
        (tmp_path / "bad.jpg").write_text("no image")
        if program == "serve":
            told = client.predict(handle_file(tmp_path / "bad.jpg"), api_name="/predict")["error"]
        else:
            with pytest.raises(AppError) as error:
                client.predict(handle_file(tmp_path / "bad.jpg"), api_name="/predict")
            told = str(error.value)
        assert told.startswith("not an image of the formats JPEG")
    finally:
        running.terminate()
        running.wait(30)
