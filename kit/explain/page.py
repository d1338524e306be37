"""The page about one step: values for the template explain.html, in which each number names the code that made it.

step_page(moment, step_by_hand(moment)); head_page(run, head, vocab, shapes)     # the text of one HTML file each
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from kit.data.images import fit_image, open_image
from kit.errors import ImageError
from kit.explain.finished import Finished
from kit.explain.head import HeadByHand
from kit.explain.recording import Shape
from kit.explain.replay import Moment
from kit.explain.step import LayerRow, StepByHand
from kit.mechanism import layers, linear_probe, loop, optimizers, schedules, trace, transfer
from kit.tasks.text import CLASSIFICATION, MULTILABEL
from kit.views.pictures import MIDDLE, data_url
from kit.views.render import render_template

PHOTOS, SIDE, MOST_ROWS, MOST_NORMS = 9, 168, 5, 8
WIDTH, HEIGHT = 600.0, 150.0
PARTS = {2: ["body", "head"], 3: ["lower body", "upper body", "head"]}
BY_HAND = {
    "cycle": schedules.one_cycle,
    "scheduler": loop.ParamScheduler.before_batch,
    "depths": transfer.discriminative_lrs,
    "body": transfer.create_body,
    "head": transfer.create_head,
    "groups": transfer.param_groups,
    "freeze": transfer.freeze_to,
    "batch": loop.Learner.one_batch,
    "accumulate": loop.GradientAccumulation.before_step,
    "clip": loop.GradientClip.before_step,
    "trace": trace.Trace.after_step,
    "difference": trace.first_difference,
    "adam": optimizers.Adam.update,
    "decay": optimizers.Optimizer._decay,
    "remember": layers.BatchNorm._statistics,
    "descend": linear_probe.descend,
    "step_size": linear_probe.step_size,
    "head_gradient": linear_probe.logistic_gradient,
}


def source(code: Callable) -> str:
    """Where a function or class of `kit.mechanism` is: "kit/mechanism/optimizers.py:127 Adam.update"."""
    file = Path(inspect.getsourcefile(code))
    return f"kit/mechanism/{file.name}:{inspect.getsourcelines(code)[1]} {code.__qualname__}"


def number(value: float, digits: int = 4) -> str:
    """A number with some significant digits, small and large ones with a power of ten: 0.01234, 1.23 × 10⁻⁷."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    power = math.floor(math.log10(abs(value)))
    if -4 <= power < 6:
        return f"{value:.{max(0, digits - 1 - power)}f}".replace("-", "−")
    rounded, power = f"{value:.{min(2, digits - 1)}e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{rounded} × 10{raised}".replace("-", "−")


def polyline(values: Sequence[float], low: float, high: float) -> str:
    """The points of an SVG polyline, 600 wide and 150 high."""
    spread, last = (high - low) or 1.0, max(1, len(values) - 1)
    heights = (HEIGHT * (1 - (value - low) / spread) for value in values)
    return " ".join(f"{WIDTH * place / last:.1f},{height:.1f}" for place, height in enumerate(heights))


def step_page(moment: Moment, step: StepByHand) -> str:
    """The page about a step of training on images."""
    run, batch, parts = moment.run, moment.batch, PARTS[len(step.plan.lr_max)]
    epoch, epochs, place, batches = batch.progress_at
    where = f"batch {place + 1} of {batches} in epoch {epoch + 1} of {epochs}, phase “{moment.phase}”"
    by = {name: source(code) for name, code in BY_HAND.items()}
    if step.loss:
        by |= {"loss": source(type(step.loss.loss)), "loss_gradient": source(type(step.loss.loss).backward)}
    top = max(step.plan.lr_max)
    return render_template(
        "explain.html",
        title=f"Step {moment.number} of the run {run.folder.resolve().name}",
        subtitle=f"{where}; {run.chosen['arch']}, {len(batch.x)} images of {batch.x.shape[-1]} pixels a side",
        run=run,
        moment=moment,
        step=step,
        by=by,
        source=source,
        number=number,
        parts=parts,
        rates=[
            {"name": name, "points": polyline(line, 0, top), "now": step.values[f"lr of group {2 * part}"]}
            for part, (name, line) in enumerate(zip(parts, step.lines, strict=True))
        ],
        momentum=polyline(step.momenta, 0.8, 1.0),
        cards=step_cards(moment, step),
        stages=stages(tuple(batch.x.shape), step.shapes),
        dots=dots(step.rows),
        weight=one_weight(moment, step),
        norms=sorted(step.norms, key=lambda norm: -norm.moved)[:MOST_NORMS],
        head=moment.head,
        curve=moment.head and curve(moment.head),
        left_out=left_out(moment),
    )


