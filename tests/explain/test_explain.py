"""kit explain: a step of a finished run by hand is PyTorch's in every bit, and the page shows both."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from accessibility import assert_accessible
from PIL import Image
from typer.testing import CliRunner

import kit
from kit.cli.main import application
from kit.errors import DataError
from kit.explain import explain, read_finished, replay_step, step_by_hand

ROOT = Path(__file__).parents[2]


def trained(source, recipe, folder, **options):
    return kit.fine_tune(source, recipe, out=folder, examples=False, onnx=False, **options).folder


def labels_csv(folder: Path, shapes: Path, head: list[str], cells) -> str:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", *head])
        paths = sorted(shapes.rglob("*.png"))
        rows.writerows([path.relative_to(shapes).as_posix(), *cells(path)] for path in paths)
    return str(folder / "labels.csv")


def of_task(task: str, shapes: Path, folder: Path) -> dict:
    """The options of a run of a task on the drawn shapes."""
    if task == "multilabel":
        has = lambda path: ["".join(["round;"] * (path.parent.name == "circle") + ["even"] * (int(path.stem) % 2 == 0))]  # noqa: E731
        return {"task": task, "labels": labels_csv(folder, shapes, ["label"], has), "valid": 0.4}
    if task == "regression":
        numbers = lambda path: [int(path.stem) * 10, len(path.parent.name) / 10]  # noqa: E731
        labels = labels_csv(folder, shapes, ["size", "width"], numbers)
        return {"task": task, "labels": labels, "targets": "size,width", "valid": 0.4}
    return {}


@pytest.fixture(scope="module")
def plain(light, shapes, tmp_path_factory) -> Path:
    """A run in fp32 with a frozen phase and two epochs of all layers."""
    recipe = replace(light, precision="fp32", epochs=2)
    return trained(shapes, recipe, tmp_path_factory.mktemp("explain") / "plain")


@pytest.fixture(scope="module")
def with_head(quick, shapes, tmp_path_factory) -> Path:
    """A run with a head from features alone."""
    return trained(shapes, quick, tmp_path_factory.mktemp("explain") / "head")


def assert_equal_in_every_bit(folder: Path, step: int):
    moment = replay_step(read_finished(folder), step)
    found = step_by_hand(moment)
    assert found.first is None
    assert sum(row.differ for row in found.compared) == 0
    assert {"gradients", "weights after the step", "loss", "learning rates"} <= {row.kind for row in found.compared}
    return moment, found


@pytest.mark.parametrize("step", [1, 4, 5, 9])
def test_each_phase_is_equal_in_every_bit_on_a_cpu(plain, step):
    moment, found = assert_equal_in_every_bit(plain, step)
    frozen = step <= 4
    assert moment.phase == ("frozen" if frozen else "whole")
    convolutions = [row for row in found.rows if row.kind.startswith("Conv")]
    assert all(row.frozen == frozen and (row.update == 0) == frozen for row in convolutions)
    norms = [row for row in found.rows if "Norm" in row.kind]
    assert norms
    assert not any(row.frozen for row in norms)
    assert len(moment.checked) == {1: 1, 4: 1, 5: 2, 9: 3}[step]


def test_loss_gradient_and_head_by_hand_differ_from_autograd_by_rounding_alone(plain):
    _, found = assert_equal_in_every_bit(plain, 6)
    assert found.loss.value == pytest.approx(found.loss.theirs, rel=1e-5)
    assert found.loss.largest < 1e-6
    with_weights = [row for row in found.loss.head if row.to_parameters]
    assert [row.kind for row in with_weights] == ["Linear", "BatchNorm1d", "Linear", "BatchNorm1d"]
    assert all(row.largest < 1e-4 * max(1, row.to_parameters) for row in with_weights)
    assert found.norms
    assert all(norm.largest < 1e-4 for norm in found.norms)
    assert found.after != found.before


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"accumulate": 2, "clip": 0.1},
        {"label_smoothing": 0.1, "progressive": True},
        {"class_weights": "balanced"},
        {"precision": "bf16"},
        {"weights": "none", "patience": 1},
        {"weights": "none", "arch": "test_convnext"},
    ],
    ids=lambda options: "-".join(options),
)
def test_mixup_accumulation_and_other_options_are_equal_in_every_bit(light, shapes, tmp_path, options):
    recipe = replace(light, **({"precision": "fp32"} | options))
    folder = trained(shapes, recipe, tmp_path / "run")
    moment, found = assert_equal_in_every_bit(folder, 5)
    if options == {"class_weights": "balanced"}:
        assert found.loss is None
    elif recipe.precision == "fp32":
        assert found.loss.value == pytest.approx(found.loss.theirs, rel=1e-4)
        assert found.loss.largest < 1e-5
    assert len(moment.batches) == recipe.accumulate
    explain(folder, 5)


@pytest.mark.slow
def test_a_batch_whose_gradients_were_never_used_is_refused(light, shapes, tmp_path):
    folder = trained(shapes, replace(light, accumulate=3), tmp_path / "run")
    with pytest.raises(DataError, match="batch 4 belongs to no update: its phase ended before 3 were gathered"):
        explain(folder, 4)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_several_classes_and_numbers_are_equal_in_every_bit(light, shapes, tmp_path, task):
    recipe = replace(light, precision="fp32", **of_task(task, shapes, tmp_path))
    folder = trained(shapes, recipe, tmp_path / "run")
    moment, found = assert_equal_in_every_bit(folder, 2)
    assert found.loss.value == pytest.approx(found.loss.theirs, rel=1e-5)
    assert found.loss.largest < 1e-6
    explain(folder, 2)
    page = (folder / "explain-2.html").read_text(encoding="utf-8")
    assert all(name in page for name in moment.vocab)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_a_head_by_hand_goes_to_the_head_of_the_run(quick, shapes, tmp_path, task):
    folder = trained(shapes, replace(quick, **of_task(task, shapes, tmp_path)), tmp_path / "run")
    words = explain(folder, 3)
    page = (folder / "explain-3.html").read_text(encoding="utf-8")
    assert float(re.search(r"differ by at most (\S+)", words)[1]) < 1e-12
    away = re.search(r"no prediction is more than ([\d.]+)(?: × 10⁻(.))? from", page)
    assert float(away[1]) * 10 ** -"⁰¹²³⁴⁵⁶⁷⁸⁹".index(away[2] or "⁰") < 0.01


@pytest.mark.slow
def test_all_layers_after_a_head_from_features_show_both(shapes, light, tmp_path):
    folder = trained(shapes, replace(light, layers="all", epochs=2, precision="fp32"), tmp_path / "run")
    moment, found = assert_equal_in_every_bit(folder, 3)
    assert moment.head.n == 18
    assert moment.head.autograd < 1e-12
    assert found.norms == []
    explain(folder, 3)
    page = (folder / "explain-3.html").read_text(encoding="utf-8")
    assert "the head was learned by logistic regression" in page
    assert "batch norms were in evaluation mode" in page


def test_the_command_writes_a_page_and_a_link_in_the_report(plain):
    done = CliRunner().invoke(application(), ["explain", str(plain), "--step", "6"], catch_exceptions=False)
    assert "by hand and by PyTorch equal in every bit" in done.stdout
    page = (plain / "explain-6.html").read_text(encoding="utf-8")
    assert "the same in every bit" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    explain(plain, 6)
    assert (plain / "report.html").read_text(encoding="utf-8").count(
        '<a href="explain-6.html">Step 6, by hand</a>'
    ) == 1


def test_the_page_names_the_lines_of_kit_mechanism(plain, with_head):
    explain(plain, 6)
    explain(with_head, 2)
    text = "".join(
        (folder / name).read_text() for folder, name in ((plain, "explain-6.html"), (with_head, "explain-2.html"))
    )
    named = set(re.findall(r"<code>(kit/mechanism/\w+\.py):(\d+) ([\w.]+)</code>", text))
    assert len(named) > 20
    for path, line, name in named:
        code = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1 :]
        assert name.split(".")[-1] in next(row for row in code if not row.lstrip().startswith("@"))


def test_a_head_alone_is_explained_from_its_features(with_head):
    words = explain(with_head, 2)
    assert "loss" in words
    page = (with_head / "explain-2.html").read_text(encoding="utf-8")
    assert "All layers were not trained: as asked" in page
    assert page.count("<img") > 3


@pytest.mark.parametrize("step", [0, 99])
def test_a_step_that_was_not_taken_is_refused(plain, step):
    with pytest.raises(DataError, match=r"no step (0|99)"):
        explain(plain, step)


def test_other_images_and_other_folders_are_refused(light, shapes, tmp_path, plain):
    with pytest.raises(DataError, match="is no run folder"):
        explain(shapes)
    table = (plain / "table.csv").read_text()
    first = re.search(r"^(\S+?\.png),", table, re.MULTILINE)[1]
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("recipe.json", "result.json", "history.csv"):
        (changed / name).write_text((plain / name).read_text())
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    (changed / "table.csv").write_text(table.replace(first, str(tmp_path / "other.png")))
    with pytest.raises(DataError, match=r"1 images are not those that .* was trained on"):
        explain(changed)
    (changed / "table.csv").write_text(table.replace(first, str(tmp_path / "gone.png")))
    with pytest.raises(DataError, match=r"1 of the 24 images .* are gone"):
        explain(changed)


def test_a_replay_with_another_loss_is_not_called_the_run(plain, tmp_path):
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("recipe.json", "result.json", "history.csv", "table.csv"):
        (changed / name).write_text((plain / name).read_text())
    (changed / "recipe.json").write_text((plain / "recipe.json").read_text().replace('"seed": 42', '"seed": 43'))
    with pytest.raises(DataError, match=r"the replay is not the run: in epoch 1 the train_loss is"):
        explain(changed)


def test_runs_of_several_processes_and_of_half_precision_are_refused(plain, tmp_path):
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("recipe.json", "result.json", "history.csv", "table.csv"):
        (changed / name).write_text((plain / name).read_text())
    saved = json.loads((plain / "recipe.json").read_text())
    for chosen, text in (({"processes": 2}, "by 2 processes"), ({"precision": "fp16"}, "trained in fp16")):
        (changed / "recipe.json").write_text(json.dumps(saved | {"chosen": saved["chosen"] | chosen}))
        with pytest.raises(DataError, match=text):
            explain(changed)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_pages_fit_a_phone_and_a_screen_in_light_and_dark(plain, with_head, chromium, width, scheme):
    for folder, step in ((plain, 6), (with_head, 2)):
        explain(folder, step)
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.goto((folder / f"explain-{step}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert_accessible(page)
        page.close()
