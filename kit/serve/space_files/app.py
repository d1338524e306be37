"""A photo in, the likeliest classes out, with a heat map of what spoke for each.

    pip install -r requirements.txt && python app.py

What was learned lies in model.onnx; model.json says how a photo is prepared for it, and names each file by its SHA-256.
images.py opens photos as in training. `python smoke.py` starts this page and compares its answers with recorded ones.
"""

import hashlib
import io
import json
from pathlib import Path

import gradio as gr
import numpy as np
import onnxruntime
from errors import ImageError
from images import open_image, square
from PIL import Image

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
IMAGE, CLASSES, TOP, PICTURE = MODEL["image"], MODEL["classes"], 5, 480
UNLIKE = "### This does not look like the training images\nDo not rely on the answer below."
CSS = ".prose table {display:block; overflow:auto; border:0} .prose table * {overflow-wrap:normal; word-break:normal}"
RAMP = np.array([(0, 0, 4), (60, 15, 110), (150, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)


def saved(name: str) -> bytes:
    """A file of the model, if it is the one that was saved."""
    data = (HERE / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != MODEL["files"][name]:
        raise SystemExit(f"{name} is not the file that was saved; get this folder again from where it was made")
    return data


NETWORK = onnxruntime.InferenceSession(saved("model.onnx"), providers=["CPUExecutionProvider"])
UNKNOWN = dict(np.load(io.BytesIO(saved("unknown.npz")))) if "unknown.npz" in MODEL["files"] else None


def opened(file: dict | None) -> Image.Image:
    """An uploaded file as an upright RGB image. Raises gr.Error that says why there is none."""
    path = Path((file or {}).get("path") or "/").resolve()
    if not path.is_relative_to(Path(gr.utils.get_upload_folder()).resolve()):
        raise gr.Error("There is no photo", print_exception=False)
    try:
        return open_image(path.read_bytes(), IMAGE["at_least"])
    except ImageError as error:
        reason = error.problem.removeprefix("the image: ")
        raise gr.Error(f"This photo cannot be used: {reason}; {error.fix}", print_exception=False) from None


def prepared(image: Image.Image, size: int) -> np.ndarray:
    """An image as the model sees it, at `size` pixels a side: uint8 (size, size, 3)."""
    return np.asarray(square(image, size, IMAGE["resize"]), np.uint8)


def predict(image: Image.Image) -> tuple[dict[str, float], bool | None, dict[str, np.ndarray]]:
    """Calibrated probabilities, likeliest first; whether it is unlike the training images; a heat map of each class."""
    probabilities, features, *maps = NETWORK.run(None, {"pixels": prepared(image, IMAGE["size"])[None]})
    logs = np.log(np.maximum(probabilities[0].astype(float), np.finfo(np.float32).tiny)) / MODEL["temperature"]
    shares = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
    pairs = sorted(zip(CLASSES, shares.tolist(), strict=True), key=lambda pair: -pair[1])
    unlike = None if UNKNOWN is None else is_unlike(features[0].astype(float))
    return dict(pairs), unlike, dict(zip(CLASSES, maps[0][0], strict=True)) if maps else {}


def is_unlike(features: np.ndarray) -> bool:
    """Whether features (f,) lie farther from those of the training images than 95 % of the held-out images' do."""
    features = features / max(np.linalg.norm(features), 1e-12) - UNKNOWN["mean"]
    projected = features @ UNKNOWN["projection"].astype(float)
    distances = np.sort(np.linalg.norm(UNKNOWN["points"] - projected, axis=1))
    return not distances[int(UNKNOWN["nearest"][0]) - 1] <= UNKNOWN["threshold"][0]


def glow(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (s, s, 3) with a heat map (h, w) over it, both uint8: dark where nothing spoke for the class."""
    small = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    level = np.asarray(small.resize(picture.shape[:2], Image.Resampling.BICUBIC)).clip(0, 1)
    colours = np.stack([np.interp(level, np.linspace(0, 1, len(RAMP)), part) for part in RAMP.T], 2)
    share = 0.3 + 0.25 * level[..., None]
    return (picture * (1 - share) + colours * share).astype(np.uint8)


def look(file: dict | None, name: str | None = None) -> tuple:
    """What the page shows of a photo: a remark, the likeliest classes, a choice of heat maps, and that of `name`."""
    try:
        image = opened(file)
    except gr.Error as error:
        return gr.Markdown(f"**{error.message}.**", visible=file is not None), None, None, gr.Radio(visible=False)
    likeliest, unlike, maps = predict(image)
    names = list(likeliest)[:TOP]
    name = name if name in names else names[0]
    seen = prepared(image, PICTURE)
    if maps:
        seen = glow(seen, maps[name])
    choice = gr.Radio(names, value=name, visible=bool(maps))
    return gr.Markdown(UNLIKE, visible=bool(unlike)), likeliest, seen, choice


def answer(file: dict | None) -> dict:
    """The same for programs: gradio_client's predict(handle_file("photo.jpg"), api_name="/predict")."""
    probabilities, unlike, _ = predict(opened(file))
    best = next(iter(probabilities))
    return {"label": best, "probability": probabilities[best], "probabilities": probabilities, "unlike": unlike}


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title=MODEL["title"], analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown(f"# {MODEL['title']}\n{MODEL['summary']}")
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", sources=["upload", "clipboard", "webcam"], height=340, buttons=[])
                if examples := sorted(map(str, (HERE / "examples").glob("*.jpg"))):
                    gr.Examples(examples, photo, api_visibility="private")
                remark = gr.Markdown(visible=False)
                label = gr.Label(num_top_classes=TOP, label="Likeliest classes")
            with gr.Column():
                seen = gr.Image(label="What the model saw", interactive=False, buttons=[])
                chosen = gr.Radio(label="Bright is what spoke for", visible=False)
        with gr.Accordion("About this model", open=False):
            gr.Markdown((HERE / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2])
        shown, private = [remark, label, seen, chosen], {"api_visibility": "private", "show_progress": "hidden"}
        photo.change(look, photo, shown, preprocess=False, **private)
        chosen.input(look, [photo, chosen], shown, preprocess=False, **private)
        gr.Button(visible=False).click(answer, photo, gr.JSON(visible=False), api_name="predict", preprocess=False)
    return blocks.queue(max_size=10, default_concurrency_limit=2)


if __name__ == "__main__":
    closed = dict.fromkeys(("show_error", "run_history", "enable_monitoring", "mcp_server", "ssr_mode"), False)
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=["system-ui", "sans-serif"])
    build().launch(theme=theme, max_file_size="10mb", footer_links=[], css=CSS, **closed)
