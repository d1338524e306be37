"""A bundle as a Hugging Face Space: a folder that runs without kit, fastai or torch.

write_space("runs/pets", "pets-space")     # then: cd pets-space && pip install -r requirements.txt && python app.py

app.py, network.py and smoke.py are copied from `space_files/`; what differs from model to model is in model.json. The
modules of kit that open images and turn outputs into answers are copied too, so that a photo gives the same answer.
smoke.py starts the Space and compares its answers with those of the bundle, which smoke.json holds.
"""

import os
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
from kit.errors import KitError
from kit.files import atomic_folder, sha256, write_json, write_text
from kit.manifest import CARD, EXAMPLES, ONNX, UNKNOWN, photos
from kit.tasks import of
from kit.views.render import render_template
from kit.views.view import view_of

PACKAGE = Path(__file__).parent.parent
FILES = PACKAGE / "serve" / "space_files"
TASKS = ("__init__", "base", "classification", "multilabel", "regression", "text")
MODULES = ("data/images.py", "data/image_limits.py", "errors.py", *(f"tasks/{name}.py" for name in TASKS))
APP = ("app.py", "network.py", "smoke.py")
REQUIREMENTS = ("gradio", "onnxruntime", "pillow", "numpy")
ANSWERS = ("task", "vocab", "temperature", "thresholds", "range")
NUMBERS, MODEL, RECORDED, PATTERN = "unknown.npz", "model.json", "smoke.json", "smoke.png"
SMOKE_SECONDS = 180
LARGE_FILES = "*.onnx filter=lfs diff=lfs merge=lfs -text\n*.npz filter=lfs diff=lfs merge=lfs -text\n"


def write_space(path: str | Path, out: str | Path, *, title: str | None = None) -> Path:
    """Write a bundle or a run folder as a Space into the new folder `out`, start it once, and return it.

    title: the page's heading; by default the classes, or what the numbers are called. Raises `BundleError` for a bundle
    without model.onnx, `OutputError` for a folder that cannot be made, and `KitError` where the Space does not answer
    as the bundle does; the folder is then removed.
    """
    with atomic_folder(Path(out)) as partial:
        predictor = load(path, engine="onnx")
        write_files(predictor, partial, title or of(predictor.task).title(predictor.vocab))
        prove(partial)
    return Path(out)


def write_files(predictor: Predictor, folder: Path, title: str) -> None:
    """Write all files of a Space: the app, the model, what they need, and the expected answers."""
    for name in APP:
        shutil.copyfile(FILES / name, folder / name)
    (folder / "tasks").mkdir(parents=True)
    for name in MODULES:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        write_text(folder / name.removeprefix("data/"), re.sub(r"(?m)^from kit\.(data\.)?", "from ", text))
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
    task, view, photographed = of(predictor.task), view_of(predictor.config), (PATTERN, *examples)
    answers = predictor.predict([folder / name for name in photographed])
    recorded = {name: task.json(one) for name, one in zip(photographed, answers, strict=True)}
    write_json(folder / RECORDED, recorded)
    write_text(folder / "requirements.txt", "".join(f"{name}=={version(name)}\n" for name in REQUIREMENTS))
    write_text(folder / ".gitattributes", LARGE_FILES)
    python = ".".join(platform.python_version_tuple()[:2])
    card = render_template("space.md", view=view, title=title, gradio=version("gradio"), python=python)
    write_text(folder / CARD, card)


def description(predictor: Predictor, folder: Path, title: str) -> dict[str, Any]:
    """model.json: how photos are prepared, the parts of config.json that answers need, and the SHA-256 of files."""
    config, task, view = predictor.config, of(predictor.task), view_of(predictor.config)
    return {
        "title": title,
        "claim": view.claim,
        "summary": f"{view.sentence()}.",
        **{name: config[name] for name in ANSWERS if name in config},
        "metrics": {task.breakdown_key: task.breakdown(config)},
        "image": config["image"],
        "files": {name: sha256(folder / name) for name in (ONNX, NUMBERS) if (folder / name).is_file()},
    }


def pattern() -> Image.Image:
    """A test picture: colour gradients and a disc."""
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 240))
    disc = 255.0 * ((across - 128) ** 2 + (down - 128) ** 2 < 60**2)
    return Image.fromarray(np.stack([across, down, disc], 2).astype(np.uint8))


def prove(folder: Path) -> None:
    """Start the Space and compare its answers. Raises `KitError` where they are not those of the bundle."""
    # Compiled files would hold the path of this folder.
    command, settings = [sys.executable, "smoke.py"], os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, timeout=SMOKE_SECONDS, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise KitError(f"the Space does not answer as the bundle does: {said[-1]}", fix="report this, with the bundle")


def check_repository(name: str) -> None:
    """Raise `KitError` for a name that is not USER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise KitError(f"--push {name!r} names no Space", fix="write it as USER/NAME")


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a Space's folder to the Hugging Face Hub as USER/NAME, created if it does not exist; returns its address.

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
