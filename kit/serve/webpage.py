"""The page: the prediction for one photo with heat maps, predictions for many photos, and the model card.

page(kit.bundle.load("runs/pets")).launch()

`kit serve` mounts the same page beside the REST API, behind the same middleware. page.js sends the photos and shows the
answers: each is one request, so that an answer or an error always belongs to the photo that is shown.
"""

import csv
import io
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image, ImageOps
from starlette.responses import Response

from kit.bundle.predictor import Predictor
from kit.data.images import FORMATS, fit_image, open_image, without_warnings
from kit.errors import KitError
from kit.manifest import EXAMPLES, photos
from kit.serve import archive
from kit.serve.concurrency import Line
from kit.serve.gradio_internals import describe_links
from kit.serve.responses import RequestError, internal_error
from kit.serve.rest import row
from kit.serve.uploads import inside
from kit.tasks import Prediction, of
from kit.views.page import about_html, card_html, doubt_of, prediction_html
from kit.views.pictures import as_url
from kit.views.render import TEMPLATES, render_template
from kit.views.view import View, view_of

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = Path(__file__).parent
NOTHING = "The answer is shown here."
CACHE_SECONDS, PICTURE, THUMBNAIL, MAX_UPLOAD = 3600, 480, 160, 10_000_000
PREVIEW_PATH, PREVIEW = "/preview.jpg", (1200, 630)
SOME = 8  # photos of a zip in one request
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
NUMBER = re.compile(r"-\d+(\.\d+)?(e[+-]\d+)?")
FONT = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
SCRIPTS = [path.read_text(encoding="utf-8") for path in (HERE / "page.js", TEMPLATES / "sort.js")]
LOOKS = {
    "theme": gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=FONT),
    "css_paths": [TEMPLATES / "result.css", HERE / "page.css"],
    "head": "".join(f"<script>{script}</script>" for script in SCRIPTS),
    "footer_links": [],
    "favicon_path": HERE / "icon.png",
}
# Gradio's defaults show errors to visitors, keep pictures in the browser's storage and send usage statistics.
SAFE = {"show_error": False, "enable_monitoring": False, "run_history": False, "mcp_server": False, "ssr_mode": False}
DIRECT = {"api_visibility": "private", "queue": False, "preprocess": False}


class Page(gr.Blocks):
    """Gradio's Blocks with the style and the private settings of this page as defaults of `launch`.

    description: what chats show below the title of a link to the page.
    """

    description = ""

    def get_config_file(self, *args: Any, **kwargs: Any) -> Any:
        """Gradio's config, with what the head of the page says (`gradio_internals.HEAD`)."""
        return super().get_config_file(*args, **kwargs) | {"kit_description": self.description}

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Gradio's `launch`; arguments given here replace the defaults."""
        return super().launch(*args, **(LOOKS | SAFE | {"share": False, "max_file_size": "10mb"} | kwargs))


