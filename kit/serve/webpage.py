"""The page: one image with what speaks for its answer, many images at once, and what is known of the model.

page(kit.bundle.load("runs/pets")).launch()

`kit serve` mounts the same page beside the REST API, behind its guard.
"""

import csv
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial, wraps
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from kit.bundle.prediction import Prediction, columns, csv_line
from kit.bundle.predictor import Predictor
from kit.data.images import open_image, square, without_warnings
from kit.errors import ImageError, KitError
from kit.manifest import EXAMPLES, photos
from kit.serve import about, archive, render, rows, words
from kit.serve.reply import Refusal, failed
from kit.serve.rest import row
from kit.serve.uploads import inside
from kit.task import CLASSIFICATION, title_of

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = Path(__file__).parent
DROP, DROP_OWN = "Drop a photo, paste one, take one, or choose an example.", "Drop a photo, paste one, or take one."
DROP_MANY = "Drop several photos, or a zip of them. Each becomes a row; a file that cannot be opened says why."
SHOWN_MEANWHILE, TELL_SECONDS = 200, 0.5
CACHE_SECONDS = 3600
FORMULA = ("=", "+", "-", "@", "\t", "\r")
FONT = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
LOOKS = {
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=FONT),
    "css_paths": HERE / "page.css",
    "head": f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    "footer_links": [],
}
# Gradio's own defaults tell errors to the visitor, keep every visitor's pictures in the browser, and watch.
SAFE = {"show_error": False, "enable_monitoring": False, "run_history": False, "mcp_server": False, "ssr_mode": False}


class Page(gr.Blocks):
    """Gradio's Blocks, launched with this page's looks and with settings that keep it to itself."""

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Gradio's `launch`; whatever is given here goes first."""
        return super().launch(*args, **(LOOKS | SAFE | {"share": False, "max_file_size": "10mb"} | kwargs))


def uploaded(value: Any) -> list[str]:
    """The paths in what the browser sent for an image or for files. Raises `Refusal` for any that was not uploaded.

    The events of this page take Gradio's raw values: kit alone decides how a file becomes an image, where Gradio would
    open it before, with formats that kit never opens, and turn it as it likes.
    """
    files = value if isinstance(value, list) else [value] if value else []
    cache = Path(gr.utils.get_upload_folder()).resolve()
    paths = [str(file.get("path")) for file in files if isinstance(file, dict)]
    if len(paths) < len(files) or not all(inside(cache, path) for path in paths):
        raise Refusal(422, "a file was not uploaded here", fix="upload it first")
    return paths


def page(predictor: Predictor) -> Page:
    """The page of a bundle: a Gradio Blocks, to `launch()` or to mount. It keeps nothing about its visitors."""
    config = predictor.config
    cache = (CACHE_SECONDS, CACHE_SECONDS)
    with Page(title=title_of(config["vocab"], config["task"]), analytics_enabled=False, delete_cache=cache) as blocks:
        about_it = escape(f"{config['architecture']['name']}. {words.headline(config)}.")
        gr.HTML(f"<h1>{escape(blocks.title)}</h1><p>{about_it}</p>", elem_classes="title")
        with gr.Tabs():
            with gr.Tab("One photo"):
                _one_tab(predictor)
            with gr.Tab("Many photos"):
                _many_tab(predictor)
            with gr.Tab("About"):
                _html(about.card(config, predictor.folder))
    return blocks


def _html(value: str) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False)


def _one_tab(predictor: Predictor) -> None:
    with gr.Row(elem_classes="desk"):
        with gr.Column(scale=2, min_width=300):
            photo = gr.Image(
                sources=["upload", "clipboard", "webcam"],
                label="Photo",
                buttons=[],
                height=340,
                elem_classes="photo",
                alt_text="The photo to look at",
            )
            if examples := [str(predictor.folder / name) for name in photos(predictor.config, EXAMPLES)]:
                gr.Examples(examples, photo, label="Examples", api_visibility="private", examples_per_page=6)
        with gr.Column(scale=3, min_width=300):
            seen = _html(invitation(predictor))
    show = careful(lambda value: predict_one(predictor, next(iter(uploaded(value)), None)))
    quiet = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
    photo.change(show, photo, seen, trigger_mode="always_last", **quiet)
    hidden = gr.Button(visible=False), gr.JSON(visible=False)
    tell = careful_for_programs(lambda value: answer(predictor, uploaded(value)))
    hidden[0].click(tell, photo, hidden[1], api_name="predict", preprocess=False)


def _many_tab(predictor: Predictor) -> None:
    files = gr.File(file_count="multiple", label="Photos or zips", height=180, elem_classes="files")
    download = gr.DownloadButton("Download as CSV", variant="primary", visible=False, elem_classes="csv")
    seen = _html(render.hint(DROP_MANY))
    run = files.upload(
        careful_each(lambda value: predict_many(predictor, uploaded(value))),
        files,
        [seen, download],
        show_progress="hidden",
        api_visibility="private",
        preprocess=False,
        concurrency_limit=1,
    )
    nothing = (render.hint(DROP_MANY), gr.DownloadButton(visible=False))
    files.clear(lambda: nothing, None, [seen, download], cancels=run, queue=False, api_visibility="private")