def head_page(run: Finished, head: HeadByHand, vocab: Sequence[str], shapes: list[Shape]) -> str:
    """The page about a step of a head that was learned from features. shapes: as `shapes_of` gives them."""
    return render_template(
        "explain.html",
        title=f"Step {head.step} of the head of the run {run.folder.resolve().name}",
        subtitle=f"{run.chosen['arch']}; {head.features} features of each of {head.n} training images",
        run=run,
        moment=None,
        step=None,
        by={name: source(code) for name, code in BY_HAND.items()},
        source=source,
        number=number,
        cards=head_cards(head, vocab),
        stages=stages((1, 3, run.recipe.input_size, run.recipe.input_size), shapes),
        head=head,
        curve=curve(head),
        weight=head_weight(head, vocab),
    )


# Photos ---------------------------------------------------------------------------------------------------------------


def step_cards(moment: Moment, step: StepByHand) -> list[dict[str, Any]]:
    """The first photos of the batch as the network got them, each with its outputs and its loss by hand."""
    spec, found, loss = moment.spec.weights, [], step.loss
    mean, std = (torch.tensor(one).reshape(3, 1, 1) for one in (spec.mean, spec.std))
    for place, x in enumerate(moment.batch.x[:PHOTOS].cpu().float()):
        pixels = (255 * (x * std + mean).clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        card = {"source": data_url(picture), "label": label_of(moment, place), "rows": [], "loss": None}
        if loss:
            given = loss.predictions if isinstance(loss.loss, layers.MeanSquaredError) else loss.outputs
            one = slice(place, place + 1)
            card["loss"] = float(type(loss.loss)()(given[one], loss.targets[one]))
            values = loss.outputs, loss.predictions, loss.targets, loss.gradient
            card["rows"] = output_rows(moment.vocab, *(value[place].tolist() for value in values))
        found.append(card)
    return found


def head_cards(head: HeadByHand, vocab: Sequence[str]) -> list[dict[str, Any]]:
    """The photos with the largest errors at the step."""
    errors, found = (head.predictions - head.targets).abs().amax(1), []
    for place in errors.argsort(descending=True)[:PHOTOS].tolist():
        try:
            picture = fit_image(open_image(head.paths[place], at_least=SIDE), SIDE, MIDDLE)
        except ImageError:
            continue
        prediction, target = head.predictions[place], head.targets[place]
        values = [None] * len(vocab), prediction.tolist(), target.tolist(), ((prediction - target) / head.n).tolist()
        rows = output_rows(vocab, *values)
        found.append({"source": data_url(picture), "label": head.labels[place], "rows": rows, "loss": None})
    return found


def output_rows(vocab: Sequence[str], *values: Sequence[Any]) -> list[dict[str, Any]]:
    """The outputs with the largest errors, in the order of the classes: output, prediction, target, gradient."""
    rows = [
        {"name": name, "output": output, "prediction": prediction, "target": target, "gradient": gradient}
        for name, output, prediction, target, gradient in zip(vocab, *values, strict=True)
    ]
    shown = sorted(rows, key=lambda row: -abs(row["prediction"] - row["target"]))[:MOST_ROWS]
    return [row for row in rows if row in shown]


def label_of(moment: Moment, place: int) -> str:
    """The label of an image of the batch in words; with mixup and cutmix in shares."""
    vocab, batch, task = moment.vocab, moment.batch, moment.run.recipe.task
    y = batch.y[place]
    if task == CLASSIFICATION and batch.blended:
        others, share = batch.blended
        share = float(share.expand(len(batch.y))[place])
        if y == others[place]:
            return vocab[int(y)]
        return f"{share:.0%} {vocab[int(y)]}, {1 - share:.0%} {vocab[int(others[place])]}"
    if task == CLASSIFICATION:
        return vocab[int(y)]
    named = zip(vocab, y.tolist(), strict=True)
    if task == MULTILABEL:
        return ", ".join(name if value == 1 else f"{value:.0%} {name}" for name, value in named if value) or "none"
    return ", ".join(f"{name} {value:.4g}" for name, value in named)


# Pictures -------------------------------------------------------------------------------------------------------------


def stages(images: tuple[int, ...], shapes: Iterable[Shape]) -> list[dict[str, Any]]:
    """The shapes of one image on its way through the network, each with the side of its square in the picture."""
    found = [{"name": "image", "shape": images[1:]}] + [{"name": kind, "shape": shape[1:]} for kind, shape in shapes]
    for one in found:
        side = one["shape"][-1] if len(one["shape"]) == 3 else 1
        one["side"] = round(10 + 58 * math.log2(1 + side) / math.log2(1 + images[-1]))
    return found


def dots(rows: Sequence[LayerRow]) -> list[dict[str, Any]]:
    """Two pictures on a logarithmic scale, a dot for each layer: size of gradients, and of updates beside weights."""
    pictures = []
    for name, what in (
        ("gradient", lambda row: row.gradient),
        ("update", lambda row: row.update / row.weight if row.weight else 0.0),
    ):
        values = [what(row) for row in rows]
        logs = [math.log10(value) for value in values if value > 0]
        low, high = (math.floor(min(logs)), math.ceil(max(logs) + 1e-9)) if logs else (0, 1)
        lines = [HEIGHT * place / (high - low) for place in range(high - low + 1)]
        ends = {"low": number(10.0**low, 1), "high": number(10.0**high, 1)}
        places = [
            {
                "x": 20 + (WIDTH - 40) * place / max(1, len(rows) - 1),
                "y": HEIGHT * (1 - (math.log10(value) - low) / (high - low)) if value > 0 else HEIGHT,
                "part": row.part,
                "title": f"{row.name} {row.kind}: {number(value)}",
            }
            for place, (row, value) in enumerate(zip(rows, values, strict=True))
            if not row.frozen
        ]
        pictures.append({"name": name, "dots": places, "lines": lines} | ends)
    return pictures


def curve(head: HeadByHand) -> dict[str, Any]:
    """The loss of the head over the steps, on logarithmic scales: points, and where the shown step is."""
    count = len(head.losses)
    wanted = sorted({min(count, round(count ** (place / 120))) for place in range(121)})
    low, high = min(head.losses), max(head.losses)

    def at(step: int) -> tuple[float, float]:
        x = WIDTH * math.log(step) / math.log(max(2, count))
        return x, HEIGHT * (1 - (head.losses[step - 1] - low) / ((high - low) or 1.0))

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, wanted))
    return {"points": points, "at": at(head.step), "low": low, "high": high, "count": count}


