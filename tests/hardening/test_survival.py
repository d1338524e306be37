"""HARDENING rows 37, 46, 47, 53: what happens around a run while it trains costs nothing that was learned."""

import errno
import json
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import with_paths_of_this_machine
from fastai.vision.all import Callback

import kit
from kit import bundle, data, evaluate, features
from kit.cross_validation import cross_validate
from kit.data.cached_dl import CachedDL
from kit.data.datablock import fit_workers
from kit.errors import DataError, ImageError, OutputError, TrainingError


def same(first: kit.Run, second: kit.Run) -> bool:
    weights = (run.learner.model.state_dict() for run in (first, second))
    return all(torch.equal(one, other) for one, other in zip(*(state.values() for state in weights), strict=True))


class At(Callback):
    """Does something once, after the first training step."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def after_step(self):
        action, self.action = self.action, lambda: None
        action()


# 46: images ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(shapes, tmp_path, monkeypatch):
    """A folder of images to destroy, and a cache of its own."""
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(shapes, tmp_path / "own"))


def paths(folder: Path, split: str) -> list[Path]:
    table = data.table(folder)
    return [Path(path) for path in table.loc[table["split"] == split, "path"]]


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def before(monkeypatch, name: str, action) -> None:
    """Do something once before a public function of kit is called."""
    package, function = name.split(".")
    module = {"bundle": bundle, "data": data, "evaluate": evaluate, "features": features}[package]
    plain, left = getattr(module, function), [action]

    def wrapped(*args, **options):
        if left:
            left.pop()()
        return plain(*args, **options)

    monkeypatch.setattr(module, function, wrapped)


RECIPES = {
    "head": {"layers": "head"},
    "auto": {"layers": "auto"},
    "whole": {"layers": "whole"},
    "files": {"layers": "whole", "cache": "none"},
    "workers": {"layers": "whole", "cache": "none", "workers": 2},
}


@pytest.mark.parametrize("mode", RECIPES)
@pytest.mark.parametrize(
    ("moment", "split"), [("data.blocks", "train"), ("evaluate.evaluate", "valid"), ("bundle.save", "valid")]
)
def test_46_an_image_that_vanishes_costs_itself_and_not_the_training(
    own, light, tmp_path, monkeypatch, mode, split, moment
):
    victim = paths(own, split)[0]
    before(monkeypatch, moment, victim.unlink)
    run = kit.fine_tune(own, replace(light, **RECIPES[mode]), out=tmp_path / "run", onnx=False)
    assert list(result_of(run.folder)["missing"]) == [str(victim)]
    assert run.evaluation.n in (5, 6)
    assert run.evaluation.n == result_of(run.folder)["n"] == len(pd.read_csv(run.folder / "predictions.csv"))
    note = f"note: 1 image vanished or changed during the run: {victim} can no longer be read (No such file or"
    assert [line for line in run.lines() if line.startswith(note)]
    assert f"{run.evaluation.n} of 6 validation images were measured" in "\n".join(run.lines())
    assert str(victim.name) in (run.folder / "report.html").read_text()
    assert bundle.load(run.folder).predict([paths(own, "train")[1]])[0].error is None


@pytest.mark.parametrize("mode", RECIPES)
def test_46_an_image_that_vanishes_while_it_trains_costs_itself(own, light, tmp_path, mode):
    if mode == "head":
        pytest.skip("a head is trained in one step")
    victims = [paths(own, split)[0] for split in ("train", "valid")]
    at = At(lambda: [victim.unlink() for victim in victims])
    recipe = replace(light, **RECIPES[mode], epochs=2)
    run = kit.fine_tune(own, recipe, out=tmp_path / "run", onnx=False, cbs=[at])
    if mode != "auto":  # whose trial decides for the head
        assert sorted(result_of(run.folder)["missing"]) == sorted(map(str, victims))
        assert run.evaluation.n == (6 if mode == "whole" else 5)
        assert result_of(run.folder)["stopped"] is None


@pytest.mark.parametrize("mode", ["head", "auto", "whole"])
def test_46_a_drive_that_is_gone_after_training_costs_pictures_alone(own, light, tmp_path, monkeypatch, mode):
    before(monkeypatch, "evaluate.evaluate", lambda: shutil.rmtree(own))
    run = kit.fine_tune(own, replace(light, **RECIPES[mode]), out=tmp_path / "run")
    assert run.evaluation.n == 6
    assert len(result_of(run.folder)["missing"]) == 24
    assert bundle.load(run.folder).vocab == ["circle", "square", "triangle"]


@pytest.mark.parametrize("mode", ["files", "workers"])
def test_46_a_drive_that_is_gone_while_files_are_read_leaves_weights_and_history(own, light, tmp_path, mode):
    recipe = replace(light, **RECIPES[mode], epochs=2)
    with pytest.raises(DataError, match="no validation image can be read any more; the weights are in") as caught:
        kit.fine_tune(own, recipe, out=tmp_path / "run", cbs=[At(lambda: shutil.rmtree(own))])
    assert "connect their drive" in caught.value.fix
    assert {"history.csv", "weights.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_46_training_stops_where_a_fifth_of_the_images_is_gone_and_saves_what_was_learned(own, light, tmp_path):
    victims = paths(own, "train")[:11]
    at = At(lambda: [victim.unlink() for victim in victims])
    with pytest.raises(TrainingError, match=r"images can no longer be opened: they filled \d of 4 batches") as caught:
        kit.fine_tune(own, replace(light, **RECIPES["files"], epochs=9), out=tmp_path / "run", onnx=False, cbs=[at])
    assert f"the weights from before it are in {tmp_path / 'run'}" in caught.value.fix
    assert len(result_of(tmp_path / "run")["missing"]) == 11


@pytest.mark.parametrize("moment", ["evaluate.evaluate", "bundle.save"])
@pytest.mark.parametrize("mode", ["head", "whole", "files"])
def test_46_an_image_that_is_replaced_is_an_error_after_all_is_saved(own, light, tmp_path, monkeypatch, mode, moment):
    victim, other = paths(own, "valid")[:2]
    before(monkeypatch, moment, lambda: shutil.copy(other, victim))
    with pytest.raises(TrainingError, match=f"images were replaced during the run: {victim} changed since") as caught:
        kit.fine_tune(own, replace(light, **RECIPES[mode]), out=tmp_path / "run", onnx=False)
    assert f"are in {tmp_path / 'run'}" in caught.value.fix
    assert list(result_of(tmp_path / "run")["missing"]) == [str(victim)]
    assert bundle.load(tmp_path / "run").vocab == ["circle", "square", "triangle"]


@pytest.mark.parametrize("mode", ["head", "whole"])
def test_46_an_image_that_is_replaced_before_it_is_decoded_is_an_error_that_names_it(own, light, mode, monkeypatch):
    victim, other = paths(own, "train")[:2]
    before(monkeypatch, "data.blocks", lambda: shutil.copy(other, victim))
    with pytest.raises(ImageError, match=f"{victim} changed since it was scanned"):
        kit.fine_tune(own, replace(light, **RECIPES[mode]), onnx=False)


def test_46_folds_that_are_done_are_kept_where_the_images_vanish(own, light, tmp_path):
    steps = []

    class InFold3(Callback):
        def before_fit(self):
            steps.append(len(steps))
            if len(steps) == 5:  # two phases a fold
                shutil.rmtree(own)

    recipe = replace(light, **RECIPES["files"])
    with pytest.raises((DataError, TrainingError)):
        cross_validate(own, recipe, folds=4, out=tmp_path / "run", cbs=[InFold3()])
    result = result_of(tmp_path / "run")
    assert len(result["folds"]) == 2
    assert result["n"] == 12
    assert len(result["missing"]) == 24
    assert "only 2 of 4 folds were trained" in (tmp_path / "run" / "report.html").read_text()


def test_46_an_image_that_vanishes_between_folds_costs_itself(own, light, tmp_path):
    victim = paths(own, "train")[0]
    found = cross_validate(
        own, replace(light, **RECIPES["whole"]), folds=3, out=tmp_path / "run", cbs=[At(victim.unlink)]
    )
    assert found.evaluation.n in (23, 24)
    assert list(result_of(tmp_path / "run")["missing"]) == [str(victim)]


# 37 and 46: disks ----------------------------------------------------------------------------------------------------


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_37_a_disk_without_room_for_the_bundle_is_told_before_training(shapes, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.bundle.write.OTHER_BYTES", 10**18)
    with pytest.raises(OutputError, match="has no room for the 1000000000000 MB"):
        kit.fine_tune(shapes, tiny, out=tmp_path / "run", cbs=[At(lambda: pytest.fail("it trained"))])
    assert not (tmp_path / "run").exists()


def test_37_a_bundle_that_cannot_be_written_is_written_to_the_temporary_folder(shapes, tiny, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    plain, out = Path.write_bytes, tmp_path / "run"
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: (full if out in path.parents else plain)(path, data))
    with pytest.raises(OutputError, match="cannot be written: No space left on device") as caught:
        kit.fine_tune(shapes, tiny, out=out, onnx=False)
    assert bundle.load(caught.value.fix.partition("the bundle is in ")[2]).vocab == ["circle", "square", "triangle"]


def test_46_a_full_temporary_folder_does_not_end_the_scan(shapes, monkeypatch):
    expected = data.table(shapes)
    monkeypatch.setattr("kit.data.scan.allocate", full)
    pd.testing.assert_frame_equal(data.table(shapes), expected)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."),
    ],
)
def test_46_processes_that_cannot_load_images_end_the_training_and_not_what_was_learned(
    shapes, tiny, tmp_path, monkeypatch, error
):
    plain, armed = CachedDL.__iter__, []

    def batches(loader):
        if armed:
            raise armed.pop()
        yield from plain(loader)

    monkeypatch.setattr(CachedDL, "__iter__", batches)
    with pytest.raises(TrainingError, match="images cannot be loaded: .*(No space left|Bus error)") as caught:
        kit.fine_tune(shapes, tiny, out=tmp_path / "run", onnx=False, cbs=[At(lambda: armed.append(error))])
    assert caught.value.fix.startswith("--workers 0, or more room in /dev/shm")
    assert bundle.load(tmp_path / "run").vocab == ["circle", "square", "triangle"]


def test_46_fewer_processes_load_images_where_shared_memory_is_small(shapes, light, monkeypatch, capsys):
    dls = data.blocks(replace(light, workers=2)).dataloaders(data.table(shapes))
    monkeypatch.setattr("kit.data.datablock.shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 4 * 3 * 32**2 + 5))
    fit_workers(dls, 32)
    assert "note: 1 processes load images instead of 2" in capsys.readouterr().err
    assert [loader.fake_l.num_workers for loader in dls.loaders] == [1, 1]


@pytest.mark.parametrize("place", ["os.utime", "pathlib.Path.mkdir", "pathlib.Path.unlink"])
def test_46_a_cache_that_is_read_only_is_no_error(own, light, tmp_path, monkeypatch, place):
    features_known = kit.fine_tune(own, replace(light, layers="head"), out=tmp_path / "first", onnx=False)
    with monkeypatch.context() as patch:
        plain = pathlib.Path.mkdir

        def refuse(path, *arguments, **options):
            if str(tmp_path / "cache") in str(path):
                raise OSError(errno.EROFS, "Read-only file system")
            return plain(path, *arguments, **options) if place.endswith("mkdir") else None

        patch.setattr(place, refuse)
        run = kit.fine_tune(own, replace(light, layers="head"), out=tmp_path / "second", onnx=False)
    assert same(run, features_known)


# 47 ------------------------------------------------------------------------------------------------------------------


def test_47_two_threads_take_turns_and_both_get_the_weights_of_a_run_alone(shapes, tiny, tmp_path, run):
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(kit.fine_tune, shapes, tiny, out=tmp_path / name, onnx=False) for name in "ab"]
    first, second = (one.result() for one in started)
    assert same(first, second)
    assert same(first, run)


def test_47_the_second_run_into_one_folder_stops_before_it_trains(shapes, tiny, tmp_path):
    refused = []

    def again():
        with pytest.raises(OutputError, match="another kit is writing .*run") as caught:
            kit.fine_tune("no such source", tiny, out=tmp_path / "run")
        refused.append(caught.value.fix)

    first = kit.fine_tune(shapes, tiny, out=tmp_path / "run", onnx=False, cbs=[At(again)])
    assert refused == ["wait until that has ended, or choose another folder (--out)"]
    assert (first.folder / "result.json").is_file()


def test_47_runs_of_one_second_have_folders_of_their_own(shapes, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.runs.time.strftime", lambda form: "20261121-153000")
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(kit.fine_tune, shapes, tiny, onnx=False) for _ in "ab"]
    name = f"{shapes.name}-test_resnet-20261121-153000"
    assert sorted(one.result().folder.name for one in started) == [name, f"{name}-2"]


# 53 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_bundle", [False, True])
def test_53_a_bundle_names_weights_and_table_by_file_and_hash_and_holds_no_path(shapes, light, tmp_path, of_bundle):
    telltale = tmp_path / "telltale" / "weights"
    telltale.mkdir(parents=True)
    weights = Path(shutil.copy(light.weights, telltale / "mine.safetensors"))
    rows = [{"path": str(path), "label": path.parent.name} for path in sorted(shapes.rglob("*.png"))]
    pd.DataFrame(rows).to_csv(telltale / "labels.csv", index=False)
    recipe = replace(light, layers="head", weights=str(weights), labels=str(telltale / "labels.csv"))
    if of_bundle:
        kit.fine_tune(shapes, recipe, out=telltale / "first", onnx=False)
        recipe = replace(recipe, weights=str(telltale / "first"))
    run = kit.fine_tune(shapes, recipe, out=tmp_path / "run")
    assert with_paths_of_this_machine(run.bundle, "telltale") == []
    config = json.loads((run.bundle / "config.json").read_text())
    assert config["start"]["origin"] == ("bundle: first" if of_bundle else "file: mine.safetensors")
    assert len(config["start"]["sha256"]) == 64
    assert config["recipe"]["weights"] == ("first" if of_bundle else "mine.safetensors")
    assert config["recipe"]["labels"] == "labels.csv"
    assert json.loads((run.folder / "recipe.json").read_text())["recipe"]["weights"] == recipe.weights


def test_53_a_network_that_only_the_newer_exporter_converts_holds_no_stack_trace(run, tmp_path, monkeypatch):
    from kit.bundle import onnx

    plain = torch.onnx.export

    def newer(*arguments, dynamo, **options):
        if not dynamo:
            raise RuntimeError("control flow")
        return plain(*arguments, dynamo=dynamo, **options)

    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.onnx, "export", newer)
    folder = Path(shutil.copytree(run.bundle, tmp_path / "bundle"))
    onnx.export(folder, run.evaluation.predictions["path"].tolist())
    assert with_paths_of_this_machine(folder) == []
