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

import pytest

from kit import bundle
from kit.cli.serve import ask_password
from kit.errors import KitError
from kit.manifest import EXAMPLES
from kit.serve import gradio_internals, server, webpage

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
    """What the page calls for one photo, for programs and for many photos, with `tmp_path` as the place of uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return functions_of(predictor)


def functions_of(predictor):
    return [one.fn for one in webpage.page(predictor).fns.values() if one.fn and one.fn.__name__ in ("show", "tell")]


def upload(path: Path) -> dict:
    return {"path": str(path)}


def test_a_file_that_is_no_image_says_why_and_not_where_it_lies(functions, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    seen = functions[0](upload(tmp_path / "bad.jpg"))
    assert "Not an image of the formats JPEG" in seen
    assert str(tmp_path) not in seen
    assert webpage.DROP in functions[0](None)


def test_an_unforeseen_error_is_a_number(predictor, photo, tmp_path, monkeypatch):
    def broken(pixels):
        raise RuntimeError("/secret")

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "a.png").write_bytes(Path(photo).read_bytes())
    one, program, many = functions_of(bundle.Predictor(predictor.config, broken, predictor.folder))
    *_, (last, _) = many([upload(tmp_path / "a.png")])
    with pytest.raises(Exception) as error:
        program(upload(tmp_path / "a.png"))
    for seen in (one(upload(tmp_path / "a.png")), last, str(error.value)):
        assert "number " in seen
        assert "secret" not in seen


def test_only_examples_whose_hash_was_checked_are_offered(predictor):
    def offered(config):
        blocks = webpage.page(bundle.Predictor(config, predictor.engine, predictor.folder))
        return [one for one in blocks.get_config_file()["components"] if one["type"] == "dataset"]

    assert len(offered(predictor.config)) == 1
    others = {name: digest for name, digest in predictor.config["files"].items() if not name.startswith(EXAMPLES)}
    bare = bundle.Predictor(predictor.config | {"files": others}, predictor.engine, predictor.folder)
    assert offered(bare.config) == []
    assert "example" not in functions_of(bare)[0](None)


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
    webpage.write_csv(webpage.predict_all(predictor, files), predictor, tmp_path / "predictions.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text(encoding="utf-8"))))
    assert [row["path"] for row in rows] == ["00.png", "bad.jpg", "'=1+1.png", "in/one.png", "../out.png"]
    assert ",".join(rows[0]) == "path,prediction,probability,p_circle,p_square,p_triangle,unlike,error"
    assert sum(float(rows[0][f"p_{name}"]) for name in predictor.vocab) == pytest.approx(1, abs=1e-5)
    assert rows[1]["error"].startswith("not an image")


def test_many_tell_how_far_they_are_and_give_the_csv_at_the_end(predictor, files, monkeypatch):
    monkeypatch.setattr(webpage, "UPDATE_SECONDS", 0)
    seen = list(webpage.predict_many(predictor, files))
    assert "0 of 5 done" in seen[0][0]
    assert "1 of 5 done" in seen[1][0]
    assert "3 of 5 predicted, 2 could not be opened" in seen[-1][0]
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
