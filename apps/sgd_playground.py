"""SGD playground: a page that shows how optimisers descend on landscapes, and how they diverge at a large rate.

    python apps/sgd_playground.py --port 7860      # then open http://127.0.0.1:7860

Everything shown is computed from the controls and the number of steps, so that a moved slider redraws the whole path.
This number, for each visitor, is the only state; the page loads nothing from other machines. The map is SVG: contours
are computed once for each landscape, and a click sends only the path, a few kilobytes.
"""

import math
import os
from collections.abc import Callable
from functools import lru_cache, partial
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import torch
from matplotlib.figure import Figure

from kit.cli.script import script
from kit.errors import KitError
from kit.mechanism.landscapes import LANDSCAPES, Landscape, classify_point, curvatures, grid, max_stable_lr
from kit.mechanism.optimizers import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSprop

Point = tuple[float, float]
MOST_STEPS = 300
FAR = 10  # maps away from the middle: paths that far do not return
BANDS = 14
RUN = 20

OPTIMISERS: dict[str, tuple[Callable[..., Optimizer], str]] = {
    "SGD": (lambda p, lr, m: SGD(p, lr), "One step down the slope: lr × gradient."),
    "Momentum": (lambda p, lr, m: SGD(p, lr, m), "A ball with inertia: slopes that agree add up, zigzags cancel."),
    "Nesterov": (lambda p, lr, m: SGD(p, lr, m, nesterov=True), "Momentum that looks ahead, and so brakes earlier."),
    "AdaGrad": (lambda p, lr, m: AdaGrad(p, lr), "A rate for each direction, smaller the more it has moved."),
    "RMSprop": (lambda p, lr, m: RMSprop(p, lr), "AdaGrad that forgets, so it never slows to a halt."),
    "Adam": (lambda p, lr, m: Adam(p, lr, (m, 0.99)), "Momentum and RMSprop: about lr a step, whatever the slope."),
    "AdamW": (lambda p, lr, m: AdamW(p, lr, betas=(m, 0.99)), "Adam that also shrinks the point towards (0, 0)."),
}
USES_MOMENTUM = {"Momentum", "Nesterov", "Adam", "AdamW"}
LIMITS = {"SGD": "2 / c", "Momentum": "2 (1 + m) / c", "Nesterov": "2 (1 + m) / ((1 + 2 m) c)"}
PLACES = {
    "minimum": ("good", "Arrived at a minimum.", "The gradient is nearly zero and the ground bends up all around."),
    "saddle": ("bad", "Stuck at a saddle.", "The gradient is nearly zero, yet one direction still leads down."),
    "plateau": ("bad", "Stuck on a plateau.", "The gradient is nearly zero, for the ground is flat."),
}
TITLE = "<h1>SGD playground</h1><p>How optimisers walk downhill, one step at a time, and when they run away.</p>"
SIGNS = {"scale": "low to high", "ring": "start", "dot": "now", "dash": "next step"}
LEGEND = "".join(f'<span><i class="{sign}"></i> {meaning}</span>' for sign, meaning in SIGNS.items())
PICK = """element.addEventListener('click', event => {
    const map = event.target.closest('svg')
    if (!map) return
    const box = map.getBoundingClientRect()
    trigger('click', {across: (event.clientX - box.left) / box.width, down: (event.clientY - box.top) / box.height})
})"""


class Row(NamedTuple):
    """A point of the path, the value and gradient there, and the step that is taken from it."""

    step: int
    x: float
    y: float
    value: float
    gradient_x: float
    gradient_y: float
    update_x: float
    update_y: float


def descend(landscape: Landscape, optimiser: str, lr: float, momentum: float, start: Point, steps: int) -> list[Row]:
    """The path as rows, the start first. It ends early where it diverges: not finite, or `FAR` maps away."""
    point = torch.tensor(start, dtype=torch.float64)
    walker = OPTIMISERS[optimiser][0]([point], lr, momentum)
    rows: list[Row] = []
    while len(rows) <= steps and not (rows and lost(rows[-1], landscape)):
        before = point.clone()
        value, point.grad = landscape.function(point).item(), landscape.gradient(point)
        walker.step()
        rows.append(Row(len(rows), *before.tolist(), value, *point.grad.tolist(), *(point - before).tolist()))
    return rows


