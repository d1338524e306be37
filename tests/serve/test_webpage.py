"""The page's parts without a browser: what is seen of one image and of many, and the programs around it."""

import csv
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit import bundle
from kit.bundle.prediction import Prediction
from kit.cli.serve import ask_password, parse_size
from kit.errors import KitError
from kit.evaluate.evaluation import Evaluation
from kit.manifest import EXAMPLES, MISTAKES
from kit.serve import about, figures, render, rows, server, webpage
from kit.task import percent

PETS = {"vocab": ["cat", "dog"], "task": "classification"}
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
    assert re.search(r"It took \d+&nbsp;ms", seen)
    assert (render.UNLIKE in seen) == bool(predictor.predict(photo)[0].unlike)


def test_an_image_unlike_the_training_images_is_said_to_be_so():
    one = Prediction("", "cat", 0.9, {"cat": 0.9, "dog": 0.1}, unlike=True)
    seen = render.verdict(one, None, PETS, Image.new("RGB", (8, 8)), 0.01)
    assert "This does not look like the training images" in seen
    assert "1 unlike the training images" in rows.table([one], PETS, 1, 1)


def test_where_nothing_in_the_picture_stands_out_no_heat_map_is_promised():
    one = Prediction("x.png", "cat", 0.9, {"cat": 0.9, "dog": 0.1})
    for maps, told in ((np.zeros((2, 3, 3)), False), (np.eye(3)[None].repeat(2, 0), True)):
        seen = render.verdict(one, maps, PETS, Image.new("RGB", (8, 8)), 0.01)
        assert ("Choose a class to see what speaks for it" in seen) is told
        assert ('class="strength"' in seen) is told
        assert ('type="radio"' in seen) is told
        assert ("No part of it speaks for the answer more than others" in seen) is not told