def page(predictor: Predictor, max_upload: int = MAX_UPLOAD) -> Page:
    """The page of a bundle: a Gradio Blocks, to `launch()` or to mount. It stores nothing about visitors.

    max_upload: the largest photo in bytes that the server takes.
    """
    # Gradio looks every so often for files of some age: together less than the time for which files may be kept.
    view, cache = view_of(predictor.config), (max(1, CACHE_SECONDS // 60), CACHE_SECONDS * 9 // 10)
    with Page(title=view.ability, analytics_enabled=False, delete_cache=cache) as blocks:
        blocks.description = f"{view.claim} {view.sentence()}."
        _html(render_template("title.html", view=view), elem_classes="title")
        with gr.Tabs():
            with gr.Tab("One photo"):
                _html(one_html(predictor, view, max_upload))
            with gr.Tab("Many photos"):
                columns = csv_text([view.task.columns(predictor.vocab)])
                _html(render_template("many.html", limit=max_upload, columns=columns, order=view.task.order))
            with gr.Tab("About"):
                _html(about_html(predictor.config, predictor.folder))
        _functions(predictor)
    return blocks


def _html(value: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, **options)


def one_html(predictor: Predictor, view: View, max_upload: int) -> str:
    """The tab for one photo, in which the first example is already answered."""
    paths = [predictor.folder / name for name in photos(predictor.config, EXAMPLES)]
    answer = first_answer(predictor, paths)
    return render_template(
        "one.html",
        view=view,
        limit=max_upload,
        formats=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
        examples=[as_url(path.read_bytes(), path.suffix[1:].replace("jpg", "jpeg")) for path in paths],
        answer=answer,
        nothing=message(NOTHING),
    )


def _functions(predictor: Predictor) -> None:
    """What page.js and programs call. The components only say what kinds of values come and go."""
    line = Line()

    def show(value: Any) -> str:
        try:
            return "".join(predict_one(predictor, path) for path in uploaded(value))
        except Exception as error:
            return trouble(error)

    def show_some(value: Any, start: int, request: gr.Request) -> dict[str, Any]:
        try:
            if not value:
                line.leave(request.session_hash)
                return {}
            if ahead := line.ahead(request.session_hash):
                return {"ahead": ahead}
            return predict_some(predictor, Path(*uploaded(value)), start)
        except Exception as error:
            error = as_kit_error(error)
            return {"problem": f"{error.problem}; {error.fix}"}

    def tell(value: Any) -> dict[str, Any]:
        try:
            return answer(predictor, uploaded(value))
        except Exception as error:
            raise gr.Error(as_kit_error(error).problem, print_exception=False) from None

    with gr.Group(visible=False):
        photo, file, start = gr.Image(), gr.File(), gr.Number(0)
        gr.Button().click(show, photo, gr.HTML(), api_name="show", **DIRECT)
        gr.Button().click(show_some, [file, start], gr.JSON(), api_name="show_some", **DIRECT)
        gr.Button().click(tell, photo, gr.JSON(), api_name="predict", preprocess=False)


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


def preview(predictor: Predictor) -> bytes:
    """The picture that chats show of a link to the page, as a JPEG file: up to six examples, or else kit's icon."""
    paths = [predictor.folder / name for name in photos(predictor.config, EXAMPLES)]
    paths = paths[: 6 if len(paths) >= 6 else 3]
    across, down = max(1, min(3, len(paths))), len(paths) // 6 + 1
    picture, tile = Image.new("RGB", PREVIEW, "#0f766e"), (PREVIEW[0] // across, PREVIEW[1] // down)
    for place, path in enumerate(paths):
        corner = (place % across * tile[0], place // across * tile[1])
        picture.paste(ImageOps.fit(open_image(path), tile), corner)
    if not paths:
        icon = Image.open(HERE / "icon.png").convert("RGBA")
        picture.paste(icon, ((PREVIEW[0] - icon.width) // 2, (PREVIEW[1] - icon.height) // 2), icon)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def first_answer(predictor: Predictor, paths: list[Path]) -> str:
    """The prediction for the first of the examples as HTML; nothing where there is none or it fails."""
    try:
        return "".join(predict_one(predictor, str(path)) for path in paths[:1])
    except Exception as error:
        internal_error(error)
        return ""


def answer(predictor: Predictor, paths: list[str]) -> dict[str, Any]:
    """The prediction as the REST API gives it, for `gradio_client`. Raises `RequestError` without a file."""
    if not paths:
        raise RequestError(422, "no image was given", fix="send one, with handle_file")
    one = predictor.predict(Path(paths[0]).read_bytes())[0]
    return row(Path(paths[0]).name, one, predictor.task)


def predict_some(predictor: Predictor, path: Path, start: int) -> dict[str, Any]:
    """The prediction for an uploaded file, or for `SOME` files of a zip from `start` on.

    cards: for each image its card as HTML, its line of the CSV file, and its doubt, by which cards are ordered. total:
    the number of images in all. next: `start` of the next call, or None.
    """
    task, config, cards = of(predictor.task), predictor.config, []
    total = archive.count(path) if archive.is_zip(path) else 1
    for name, data in islice(files_of(path, start), SOME):
        one, thumbnail = predict_named(predictor, name, data)
        line = csv_text([task.csv_line(one, predictor.vocab)])
        cards.append({"html": card_html(one, config, thumbnail), "line": line, "doubt": doubt_of(one, config)})
    return {"cards": cards, "total": total, "next": start + SOME if len(cards) == SOME < total - start else None}


def files_of(path: Path, start: int) -> Iterator[tuple[str, bytes | archive.Refused]]:
    """The name and the bytes of a file, or of each file of a zip from `start` on."""
    return archive.images(path, start) if archive.is_zip(path) else iter([(path.name, path.read_bytes())])


def predict_named(
    predictor: Predictor, name: str, data: bytes | archive.Refused
) -> tuple[Prediction, Image.Image | None]:
    """The prediction for an image under its name, and a thumbnail; of what cannot be opened, the reason."""
    if isinstance(data, archive.Refused):
        return Prediction(name, error=str(data)), None
    with without_warnings():
        one = replace(predictor.predict(data)[0], path=name)
        if one.error:
            return one, None
        return one, fit_image(open_image(data, at_least=THUMBNAIL), THUMBNAIL, predictor.config["image"])


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """Rows as lines of a CSV file, in which no cell is a formula for a spreadsheet."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(map(harmless, cells) for cells in rows)
    return stream.getvalue().encode(errors="backslashreplace").decode()  # names of classes need not be UTF-8


def harmless(value: str) -> str:
    """A cell that no spreadsheet reads as a formula: such text gets a quote in front; negative numbers stay."""
    return f"'{value}" if value.startswith(FORMULA) and not NUMBER.fullmatch(value) else value


def mount(app: "FastAPI", blocks: gr.Blocks, picture: bytes, max_upload: int, queue: int, concurrency: int) -> None:
    """Put the page at / of a FastAPI app. picture: as `preview` makes it."""

    @app.api_route(PREVIEW_PATH, methods=["GET", "HEAD"], include_in_schema=False)
    def show_preview() -> Response:
        return Response(picture, media_type="image/jpeg")

    describe_links()
    blocks.queue(max_size=queue, default_concurrency_limit=concurrency, api_open=False)
    gr.mount_gradio_app(app, blocks, "/", max_file_size=max_upload, root_path="", pwa=False, **LOOKS, **SAFE)
