"""A bundle as a Hugging Face Space: a folder that runs without kit, fastai or torch, and says so by a recorded answer.

write_space("runs/pets", "pets-space")     # then: cd pets-space && pip install -r requirements.txt && python app.py

app.py, network.py and smoke.py are files of `space_files/`, copied as they are: what differs from model to model is in
model.json. Beside them go kit's own modules that open an image, so that a photo is the same pixels there as here.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kit.bundle.predictor import Predictor
from kit.bundle.read import load, load_unknown
from kit.errors import KitError, OutputError
from kit.files import new_folder, sha256, write_json, write_text
from kit.manifest import CARD, EXAMPLES, ONNX, UNKNOWN, photos
from kit.serve.words import breakdown, headline, ranges
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION, title_of

PACKAGE = Path(__file__).parent.parent
FILES, LOADER = PACKAGE / "serve" / "space_files", ("data/images.py", "data/bombs.py", "errors.py")
APP = ("app.py", "network.py", "smoke.py")
REQUIREMENTS = ("gradio", "onnxruntime", "pillow", "numpy")
TAGS = {CLASSIFICATION: "image-classification", MULTILABEL: "image-classification", REGRESSION: "image-regression"}
NUMBERS, MODEL, RECORDED, PATTERN = "unknown.npz", "model.json", "smoke.json", "smoke.png"
SMOKE_SECONDS = 180
LARGE_FILES = "*.onnx filter=lfs diff=lfs merge=lfs -text\n*.npz filter=lfs diff=lfs merge=lfs -text\n"
RUN_IT = """## Run it

    pip install -r requirements.txt
    python app.py

is a page at http://127.0.0.1:7860; `python smoke.py` starts it and compares its answers with recorded ones. From a
program:

    from gradio_client import Client, handle_file
    Client("http://127.0.0.1:7860").predict(handle_file("photo.jpg"), api_name="/predict")

`app.py` is the page, `network.py` computes its answers; `images.py` and `bombs.py` open photos, and refuse what would
fill the memory. The model is `model.onnx`; `model.json` says how photos are prepared for it and what its outputs mean,
and names each file by its SHA-256. Photos in `examples/`, if any, are validation images: whoever sees this folder sees
them.

"""


def write_space(path: str | Path, out: str | Path, *, title: str | None = None) -> Path:
    """Write a bundle or a run folder as a Space into the new folder `out`, start it once, and return it.

    title: the page's heading; by default the classes, or what the numbers are called. Raises `BundleError` for a bundle
    without model.onnx, `OutputError` for a folder that cannot be made, and `KitError` where the Space does not answer
    as the bundle does; then nothing is left of it.
    """
    predictor, out = load(path, engine="onnx"), Path(out)
    new_folder(out).rmdir()
    partial = new_folder(out.with_name(f".{out.name}.partial"))
    try:
        write_files(predictor, partial, title or title_of(predictor.vocab, predictor.task))
        prove(partial)
        return partial.rename(out)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written: {error.strerror}", fix="make room, or choose another OUT"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_files(predictor: Predictor, folder: Path, title: str) -> None:
    """All files of a Space: the app, the model, what they need, and the answers that are expected."""
    for name in APP:
        shutil.copyfile(FILES / name, folder / name)
    for name in LOADER:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        write_text(folder / Path(name).name, re.sub(r"(?m)^from kit\.(?:\w+\.)?(\w+) import", r"from \1 import", text))
    shutil.copyfile(predictor.folder / ONNX, folder / ONNX)
    if UNKNOWN in predictor.config["files"]:
        np.savez(folder / NUMBERS, **load_unknown(predictor.folder).arrays())
    examples = photos(predictor.config, EXAMPLES)
    if examples:
        (folder / EXAMPLES).mkdir()
    for name in examples:
        shutil.copyfile(predictor.folder / name, folder / name)
    write_json(folder / MODEL, description(predictor, folder, title))
    pattern().save(folder / PATTERN)
    write_json(folder / RECORDED, {name: answer(predictor, folder / name) for name in (PATTERN, *examples)})
    write_text(folder / "requirements.txt", "".join(f"{name}=={version(name)}\n" for name in REQUIREMENTS))
    write_text(folder / ".gitattributes", LARGE_FILES)
    card = (predictor.folder / CARD).read_text(encoding="utf-8")
    write_text(folder / CARD, front_matter(title, predictor.task) + without_use(card, RUN_IT))


def description(predictor: Predictor, folder: Path, title: str) -> dict[str, Any]:
    """model.json: how photos are prepared, what the outputs mean, and the SHA-256 of the model's files."""
    config = predictor.config
    return {
        "title": title,
        "summary": f"{headline(config, interval=True)}.",
        "task": predictor.task,
        "names": predictor.vocab,
        **_answers(config),
        "image": {name: config["image"][name] for name in ("size", "resize", "at_least")},
        "files": {name: sha256(folder / name) for name in (ONNX, NUMBERS) if (folder / name).is_file()},
    }


