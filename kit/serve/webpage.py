"""The page: the prediction for one photo with heat maps, predictions for many photos, and the model card.

page(kit.bundle.load("runs/pets")).launch()

`kit serve` mounts the same page beside the REST API, behind the same middleware.
"""

import csv
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from kit.bundle.predictor import Predictor
from kit.data.images import fit_image, open_image, without_warnings
from kit.errors import KitError
from kit.manifest import EXAMPLES, photos
from kit.serve import archive
from kit.serve.responses import RequestError, internal_error
from kit.serve.rest import row
from kit.serve.uploads import inside
from kit.tasks import Prediction, of
from kit.views.page import about_html, prediction_html, predictions_html
from kit.views.render import TEMPLATES, render_template
from kit.views.view import view_of

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = Path(__file__).parent
DROP, DROP_OWN = "Drop a photo, paste one, take one, or choose an example.", "Drop a photo, paste one, or take one."
DROP_MANY = "Drop several photos, or a zip of them. Each becomes a row; a file that cannot be opened says why."
SHOWN_MEANWHILE, UPDATE_SECONDS, CACHE_SECONDS, PICTURE = 200, 0.5, 3600, 480
FORMULA = ("=", "+", "-", "@", "\t", "\r")
FONT = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
SCRIPTS = [path.read_text(encoding="utf-8") for path in (HERE / "page.js", TEMPLATES / "sort.js")]
LOOKS = {
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=FONT),
    "css_paths": [TEMPLATES / "result.css", HERE / "page.css"],
    "head": "".join(f"<script>{script}</script>" for script in SCRIPTS),
    "footer_links": [],
}
# Gradio's defaults show errors to visitors, keep pictures in the browser's storage and send usage statistics.
SAFE = {"show_error": False, "enable_monitoring": False, "run_history": False, "mcp_server": False, "ssr_mode": False}
PRIVATE = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}


class Page(gr.Blocks):
    """Gradio's Blocks with the style and the private settings of this page as defaults of `launch`."""

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Gradio's `launch`; arguments given here replace the defaults."""
        return super().launch(*args, **(LOOKS | SAFE | {"share": False, "max_file_size": "10mb"} | kwargs))