def careful(function: Callable) -> Callable:
    """The function, whose unforeseen errors become a number for the log and nothing else."""

    @wraps(function)
    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception as error:
            return _tell(error)

    return run


def careful_each(function: Callable) -> Callable:
    """The same for a function that yields what is seen, and a button."""

    @wraps(function)
    def run(*values: Any) -> Iterator[Any]:
        try:
            yield from function(*values)
        except Exception as error:
            yield _tell(error), gr.skip()

    return run


def careful_for_programs(function: Callable) -> Callable:
    """The same for a function that programs call: they are told by an error of Gradio's."""

    @wraps(function)
    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception as error:
            raise gr.Error(_told(error).problem, print_exception=False) from None

    return run


def _told(error: Exception) -> KitError:
    return error if isinstance(error, KitError) else failed(error)


def _tell(error: Exception) -> str:
    told = _told(error)
    return render.trouble(f"{told.problem}; {told.fix}")


def invitation(predictor: Predictor) -> str:
    """What is seen where there is no photo yet."""
    return render.hint(DROP if photos(predictor.config, EXAMPLES) else DROP_OWN)


def predict_one(predictor: Predictor, path: str | None) -> str:
    """What is seen of one uploaded file."""
    if path is None:
        return invitation(predictor)
    begun = time.perf_counter()
    try:
        with without_warnings():
            one, maps = predictor.explain(path)
            took = time.perf_counter() - begun
            image = open_image(path, at_least=render.PICTURE)
    except ImageError as error:
        return render.trouble(reason(error, path))
    picture = square(image, render.PICTURE, predictor.config["image"]["resize"])
    return render.verdict(one, maps, predictor.config, picture, took)


def answer(predictor: Predictor, paths: list[str]) -> dict[str, Any]:
    """The same for programs (`gradio_client`), as the REST API gives it. Raises `Refusal` where there is no file."""
    if not paths:
        raise Refusal(422, "no image was given", fix="send one, with handle_file")
    path = paths[0]
    return row(Path(path).name, _without_path(predictor.predict(path)[0], path), predictor.task)


def reason(error: ImageError, path: str) -> str:
    """Why a file cannot be opened, without saying where it lies."""
    return error.problem.removeprefix(f"{path}: ").replace(path, Path(path).name)


def _without_path(one: Prediction, path: str, name: str | None = None) -> Prediction:
    error = one.error and one.error.replace(path, Path(path).name)
    return replace(one, path=name or Path(path).name, error=error)


def predict_many(predictor: Predictor, paths: list[str]) -> Iterator[tuple[Any, Any]]:
    """What is seen of many uploaded files, again and again until all are done, and the button with the CSV."""
    total = sum(archive.count(path) if archive.is_zip(path) else 1 for path in paths)
    done: list[Prediction] = []
    told = time.monotonic()
    table = partial(rows.table, config=predictor.config)
    yield table(done, done=0, total=total), gr.DownloadButton(visible=False)
    for one in predict_all(predictor, paths):
        done.append(one)
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            yield table(done, done=len(done), total=max(total, len(done) + 1), most=SHOWN_MEANWHILE), gr.skip()
    with tempfile.TemporaryDirectory() as folder:
        # Gradio copies the file while this generator waits.
        path = write_csv(done, predictor.vocab, Path(folder), predictor.task)
        yield table(done, done=len(done), total=len(done)), gr.DownloadButton(value=path, visible=True)


def predict_all(predictor: Predictor, paths: list[str]) -> Iterator[Prediction]:
    """A prediction, or an error, for each file and for each file of each zip."""
    for path in paths:
        if not archive.is_zip(path):
            yield _without_path(predictor.predict(path)[0], path)
            continue
        for name, data in archive.images(path):
            if isinstance(data, archive.Refused):
                yield Prediction(name, None, None, {}, str(data))
            else:
                yield _without_path(predictor.predict(data)[0], path, name)


def write_csv(found: Sequence[Prediction], vocab: list[str], folder: Path, task: str = CLASSIFICATION) -> str:
    """The predictions as a CSV file in `folder`, and its path."""
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns(vocab, task))
        writer.writerows(map(harmless, csv_line(one, vocab, task)) for one in found)
    return str(folder / "predictions.csv")


def harmless(value: str) -> str:
    """A text that no spreadsheet takes for a formula; a negative number is none."""
    if value[:1] not in FORMULA or re.fullmatch(r"-\d+\.\d+", value):
        return value
    return f"'{value}"


def mount(app: "FastAPI", blocks: gr.Blocks, max_upload: int, queue: int, concurrency: int) -> None:
    """Put the page at / of a FastAPI app."""
    blocks.queue(max_size=queue, default_concurrency_limit=concurrency, api_open=False)
    gr.mount_gradio_app(app, blocks, "/", max_file_size=max_upload, root_path="", pwa=False, **LOOKS, **SAFE)