def test_a_file_that_is_no_image_says_why_and_not_where_it_lies(predictor, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    seen = webpage.predict_one(predictor, str(bad))
    assert "Not an image of the formats JPEG" in seen
    assert str(tmp_path) not in seen
    assert webpage.predict_one(predictor, None) == render.hint(webpage.DROP)


def test_an_unforeseen_error_is_a_number(caplog):
    def broken(value):
        raise RuntimeError("/secret")

    for seen in (webpage.careful(broken)(1), next(webpage.careful_each(broken)(1))[0]):
        assert "number " in seen
        assert "secret" not in seen


def test_names_of_classes_and_files_are_text_and_never_html():
    evil = "<script>alert(1)</script>"
    one = Prediction(evil, evil, 1.0, {evil: 1.0, "b": 0.0})
    bad = Prediction(evil, None, None, {}, evil)
    picture = Image.new("RGB", (8, 8))
    for seen in (
        render.verdict(one, None, PETS | {"vocab": [evil, "b"]}, picture, 1),
        rows.table([one, bad], PETS, 2, 2),
        render.trouble(evil),
    ):
        assert "<script" not in seen
        assert "&lt;script" in seen


def test_about_says_the_error_rate_with_its_interval_and_every_class(predictor):
    seen = about.card(predictor.config, predictor.folder)
    figures = predictor.config["metrics"]
    for text in (
        percent(figures["low"]),
        percent(figures["high"]),
        f"{figures['n']} images",
        *predictor.vocab,
    ):
        assert text in seen
    assert "95 % interval" in seen


def config_of(counts: list[list[int]], vocab: list[str]) -> dict:
    """What a bundle says of predictions that were made so often: a row a true class."""
    pairs = [(t, s) for t, row in enumerate(counts) for s, times in enumerate(row) for _ in range(times)]
    labels, probabilities = [vocab[true] for true, _ in pairs], np.eye(len(vocab))[[said for _, said in pairs]]
    result = Evaluation.from_probabilities(["a.jpg"] * len(pairs), labels, probabilities, vocab)
    return {"task": "classification", "vocab": vocab, "metrics": result.figures() | result.to_json()}


def rows_of(html: str) -> dict[str, list[int]]:
    """A matrix read back: the counts of each row by its name."""
    rows = re.findall(r'<tr><th scope="row" title="([^"]*)">.*?</th>(.*?)</tr>', html)
    return {name: [int(count) for count in re.findall(r">(\d+)</td>", cells)] for name, cells in rows}


def test_the_confusion_matrix_is_a_table_with_headings_for_every_row_and_column():
    counts = [[3, 1, 0], [0, 4, 0], [2, 0, 5]]
    seen = figures.matrix(config_of(counts, ["cat", "dog", "fox"]))
    assert rows_of(seen) == dict(zip(["cat", "dog", "fox"], counts, strict=True))
    assert re.findall(r'<th scope="col" title="(\w+)">', seen) == ["cat", "dog", "fox"]
    assert "<caption>" in seen
    assert 'tabindex="0" role="region"' in seen
    assert '<td class="right" style="--share:0.750" title="3 of 4">3</td>' in seen
    assert '<td class="wrong" style="--share:0.286" title="2 of 7">2</td>' in seen
    assert '<td class="none">0</td>' in seen
    assert "confused most" not in seen


def test_of_many_classes_the_matrix_shows_those_confused_most_and_says_so():
    vocab = [f"breed {number}" for number in range(37)]
    counts = np.diag(np.full(37, 5))
    for place in range(30):
        counts[place, place + 1] = 1
    counts[36, 0], counts[0, 36] = 4, 3
    seen = figures.matrix(config_of(counts.tolist(), vocab))
    assert "Shown are the 25 of 37 classes that are confused most" in seen
    rows = rows_of(seen)
    assert len(rows) == 25
    assert {len(row) for row in rows.values()} == {26}
    assert "breed 36" in rows
    assert {name: sum(row) for name, row in rows.items()} == {name: sum(counts[vocab.index(name)]) for name in rows}
    assert sum(row[-1] for row in rows.values()) > 0


def test_many_classes_without_a_mistake_have_no_matrix():
    vocab = [f"breed {number}" for number in range(37)]
    assert figures.matrix(config_of(np.diag(np.full(37, 2)).tolist(), vocab)) == ""


@pytest.fixture
def mistaken(run, tmp_path):
    """A bundle's config and folder with a mistake of each kind: shown, no image, not named in files, elsewhere."""
    folder = Path(shutil.copytree(run.bundle, tmp_path / "bundle"))
    shutil.rmtree(folder / MISTAKES, ignore_errors=True)
    (folder / MISTAKES).mkdir()
    for name, colour in {"mistakes/a.jpg": "red", "mistakes/unnamed.jpg": "lime", "secret.jpg": "blue"}.items():
        Image.new("RGB", (40, 30), colour).save(folder / name)
    (folder / "mistakes/text.jpg").write_text("no image")
    files = ("mistakes/a.jpg", "mistakes/text.jpg", "secret.jpg")
    entries = [*files, "mistakes/unnamed.jpg", "mistakes/../secret.jpg", "../secret.jpg", "/etc/passwd"]
    config = bundle.load(run.bundle).config | {"files": dict.fromkeys(files, "")}
    return config | {"mistakes": [mistake(name) for name in entries]}, folder


def mistake(name: str) -> dict:
    return {"file": name, "label": f"<i>{name}</i>", "prediction": "square", "probability": 0.934}


def test_mistakes_are_shown_with_what_they_are_and_what_they_were_taken_for(mistaken):
    seen = about.card(*mistaken)
    assert "is <b>&lt;i&gt;mistakes/a.jpg&lt;/i&gt;</b>, was taken for <b>square</b> <em>(93 %)</em>" in seen
    assert seen.count('src="data:image/jpeg') == 1
    assert "<i>mistakes" not in seen


def test_a_photo_is_shown_only_where_the_bundle_names_it_among_its_mistakes(mistaken):
    seen = about.card(*mistaken)
    for name in ("unnamed", "secret", "passwd", "text.jpg"):
        assert name not in seen


def test_a_bundle_from_before_the_matrix_and_the_mistakes_still_has_its_card(predictor):
    config = {name: value for name, value in predictor.config.items() if name != "mistakes"}
    config["metrics"] = {name: value for name, value in config["metrics"].items() if name != "confusion"}
    seen = about.card(config, predictor.folder)
    assert "How often it is wrong" in seen
    assert "Confusion matrix" not in seen
    assert "What it got wrong" not in seen


def test_everything_that_a_bundle_says_of_itself_is_text_and_never_html(predictor):
    evil, config = "<script>alert(1)</script>", predictor.config
    figures = config["metrics"] | {"most_confused": [[evil, evil, evil]]}
    hostile = config | {"architecture": {"name": evil, "library": evil}, "metrics": figures, "start": {"origin": evil}}
    hostile |= {"versions": {"torch": evil}, "data": {"train": evil, "valid": evil}}
    blocks = webpage.page(bundle.Predictor(hostile, predictor.engine, predictor.folder))
    seen = about.card(hostile, predictor.folder) + str(blocks.get_config_file()["components"])
    assert "<script" not in seen
    assert "&lt;script" in seen


def test_only_examples_whose_hash_was_checked_are_offered(predictor):
    def offered(config):
        blocks = webpage.page(bundle.Predictor(config, predictor.engine, predictor.folder))
        return [one for one in blocks.get_config_file()["components"] if one["type"] == "dataset"]

    assert len(offered(predictor.config)) == 1
    others = {name: digest for name, digest in predictor.config["files"].items() if not name.startswith(EXAMPLES)}
    bare = bundle.Predictor(predictor.config | {"files": others}, predictor.engine, predictor.folder)
    assert offered(bare.config) == []
    assert "example" not in webpage.predict_one(bare, None)


def test_a_network_without_heat_maps_shows_its_classes_and_nothing_to_choose():
    one = Prediction("", "cat", 0.9, {"cat": 0.9, "dog": 0.1})
    seen = render.verdict(one, None, PETS, Image.new("RGB", (8, 8)), 0.01)
    assert "<input" not in seen
    assert seen.count("<label>") == 2
    assert "heat" not in seen.lower()


def test_a_map_in_which_nothing_spoke_for_a_class_has_no_picture():
    assert render.heat_picture(np.zeros((3, 3))) is None
    assert render.heat_picture(np.full((3, 3), np.nan)) is None
    assert render.heat_picture(np.eye(3)).size == (render.HEAT, render.HEAT)


@pytest.fixture
def files(tmp_path, photo):
    bad, formula, archive = tmp_path / "bad.jpg", tmp_path / "=1+1.png", tmp_path / "some.zip"
    bad.write_text("no image")
    formula.write_bytes(Path(photo).read_bytes())
    with zipfile.ZipFile(archive, "w") as members:
        members.write(photo, "in/one.png")
        members.writestr("../out.png", b"x")
    return [photo, str(bad), str(formula), str(archive)]


def test_many_files_are_rows_in_their_order_with_the_reason_of_the_bad_ones(predictor, files, tmp_path):
    rows = list(webpage.predict_all(predictor, files))
    assert [one.path for one in rows] == ["00.png", "bad.jpg", "=1+1.png", "in/one.png", "../out.png"]
    assert [one.error is None for one in rows] == [True, False, True, True, False]
    assert rows[4].error == "its path leads out of the zip"
    assert str(tmp_path) not in str(rows)
    assert rows[0].probabilities == pytest.approx(rows[3].probabilities)


def test_the_csv_has_a_column_a_class_and_no_formula(predictor, files, tmp_path):
    path = webpage.write_csv(list(webpage.predict_all(predictor, files)), predictor.vocab, tmp_path)
    rows = list(csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8"))))
    assert [row["path"] for row in rows] == ["00.png", "bad.jpg", "'=1+1.png", "in/one.png", "../out.png"]
    assert list(rows[0]) == [
        "path",
        "prediction",
        "probability",
        "p_circle",
        "p_square",
        "p_triangle",
        "unlike",
        "error",
    ]
    assert float(rows[0]["p_circle"]) + float(rows[0]["p_square"]) + float(rows[0]["p_triangle"]) == pytest.approx(
        1, abs=1e-5
    )
    assert rows[1]["error"].startswith("not an image")


def test_many_tell_how_far_they_are_and_give_the_csv_at_the_end(predictor, files, monkeypatch):
    monkeypatch.setattr(webpage, "TELL_SECONDS", 0)
    seen = list(webpage.predict_many(predictor, files))
    assert "0 of 5 done" in seen[0][0]
    assert "1 of 5 done" in seen[1][0]
    assert "3 of 5 classified, 2 could not be opened" in seen[-1][0]
    assert "<progress" not in seen[-1][0]
    assert seen[-1][1].value["path"].endswith("predictions.csv")


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
    assert not list(Path(webpage.__file__).parent.glob("*.pyi"))


@pytest.mark.parametrize("text, size", [("10mb", 10_000_000), ("500 KB", 500_000), ("7", 7), ("1g", None), ("x", None)])
def test_sizes_are_read_or_refused(text, size):
    if size:
        assert parse_size(text) == size
    else:
        with pytest.raises(KitError, match="is no size"):
            parse_size(text)


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
        server.open_tunnel(7860)


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
