"""A page that predicts the class, classes or numbers of a photo, with a heat map for each.

    pip install -r requirements.txt && python app.py

network.py runs the model, and images.py opens photos as in training. `python smoke.py` starts this page and compares
its answers with recorded ones.
"""

import re
from pathlib import Path

import gradio as gr
import numpy as np
from errors import ImageError
from images import open_image
from network import IMAGE, MODEL, TASK, predict, prepared
from PIL import Image
from tasks import Prediction

HERE = Path(__file__).parent
TOP, PICTURE = 5, 480
UNLIKE = "### This does not look like the training images\nDo not rely on the answer below."
HEAT_LABEL = f"Bright parts of the picture contribute to {TASK.heat_target}"
INVITATION = "Show it a photo\nDrop one here, paste one, or choose a file"
LIMITS = f"{TASK.limit} Photos have up to 10 MB, and are deleted within an hour."
# Phones show one button, which opens the camera or the album; wide screens the field for dropping.
CSS = """
.prose table {display:block; overflow:auto; border:0} .prose table * {overflow-wrap:normal; word-break:normal}
.claim p:first-of-type {font-size:1.15rem} .block:has(.empty) {display:none} .photo .or {color:inherit}
button.take {min-height:64px; background:#0f766e; color:#fff; font-size:1.15rem}
@media (min-width:641px) {.take {display:none}} @media (max-width:640px) {.photo:not(:has(img)) {display:none}}
"""
NAMES = """() => document.querySelectorAll('.gallery-item').forEach(
  (button, place) => button.setAttribute('aria-label', `Example ${place + 1}`))"""
EXAMPLES = sorted(map(str, (HERE / "examples").glob("*.jpg")))
RAMP = np.array([(0, 0, 4), (60, 15, 110), (150, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], float)


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


def in_words(one: Prediction) -> str:
    """The answer as headings; below a number, how far off it is on average, and its range."""
    lines, figures = [], TASK.breakdown(MODEL)
    for name, value in TASK.parts(one):
        lines.append(f"## {plain(name)} {plain(value)}")
        if name in one.numbers:
            low, high = map(TASK.text, TASK.ranges(MODEL)[name])
            error = figures[name]["mae"] if name in figures else None
            off = "" if error is None else f"off by {TASK.text(error)} on average; "
            lines.append(f"{off}range {low} to {high}")
    return "\n".join(lines)


def plain(name: str) -> str:
    """A name as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~$&!])", r"\\\1", name)


def glow(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (s, s, 3) with a heat map (h, w) over it, both uint8: dark where the map is 0."""
    small = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    level = np.asarray(small.resize(picture.shape[:2], Image.Resampling.BICUBIC)).clip(0, 1)
    colours = np.stack([np.interp(level, np.linspace(0, 1, len(RAMP)), part) for part in RAMP.T], 2)
    share = 0.3 + 0.25 * level[..., None]
    return (picture * (1 - share) + colours * share).astype(np.uint8)


def look(file: dict | None, name: str | None = None) -> tuple:
    """What the page shows of a photo, or without one of the first example: a remark, the likeliest classes, the heat
    map of `name`, and a choice of others."""
    example = file is None and bool(EXAMPLES)
    try:
        image = open_image(EXAMPLES[0], IMAGE["at_least"]) if example else opened(file)
    except gr.Error as error:
        return gr.Markdown(f"**{error.message}.**", visible=file is not None), None, None, gr.Radio(visible=False)
    one, maps = predict(image)
    names = [name for group in TASK.groups(one, MODEL).values() for name in group]
    name = name if name in names else names[0]
    seen = prepared(image, PICTURE)
    if maps:
        seen = glow(seen, maps[name])
    choice = gr.Radio(names, value=name, visible=bool(maps))
    remark = "\n\n".join(["For example:"] * example + [UNLIKE] * bool(one.unlike) + [in_words(one)])
    return gr.Markdown(remark, visible=True), one.probabilities or None, seen, choice


def answer(file: dict | None) -> dict:
    """The same for programs: gradio_client's predict(handle_file("photo.jpg"), api_name="/predict")."""
    return TASK.json(predict(opened(file))[0])


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title=MODEL["title"], analytics_enabled=False, delete_cache=(60, 3240)) as blocks:
        gr.Markdown(f"# {MODEL['title']}\n{MODEL['claim']}\n\n{MODEL['summary']}", elem_classes="claim")
        with gr.Row():
            with gr.Column():
                sources = {"sources": ["upload", "clipboard", "webcam"], "placeholder": INVITATION, "buttons": []}
                photo = gr.Image(label="Photo", height=340, elem_classes="photo", alt_text="The photo", **sources)
                take = gr.UploadButton("Take or choose a photo", file_types=["image"], elem_classes="take")
                gr.Markdown(LIMITS)
                if EXAMPLES:
                    gr.Examples(EXAMPLES, photo, api_visibility="private")
            with gr.Column():
                remark = gr.Markdown(visible=False)
                probable = TASK.output == "probability"
                label = gr.Label(num_top_classes=TOP, label="Most likely classes", show_heading=False, visible=probable)
                seen = gr.Image(label="What the model saw", interactive=False, buttons=[], alt_text=HEAT_LABEL)
                chosen = gr.Radio(label=HEAT_LABEL, visible=False)
        with gr.Accordion("About this model", open=False):
            gr.Markdown((HERE / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2])
        shown, private = [remark, label, seen, chosen], {"api_visibility": "private", "show_progress": "hidden"}
        events = [blocks.load, photo.change]
        gr.on(events, look, photo, shown, preprocess=False, trigger_mode="always_last", **private)
        blocks.load(None, js=NAMES)
        take.upload(lambda file: file, take, photo, **private)
        chosen.input(look, [photo, chosen], shown, preprocess=False, **private)
        gr.Button(visible=False).click(answer, photo, gr.JSON(visible=False), api_name="predict", preprocess=False)
    return blocks.queue(max_size=10, default_concurrency_limit=2)


if __name__ == "__main__":
    closed = dict.fromkeys(("show_error", "run_history", "enable_monitoring", "mcp_server", "ssr_mode"), False)
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=["system-ui", "sans-serif"])
    build().launch(theme=theme, max_file_size="10mb", footer_links=[], css=CSS, **closed)