# One weight -----------------------------------------------------------------------------------------------------------


def one_weight(moment: Moment, step: StepByHand) -> dict[str, Any]:
    """The weight of the last layer that changed most, and all numbers of its update."""
    name = [row.name for row in step.rows][-1] + ".weight"
    before, after = dict(moment.model.named_parameters())[name].detach(), step.values[f"parameter {name}"]
    place = tuple(one.item() for one in torch.unravel_index((after - before).abs().argmax(), before.shape))
    state = moment.state.get(name, {})
    group = 2 * step.rows[-1].part
    values = {key: float(step.values[f"{key} of {name}"][place]) for key in ("gradient", "mean", "squares")}
    return values | {
        "name": name,
        "place": place,
        "output": moment.vocab[place[0]],
        "old_mean": float(state["mean"][place]) if "mean" in state else 0.0,
        "old_squares": float(state["squares"][place]) if "squares" in state else 0.0,
        "age": int(step.values[f"step of {name}"]),
        "rate": step.values[f"lr of group {group}"],
        "momentum": step.values["momentum"],
        "before": float(before[place]),
        "after": float(after[place]),
    }


def head_weight(head: HeadByHand, vocab: Sequence[str]) -> dict[str, Any]:
    """The weight with the largest gradient."""
    gradient = head.gradient[:, :-1]
    place = tuple(one.item() for one in torch.unravel_index(gradient.abs().argmax(), gradient.shape))
    now = {"gradient": float(gradient[place]), "before": float(head.weight[place]), "place": place}
    return now | {"output": vocab[place[0]], "after": now["before"] - head.rate * now["gradient"]}


def left_out(moment: Moment) -> list[str]:
    """What of the step is not computed by hand, in words."""
    recipe, found = moment.run.recipe, []
    found.append("The convolutions of the body and their gradients: both sides use PyTorch's.")
    found.append("Augmentation, mixup, CutMix and smaller images: the batch is taken as the network got it.")
    if recipe.class_weights != "none":
        found.append("The loss with weights of classes: it is PyTorch's, and its gradient is not shown.")
    if recipe.compile:
        found.append("Compilation (torch.compile), which adds in another order, so the last bits can differ.")
    return found