def _answers(config: dict[str, Any]) -> dict[str, Any]:
    """How the network's outputs become answers: by a temperature, by thresholds, or in a range."""
    if config["task"] == CLASSIFICATION:
        return {"temperature": config["temperature"]}
    if config["task"] == MULTILABEL:
        return {"thresholds": dict(zip(config["vocab"], config["thresholds"], strict=True))}
    off_by = {name: row["mae"] for name, row in breakdown(config).items()}
    return {"range": ranges(config), "bounded": config["range"]["bounded"], "off_by": off_by}


def pattern() -> Image.Image:
    """A picture that every model answers to in its own way: colours that run, and a disc."""
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 240))
    disc = 255.0 * ((across - 128) ** 2 + (down - 128) ** 2 < 60**2)
    return Image.fromarray(np.stack([across, down, disc], 2).astype(np.uint8))


def answer(predictor: Predictor, path: Path) -> dict[str, Any]:
    """What the Space has to say of an image."""
    one = predictor.predict(path)[0]
    if predictor.task == REGRESSION:
        return {"numbers": one.numbers, "unlike": one.unlike}
    said = {"label": one.label} if one.labels is None else {"labels": list(one.labels)}
    return said | {"unlike": one.unlike, "probabilities": one.probabilities}


def front_matter(title: str, task: str = CLASSIFICATION) -> str:
    """What Hugging Face reads at the top of a Space's README. A JSON text is YAML too, whatever the title holds."""
    fields = {
        "title": title,
        "emoji": "🔎",
        "colorFrom": "green",
        "colorTo": "blue",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "app_file": "app.py",
        "pinned": False,
        "tags": [TAGS[task]],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
    return "".join(["---\n", *lines, "---\n\n"])


def without_use(card: str, instead: str) -> str:
    """A bundle's model card with the section on its use replaced."""
    sections = re.split(r"^(?=## )", card, flags=re.MULTILINE)
    return "".join(instead if section.startswith("## Use it") else section for section in sections)


def prove(folder: Path) -> None:
    """Start the Space as anybody would, and compare its answers. Raises `KitError` where they are not the bundle's."""
    command = [sys.executable, "smoke.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SMOKE_SECONDS, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise KitError(f"the Space does not answer as the bundle does: {said[-1]}", fix="report this, with the bundle")


def check_repository(name: str) -> None:
    """Raise `KitError` for what cannot name a Space."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise KitError(f"--push {name!r} names no Space", fix="write it as USER/NAME")


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a Space's folder to the Hugging Face Hub as USER/NAME, made where it is not there; returns its address.

    It uses the token of `hf auth login` or HF_TOKEN. Raises `KitError`; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check_repository(repository)
    api = HfApi()
    try:
        made = api.create_repo(repository, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=made.repo_id, repo_type="space", commit_message="From kit space")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        problem = f"{folder} is written, but could not be uploaded: {str(error).strip().splitlines()[0]}"
        again = f"hf upload {repository} {folder} --repo-type space"
        raise KitError(problem, fix=f"log in (hf auth login, or HF_TOKEN), then: {again}") from error
    return str(made)