def lost(row: Row, landscape: Landscape) -> bool:
    """Whether the path has diverged: not finite, or `FAR` maps away from the middle."""
    reach = FAR * max(map(abs, landscape.bounds))
    return not all(map(math.isfinite, row)) or max(abs(row.x), abs(row.y)) > reach


def explain(landscape: Landscape, optimiser: str, lr: float, momentum: float, start: Point) -> str:
    """Why this learning rate is too large here; "" where it is not, or where the optimiser adapts it."""
    curvature = landscape.curvature or curvatures(landscape, torch.tensor(start, dtype=torch.float64))[1].item()
    if optimiser not in LIMITS or curvature <= 0:
        return ""
    inertia = 0.0 if optimiser == "SGD" else momentum
    bound = max_stable_lr(curvature, inertia, nesterov=optimiser == "Nesterov")
    if lr < bound:
        return ""
    where = "everywhere" if landscape.curvature else "at the start"
    given = f"the curvature c {where} is {curvature:.3g}" + (f" and momentum m is {inertia:g}" if inertia else "")
    factor = f" Each step multiplies the distance by 1 − {lr:g} × {curvature:.3g} = {number(1 - lr * curvature)}."
    text = (
        f"The learning rate {lr:g} is not below {LIMITS[optimiser]} = {bound:.3g}, the bound for {optimiser}: {given}."
    )
    return text + (factor if optimiser == "SGD" else "")


def verdict(landscape: Landscape, optimiser: str, lr: float, momentum: float, rows: list[Row]) -> tuple[str, str, str]:
    """The state of the path: a kind (good, bad, going), a headline, and the reason."""
    first, last = rows[0], rows[-1]
    why = explain(landscape, optimiser, lr, momentum, first[1:3])
    left, right, bottom, top = landscape.bounds
    if lost(last, landscape) and last.value < first.value:
        return "bad", f"Ran away downhill in {last.step} steps.", "This landscape has no lowest point that way."
    if lost(last, landscape):
        return "bad", f"Diverged after {last.step} steps.", why or "The steps are too long for ground this steep."
    if not (left <= last.x <= right and bottom <= last.y <= top):
        return "bad", "Off the map.", why or "The walk goes on where the map ends."
    if place := PLACES.get(classify_point(landscape, torch.tensor(last[1:3], dtype=torch.float64))):
        return place
    if last.step == 0:
        return "going", "At the start.", why or "Press Step or Run, or click the map to start elsewhere."
    if last.value > rows[-2].value:
        return "going", "That step went uphill.", why or "It was too long for the ground, or inertia carried it."
    return "going", "Going down.", why or f"The last step: height {number(rows[-2].value)} to {number(last.value)}."


@lru_cache
def ground(name: str) -> str:
    """Bands of equal height as SVG paths, low ones first, each with about the same area."""
    landscape = LANDSCAPES[name]
    points = grid(landscape.bounds, 81)
    heights = landscape.function(points)
    levels = heights.flatten().quantile(torch.linspace(0, 1, BANDS + 1, dtype=torch.float64)).tolist()
    x, y = (part.numpy() for part in across(points[0], points[1], landscape))
    bands = Figure().subplots().contourf(x, y, heights.numpy(), levels)
    return "".join(
        f'<path class="band" style="--high:{100 * place // (BANDS - 1)}%" d="{outline(path)}"/>'
        for place, path in enumerate(bands.get_paths())
    )


def outline(path) -> str:
    """A matplotlib path (codes 1: move, 2: line, 79: close) as an SVG path in whole units."""
    steps = zip(path.codes, path.vertices, strict=True)
    return "".join("Z" if code == 79 else f"{' ML'[code]}{x:.0f} {y:.0f}" for code, (x, y) in steps)


def across(x, y, landscape: Landscape):
    """Coordinates of the landscape as coordinates of the 1000 x 1000 picture, whose y axis points down."""
    left, right, bottom, top = landscape.bounds
    return 1000 * (x - left) / (right - left), 1000 * (top - y) / (top - bottom)


