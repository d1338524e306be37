"""What `kit explain` does, as a function.

explain(Path("runs/photos"), step=17)                 # writes runs/photos/explain-17.html
"""

from pathlib import Path

from kit import bundle, data
from kit.console import say
from kit.errors import DataError
from kit.explain.finished import read_finished
from kit.explain.head import head_by_hand
from kit.explain.page import head_page, step_page
from kit.explain.recording import shapes_of
from kit.explain.replay import replay_step
from kit.explain.step import step_by_hand
from kit.files import check_parent, write_text
from kit.train.transfer import is_balanced

MARK = "<!-- kit explain adds its links here -->"


def explain(folder: Path, step: int = 1, out: Path | None = None) -> str:
    """Compute a step of the run in `folder` again by hand, write a page about it, and return the result in words.

    step: the number of a batch, from 1, over all phases; where the head alone was trained, that of a step of gradient
    descent by hand. out: the page, by default explain-STEP.html in the folder; report.html gets a link to it there.
    """
    if step < 1:
        raise DataError(f"there is no step {step}: steps are counted from 1", fix="--step 1")
    path = out or folder / f"explain-{step}.html"
    run = read_finished(folder)
    check_parent(path)
    if run.kept == "head":
        if is_balanced(run.recipe):
            problem = f"the head of {folder} was fitted with balanced weights, which are not computed by hand"
            raise DataError(problem, fix="explain a run without --class-weights and --sampler")
        say(f"{folder}: the head alone was trained, so step {step} is one of logistic regression by hand")
        learn = bundle.learner(folder, data.blocks(run.recipe).dataloaders(run.table))
        head = head_by_hand(learn, run, step)
        vocab, shapes = [str(name) for name in learn.dls.vocab], shapes_of(learn.model, run.recipe.input_size)
        write_text(path, head_page(run, head, vocab, shapes))
        losses = f"loss {head.losses[step - 1]:.4g} before step {step}, {head.losses[-1]:.4g} after {len(head.losses)}"
        found = f"{losses}; gradients by hand and by PyTorch differ by at most {head.autograd:.1g}"
    else:
        moment = replay_step(run, step)
        by_hand = step_by_hand(moment)
        write_text(path, step_page(moment, by_hand))
        same = "equal in every bit" if by_hand.first is None else f"not equal: {by_hand.first}"
        found = f"step {step} ({moment.phase}), loss {by_hand.before:.4g}: by hand and by PyTorch {same}"
    if out is None:
        add_link(folder / "report.html", path, step)
    return f"{found}\n{path}"


def add_link(report: Path, page: Path, step: int) -> None:
    """Add a link to the page to the report, once."""
    link = f'<a href="{page.name}">Step {step}, by hand</a>'
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    if MARK in text and link not in text:
        write_text(report, text.replace(MARK, f"{link} {MARK}"))