def page(predictor: Predictor) -> Page:
    """The page of a bundle: a Gradio Blocks, to `launch()` or to mount. It stores nothing about visitors."""
    # Gradio looks every so often for files of some age: together less than the time for which files may be kept.
    view, cache = view_of(predictor.config), (max(1, CACHE_SECONDS // 60), CACHE_SECONDS * 9 // 10)
    with Page(title=view.title, analytics_enabled=False, delete_cache=cache) as blocks:
        gr.HTML(render_template("title.html", view=view), elem_classes="title")
        with gr.Tabs():
            with gr.Tab("One photo"):
                _one_tab(predictor)
            with gr.Tab("Many photos"):
                _many_tab(predictor)
            with gr.Tab("About"):
                _html(about_html(predictor.config, predictor.folder))
    return blocks


def _html(value: str) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False)


def _one_tab(predictor: Predictor) -> None:
    examples = [str(predictor.folder / name) for name in photos(predictor.config, EXAMPLES)]
    nothing = message(DROP if examples else DROP_OWN)
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
            if examples:
                gr.Examples(examples, photo, label="Examples", api_visibility="private", examples_per_page=6)
        with gr.Column(scale=3, min_width=300):
            seen = _html(nothing)

    def show(value: Any) -> str:
        try:
            return "".join(predict_one(predictor, path) for path in uploaded(value)) or nothing
        except Exception as error:
            return trouble(error)

    def tell(value: Any) -> dict[str, Any]:
        try:
            return answer(predictor, uploaded(value))
        except Exception as error:
            raise gr.Error(as_kit_error(error).problem, print_exception=False) from None

    photo.change(show, photo, seen, trigger_mode="always_last", **PRIVATE)
    gr.Button(visible=False).click(tell, photo, gr.JSON(visible=False), api_name="predict", preprocess=False)


def _many_tab(predictor: Predictor) -> None:
    files = gr.File(file_count="multiple", label="Photos or zips", height=180, elem_classes="files")
    download = gr.DownloadButton("Download as CSV", variant="primary", visible=False, elem_classes="csv")
    seen = _html(message(DROP_MANY))

    def show(value: Any) -> Iterator[tuple[Any, Any]]:
        try:
            yield from predict_many(predictor, uploaded(value))
        except Exception as error:
            yield trouble(error), gr.skip()

    run = files.upload(show, files, [seen, download], concurrency_limit=1, **PRIVATE)
    nothing = (message(DROP_MANY), gr.DownloadButton(visible=False))
    files.clear(lambda: nothing, None, [seen, download], cancels=run, queue=False, api_visibility="private")


def uploaded(value: Any) -> list[str]:
    """The paths in what the browser sent for an image or for files. Raises `RequestError` for any not uploaded.

    The events of this page take Gradio's raw values, so that `kit.data.images` opens every image: Gradio would open
    more formats, and rotate in another way.
    """
    files = value if isinstance(value, list) else [value] if value else []
    cache = Path(gr.utils.get_upload_folder()).resolve()
    paths = [str(file.get("path")) for file in files if isinstance(file, dict)]
    if len(paths) < len(files) or not all(inside(cache, path) for path in paths):
        raise RequestError(422, "a file was not uploaded here", fix="upload it first")
    return paths


def message(text: str, trouble: bool = False) -> str:
    """A sentence in place of a result: what to do, or what failed."""
    return render_template("message.html", text=text, trouble=trouble)


def as_kit_error(error: Exception) -> KitError:
    """The error; an unexpected one becomes an error with the number of its traceback in the log, without details."""
    return error if isinstance(error, KitError) else internal_error(error)


def trouble(error: Exception) -> str:
    """An error as HTML."""
    error = as_kit_error(error)
    return message(f"{error.problem.removeprefix('the image: ')}; {error.fix}", trouble=True)


def predict_one(predictor: Predictor, path: str) -> str:
    """The prediction for one uploaded file as HTML. Raises `ImageError`, without the path of the file."""
    begun, data = time.perf_counter(), Path(path).read_bytes()
    with without_warnings():
        one, maps = predictor.explain(data)
        took = time.perf_counter() - begun
        picture = fit_image(open_image(data, at_least=PICTURE), PICTURE, predictor.config["image"])
    return prediction_html(one, maps, predictor.config, picture, took)


def answer(predictor: Predictor, paths: list[str]) -> dict[str, Any]:
    """The prediction as the REST API gives it, for `gradio_client`. Raises `RequestError` without a file."""
    if not paths:
        raise RequestError(422, "no image was given", fix="send one, with handle_file")
    one = predictor.predict(Path(paths[0]).read_bytes())[0]
    return row(Path(paths[0]).name, one, predictor.task)


def predict_many(predictor: Predictor, paths: list[str]) -> Iterator[tuple[Any, Any]]:
    """The predictions for many uploaded files as HTML, updated until all are done, and the button with the CSV file."""
    total = sum(archive.count(path) if archive.is_zip(path) else 1 for path in paths)
    done, updated, config = [], time.monotonic(), predictor.config
    yield predictions_html(done, config, 0, total), gr.DownloadButton(visible=False)
    for one in predict_all(predictor, paths):
        done.append(one)
        if time.monotonic() - updated > UPDATE_SECONDS:
            updated, count = time.monotonic(), len(done)
            yield predictions_html(done, config, count, max(total, count + 1), SHOWN_MEANWHILE), gr.skip()
    # Beside the uploads, which are removed should the server be killed, but not among them: Gradio would not copy it.
    with tempfile.TemporaryDirectory(dir=Path(gr.utils.get_upload_folder()).parent) as folder:
        # Gradio copies the file while this generator waits.
        path = Path(folder) / "predictions.csv"
        write_csv(done, predictor, path)
        yield predictions_html(done, config, len(done), len(done)), gr.DownloadButton(value=str(path), visible=True)


def predict_all(predictor: Predictor, paths: list[str]) -> Iterator[Prediction]:
    """A prediction, or an error, for each file and for each file of each zip."""
    for path in map(Path, paths):
        for name, data in archive.images(path) if archive.is_zip(path) else [(path.name, path.read_bytes())]:
            if isinstance(data, archive.Refused):
                yield Prediction(name, error=str(data))
            else:
                yield replace(predictor.predict(data)[0], path=name)


def write_csv(predictions: Iterable[Prediction], predictor: Predictor, path: Path) -> None:
    """The predictions as a CSV file, in which no cell is a formula for a spreadsheet."""
    task, vocab = of(predictor.task), predictor.vocab
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(task.columns(vocab))
        writer.writerows(map(harmless, task.csv_line(one, vocab)) for one in predictions)


def harmless(value: str) -> str:
    """A cell that no spreadsheet reads as a formula: such text gets a quote in front; negative numbers stay."""
    return f"'{value}" if value.startswith(FORMULA) and not re.fullmatch(r"-\d+\.\d+", value) else value


def mount(app: "FastAPI", blocks: gr.Blocks, max_upload: int, queue: int, concurrency: int) -> None:
    """Put the page at / of a FastAPI app."""
    blocks.queue(max_size=queue, default_concurrency_limit=concurrency, api_open=False)
    gr.mount_gradio_app(app, blocks, "/", max_file_size=max_upload, root_path="", pwa=False, **LOOKS, **SAFE)