def draw(landscape: Landscape, rows: list[Row]) -> str:
    """The map as SVG: contours, ticks, the path with its current point, and a dashed line to the next one."""
    last = rows[-1]
    ahead = (last.x + last.update_x, last.y + last.update_y)
    points = [across(row.x, row.y, landscape) for row in rows if all(map(math.isfinite, row[1:3]))]
    places = [f"{x:.1f} {y:.1f}" for x, y in points]
    dots = "".join(f"M{place}h0" for place in places[:-1])
    marks = f'<path class="walk" d="M{" L".join(places)}"/><path class="dots" d="{dots}"/>'
    marks += f'<path class="start" d="M{places[0]}h0"/><path class="hole" d="M{places[0]}h0"/>'
    if all(map(math.isfinite, ahead)) and not lost(last, landscape):
        x, y = across(*ahead, landscape)
        marks += f'<path class="ahead" d="M{places[-1]} L{x:.1f} {y:.1f}"/>'
    marks += f'<path class="now" d="M{places[-1]}h0"/>'
    title = f"Map of the {landscape.name}: step {last.step} at ({last.x:.3g}, {last.y:.3g}), height {last.value:.3g}"
    frame = f'<svg class="map" viewBox="0 0 1000 1000" role="img" aria-label="{escape(title)}">'
    return f'{frame}{ground(landscape.name)}{ticks(landscape)}{marks}</svg><p class="legend">{LEGEND}</p>'


def ticks(landscape: Landscape) -> str:
    """Numbers inside the map's left and lower edge, and the names of the axes."""
    left, right, bottom, top = landscape.bounds
    text = '<text x="975" y="975" text-anchor="end">{}</text><text x="20" y="45">{}</text>'.format(*landscape.axes)
    for share in (0.25, 0.5, 0.75):
        x, y = number(left + share * (right - left)), number(bottom + share * (top - bottom))
        text += f'<text x="{1000 * share}" y="975" text-anchor="middle">{x}</text>'
        text += f'<text x="20" y="{1010 - 1000 * share}">{y}</text>'
    return f'<g class="ticks">{text}</g>'


