"""A bundle as a Space: it answers as the bundle does, needs nothing of kit, and can be uploaded."""

import ast
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import yaml
from conftest import with_paths_of_this_machine
from PIL import Image

from kit import bundle
from kit.bundle import Predictor
from kit.errors import BundleError, KitError, OutputError
from kit.serve import space, write_space

ALLOWED = {"gradio", "gradio_client", "onnxruntime", "PIL", "numpy", "pillow_heif"}
OWN = {"app", "network", "images", "image_limits", "errors", "smoke", "tasks"}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    return write_space(run.bundle, tmp_path_factory.mktemp("spaces") / "shapes", title='Shapes: "round" or not')


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


@pytest.fixture
def app(folder, tmp_path, monkeypatch):
    """What app.py defines, with `tmp_path` as the place of uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return run_app(folder, monkeypatch)


def run_app(folder, monkeypatch) -> dict:
    """What app.py of a Space defines, with the modules beside it."""
    monkeypatch.syspath_prepend(folder)
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(folder / "app.py"))


def test_53_a_space_holds_no_path_of_the_machine_that_wrote_it(folder):
    assert with_paths_of_this_machine(folder) == []


def test_the_app_is_one_readable_file_that_needs_neither_kit_nor_torch(folder):
    text = (folder / "app.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module.split(".")[0] for module in modules} <= ALLOWED | OWN | sys.stdlib_module_names
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in lines] == ["gradio", "onnxruntime", "pillow", "numpy"]
    assert all(re.fullmatch(r"[a-z]+==[0-9][0-9a-z.]*", line) for line in lines)


def test_the_readme_says_what_hugging_face_wants_and_what_the_model_is(folder):
    head, _, body = (folder / "README.md").read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    fields = yaml.safe_load(head)
    assert fields["title"] == 'Shapes: "round" or not'
    assert fields["sdk"] == "gradio"
    assert fields["sdk_version"] == gr.__version__
    assert (folder / fields["app_file"]).is_file()
    assert "Error rate: " in body
    assert "python smoke.py" in body
    assert "kit predict BUNDLE" not in body


def test_a_folder_is_never_written_over(run, folder):
    with pytest.raises(OutputError, match="exists and is not empty"):
        write_space(run.bundle, folder)


def test_a_bundle_without_onnx_says_how_to_get_it(run, tmp_path):
    copy = shutil.copytree(run.bundle, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    del config["files"]["model.onnx"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "config.json.sha256").unlink()
    with pytest.raises(BundleError, match="holds no model.onnx") as error:
        write_space(copy, tmp_path / "out")
    assert "kit export" in error.value.fix
    assert not (tmp_path / "out").exists()


def test_a_space_whose_answers_are_others_is_not_written(run, tmp_path, monkeypatch):
    predict = Predictor.predict
    changed = lambda *given: [replace(one, label="another") for one in predict(*given)]  # noqa: E731
    monkeypatch.setattr(Predictor, "predict", changed)
    with pytest.raises(KitError, match="does not answer as the bundle does: 0 of"):
        write_space(run.bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_model_is_not_run(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(SystemExit, match=r"model.onnx is not the file that was saved"):
        run_app(copy, monkeypatch)


def odd_images(photo: Image.Image) -> dict[str, tuple[Image.Image, dict]]:
    """One photo in the modes and files that people bring, with how to save it."""
    wide = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    faint = photo.convert("RGBA")
    faint.putalpha(photo.convert("L"))
    return {
        "plain.png": (photo, {}),
        "large.jpg": (photo.resize((900, 700)), {"quality": 95}),
        "turned.jpg": (photo, {"exif": turned}),
        "turned.png": (photo, {"exif": turned}),
        "grey.png": (photo.convert("L"), {}),
        "wide.png": (wide, {}),
        "float.tif": (Image.fromarray(np.asarray(photo.convert("L"), np.float32) / 255), {}),
        "palette.gif": (photo.convert("P"), {}),
        "faint.png": (faint, {}),
        "faint.webp": (faint, {"lossless": True}),
        "greyfaint.png": (faint.convert("LA"), {}),
        "ink.jpg": (photo.convert("CMYK"), {}),
        "moving.gif": (photo.convert("P"), {"save_all": True, "append_images": [photo.rotate(90).convert("P")]}),
        "two.mpo": (photo, {"save_all": True, "append_images": [photo.rotate(90)]}),
        "point.bmp": (photo.resize((1, 1)), {}),
        "line.png": (photo.resize((3000, 1)), {}),
    }


def test_26_28_the_space_answers_as_the_bundle_for_every_kind_of_image(app, predictor, shapes, tmp_path):
    photo = Image.open(shapes / "circle" / "00.png").convert("RGB")
    for name, (image, options) in odd_images(photo).items():
        image.save(tmp_path / name, **options)
        expected, ours = predictor.predict(tmp_path / name)[0], app["answer"]({"path": str(tmp_path / name)})
        assert expected.error is None, expected.error
        assert ours["label"] == expected.label, name
        assert ours["unlike"] == expected.unlike, name
        for label, probability in expected.probabilities.items():
            assert ours["probabilities"][label] == pytest.approx(probability, abs=1e-6), name


@pytest.mark.parametrize("resize", ["crop", "pad", "squish"])
def test_an_image_becomes_square_as_in_the_bundle(app, resize):
    from kit.data.images import square

    image = Image.effect_noise((90, 60), 80).convert("RGB")
    app["IMAGE"]["resize"] = resize
    assert app["prepared"](image, 32).tobytes() == square(image, 32, resize).tobytes()


BAD = {
    "text.jpg": (b"no image", "not an image of the formats JPEG"),
    "empty.png": (b"", "the file is empty"),
    "drawing.svg": (b"<svg/>", "not an image of the formats JPEG"),
    "post.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image of the formats JPEG"),
}


@pytest.mark.parametrize("name", BAD)
def test_24_a_bad_image_says_why_without_its_path(app, tmp_path, name):
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(gr.Error, match=f"This photo cannot be used: {reason}") as error:
        app["answer"]({"path": str(tmp_path / name)})
    assert str(tmp_path) not in error.value.message
    remark, likeliest, seen, choice = app["look"]({"path": str(tmp_path / name)})
    assert remark.visible
    assert (likeliest, seen, choice.visible) == (None, None, False)


def test_25_a_header_of_many_pixels_is_refused_unread(app, tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(gr.Error, match="more pixels than the 100,000,000"):
        app["answer"]({"path": str(tmp_path / "huge.png")})


@pytest.mark.parametrize("given", [None, {}, {"path": None}, {"path": "/etc/passwd"}, {"path": "../etc/passwd"}])
def test_12_what_was_not_uploaded_is_never_opened(app, given):
    with pytest.raises(gr.Error, match="There is no photo"):
        app["answer"](given)


def test_the_page_shows_a_heat_map_of_the_class_that_was_chosen(app, shapes, tmp_path):
    shutil.copyfile(shapes / "circle" / "00.png", tmp_path / "photo.png")
    file = {"path": str(tmp_path / "photo.png")}
    _, probabilities, first, choice = app["look"](file)
    likeliest = sorted(probabilities, key=probabilities.get, reverse=True)
    assert [name for name, _ in choice.choices] == likeliest
    assert choice.visible
    assert first.shape == (480, 480, 3)
    others = [app["look"](file, name)[2] for name in likeliest[1:]]
    assert not all(np.array_equal(other, first) for other in others)


def test_temperature_and_unknown_images_may_be_missing(run, tmp_path, monkeypatch):
    predictor = bundle.load(run.bundle)
    predictor.unknown = None
    predictor.config = predictor.config | {"temperature": 1.7, "files": {"model.onnx": ""}}
    space.write_files(predictor, tmp_path, "shapes")
    assert not (tmp_path / "examples").exists()
    assert not (tmp_path / "unknown.npz").exists()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = run_app(tmp_path, monkeypatch)
    expected = predictor.predict(tmp_path / "smoke.png")[0]
    ours = app["answer"]({"path": str(tmp_path / "smoke.png")})
    assert ours["unlike"] is None
    assert ours["probability"] == pytest.approx(expected.probability, abs=1e-6)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload asks for."""

    def log_message(self, *given):
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self):
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.reply({})

    def do_GET(self):
        self.reply({"id": "anna/shapes", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body, address = self.body(), f"http://127.0.0.1:{self.server.server_port}"
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") != "Bearer right":
            self.reply({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            self.server.made = json.loads(body)
            self.reply({"url": f"{address}/spaces/anna/shapes", "name": "anna/shapes", "id": "anna/shapes"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            large = (".onnx", ".npz", ".jpg", ".png")
            self.reply(
                {
                    "files": [
                        {"path": name, "uploadMode": modes[name.endswith(large)], "shouldIgnore": False}
                        for name in names
                    ]
                }
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            put = [{**one, "actions": {"upload": {"href": f"{address}/put/{one['oid']}"}}} for one in objects]
            self.reply({"transfer": "basic", "objects": put})
        elif "/commit/" in self.path:
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            self.reply({"commitUrl": f"{address}/spaces/anna/shapes/commit/1", "commitOid": "1" * 40, "success": True})
        else:
            self.reply({})


@pytest.fixture
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.large, server.asked, server.made, server.commit = {}, [], None, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def push(folder, repository, hub, token="right", **options) -> subprocess.CompletedProcess:
    """`push` in a process of its own: huggingface_hub reads its settings once."""
    code = (
        "import sys; from pathlib import Path; from kit.cli.script import guarded; from kit.serve.space import push\n"
        f"guarded(lambda: print(push(Path({str(folder)!r}), {repository!r}, **{options!r})))"
    )
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=False
    )


def test_a_space_is_uploaded_whole(folder, hub):
    done = push(folder, "anna/shapes", hub, private=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/spaces/anna/shapes")
    assert hub.made | {"type": "space", "sdk": "gradio"} == hub.made
    assert hub.made.get("private") is True or hub.made.get("visibility") == "private"
    sent = {line["value"]["path"]: line for line in hub.commit if line["key"] in ("file", "lfsFile")}
    assert set(sent) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert sent["model.onnx"]["value"]["oid"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert hub.large[sent["model.onnx"]["value"]["oid"]] == (folder / "model.onnx").read_bytes()


def test_an_upload_that_is_refused_leaves_the_folder_and_says_how_to_go_on(folder, hub):
    done = push(folder, "anna/shapes", hub, token="wrong")
    assert done.returncode == 1
    assert "could not be uploaded" in done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.large == {}
    assert (folder / "app.py").is_file()


@pytest.mark.parametrize("name", ["shapes", "a/b/c", "", "anna/", "../x y"])
def test_a_name_that_is_no_space_is_refused(name):
    with pytest.raises(KitError, match="names no Space"):
        space.check_repository(name)