def number(value: float, digits: int = 4) -> str:
    """A number with at most `digits` digits, and with a typographic minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def tell(landscape: Landscape, optimiser: str, lr: float, momentum: float, rows: list[Row]) -> str:
    """The state of the path and four numbers as HTML: step, position, height, slope."""
    kind, headline, why = verdict(landscape, optimiser, lr, momentum, rows)
    last = rows[-1]
    at, slope = f"({number(last.x, 3)}, {number(last.y, 3)})", math.hypot(last.gradient_x, last.gradient_y)
    tiles = {"step": last.step, "at": at, "height": number(last.value), "slope": number(slope)}
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles.items())
    words = f"<strong>{headline}</strong> {escape(why)}"
    return f'<dl class="tiles">{cells}</dl><p role="status" class="verdict {kind}">{words}</p>'


def tabulate(landscape: Landscape, rows: list[Row]) -> str:
    """The path as an HTML table, the newest step first."""
    x, y = landscape.axes
    names = ["step", x, y, "value", f"gradient {x}", f"gradient {y}", f"update {x}", f"update {y}"]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{row.step}</th>' + "".join(f"<td>{number(value)}</td>" for value in row[1:]) + "</tr>"
        for row in reversed(rows)
    )
    where = '<div class="numbers" tabindex="0" role="region" aria-label="Every step, newest first">'
    return f"{where}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def show(steps: int, name: str, optimiser: str, lr: float, momentum: float, x: float, y: float) -> tuple:
    """All outputs for the values of all controls: map, state, table, and the number of steps taken."""
    landscape = LANDSCAPES[name]
    rows = descend(landscape, optimiser, lr, momentum, (x, y), min(steps, MOST_STEPS))
    told = tell(landscape, optimiser, lr, momentum, rows)
    return draw(landscape, rows), told, tabulate(landscape, rows), rows[-1].step


def arrive(name: str, optimiser: str, momentum: float) -> tuple:
    """For a newly chosen landscape: its description, its default rate and start, and all outputs."""
    landscape = LANDSCAPES[name]
    (x, y), (left, right, bottom, top), names = landscape.start, landscape.bounds, landscape.axes
    start_x = gr.Slider(left, right, x, step=0.01, label=f"Start {names[0]}")
    start_y = gr.Slider(bottom, top, y, step=0.01, label=f"Start {names[1]}")
    about = f"<code>{landscape.formula}</code> {landscape.description}"
    return about, landscape.lr, start_x, start_y, *show(0, name, optimiser, landscape.lr, momentum, x, y)


def equip(optimiser: str) -> tuple:
    """For a newly chosen optimiser: its description, and the momentum slider, inactive where it has no effect."""
    return OPTIMISERS[optimiser][1], gr.Slider(interactive=optimiser in USES_MOMENTUM)


def pick(steps: int, name: str, optimiser: str, lr: float, momentum: float, event: gr.EventData) -> tuple:
    """A click on the map moves the start there."""
    left, right, bottom, top = LANDSCAPES[name].bounds
    x, y = left + event.across * (right - left), top - event.down * (top - bottom)
    return round(x, 2), round(y, 2), *show(steps, name, optimiser, lr, momentum, round(x, 2), round(y, 2))


def build() -> gr.Blocks:
    """The page. Its only state is the number of steps; everything else is in the controls."""
    name, optimiser, momentum = "stretched valley", "SGD", 0.9
    about, rate, x, y, *seen = arrive(name, optimiser, momentum)
    html = partial(gr.HTML, apply_default_css=False)
    with gr.Blocks(title="SGD playground", analytics_enabled=False) as page:
        html(TITLE, elem_classes="title")
        with gr.Row(elem_classes="desk"):
            with gr.Column(scale=5, min_width=320):
                picture = html(seen[0], js_on_load=PICK, elem_classes="picture")
                with gr.Row(elem_classes="buttons"):
                    buttons = gr.Button("Step", variant="primary"), gr.Button(f"Run {RUN}"), gr.Button("Reset")
                told = html(seen[1])
            with gr.Column(scale=4, min_width=320):
                place = gr.Dropdown(list(LANDSCAPES), value=name, label="Landscape", filterable=False)
                about = html(about, elem_classes="story")
                walker = gr.Radio(list(OPTIMISERS), value=optimiser, label="Optimiser", elem_classes="pills")
                trait = html(OPTIMISERS[optimiser][1], elem_classes="story")
                lr = gr.Slider(0.01, 2, rate, step=0.01, label="Learning rate")
                inertia = gr.Slider(0, 0.99, momentum, step=0.01, label="Momentum", interactive=False)
                x.render(), y.render()
        table = html(seen[2])
        chosen = [gr.State(0), place, walker, lr, inertia, x, y]
        seen = [picture, told, table, chosen[0]]
        wire(chosen, seen, buttons)
        on = partial(gr.on, queue=False, show_progress="hidden", trigger_mode="always_last")
        on(place.input, arrive, [place, walker, inertia], [about, lr, x, y, *seen])
        on(walker.input, equip, walker, [trait, inertia])
        on(picture.click, pick, chosen[:5], [x, y, *seen])
    return page


def wire(chosen: list, seen: list, buttons: tuple[gr.Button, gr.Button, gr.Button]) -> None:
    """Any button or control updates all outputs."""
    on = partial(gr.on, inputs=chosen, outputs=seen, queue=False, show_progress="hidden", trigger_mode="always_last")
    step, run, reset = buttons
    on(step.click, lambda steps, *rest: show(steps + 1, *rest))
    on(run.click, lambda steps, *rest: show(steps + RUN, *rest))
    on(reset.click, lambda steps, *rest: show(0, *rest))
    on([control.input for control in chosen[2:]], show)


def main(port: int = 7860) -> None:
    os.environ["GRADIO_RUN_HISTORY"] = "False"  # the browser would keep every map, and each click take longer
    # Gradio's file of this font in weight 600 lacks letters: bold is 700.
    font = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=font)
    try:
        css = Path(__file__).with_suffix(".css")
        build().launch(server_port=port, share=False, theme=theme, css_paths=css, footer_links=[])
    except OSError as error:
        raise KitError(f"port {port} cannot be used: {error}", fix="choose another: --port 7861") from error


if __name__ == "__main__":
    script(main)
