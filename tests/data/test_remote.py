"""Images by URL: folders, files and patterns of fsspec's file systems, of which memory:// needs no network."""

import sys

import fsspec
import pytest
from typer.testing import CliRunner

from kit import bundle
from kit.cli.main import application
from kit.data.remote import open_url, walk_urls
from kit.errors import DataError, ImageError


@pytest.fixture
def remote(shapes):
    """memory://photos: the drawn images, a damaged one, a text, and folders that are left out."""
    system = fsspec.filesystem("memory")
    for path in shapes.rglob("*.png"):
        system.pipe(f"/photos/{path.relative_to(shapes)}", path.read_bytes())
    for name in ("bad.png", "notes.txt", ".cache/a.png", "old/report.html", "old/recipe.json", "old/a.png"):
        system.pipe(f"/photos/{name}", b"text")
    yield "memory://photos"
    system.rm("/photos", recursive=True)


def urls(name):
    return [path for path, reason in walk_urls(name) if reason is None]


def test_a_remote_folder_is_predicted_as_the_same_folder_on_the_disk(run, shapes, remote, tmp_path):
    done = CliRunner().invoke(application(), ["predict", str(run.bundle), remote, "--out", str(tmp_path / "a.csv")])
    assert done.exit_code == 0, done.output
    assert "24 of 25 images predicted" in done.stderr
    assert "left out 1 (written by kit: a run, a bundle, a report, a Space or a chart): old" in done.stderr
    bad, *rows = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert bad.startswith("memory:///photos/bad.png,,,") and "not an image of the formats" in bad
    CliRunner().invoke(application(), ["predict", str(run.bundle), str(shapes), "--out", str(tmp_path / "b.csv")])
    expected = (tmp_path / "b.csv").read_text().replace(str(shapes), "memory:///photos").splitlines()[1:]
    assert rows == expected


def test_python_takes_urls_too(run, shapes, remote):
    predictor = bundle.load(run.bundle)
    here, there, nowhere = predictor.predict(
        [shapes / "circle" / "00.png", f"{remote}/circle/00.png", f"{remote}/circle/none.png"]
    )
    assert there.probabilities == pytest.approx(here.probabilities, abs=1e-6)
    assert nowhere.error == "there is no such file"


def test_files_and_patterns_can_be_named(remote):
    assert urls(f"{remote}/circle/00.png") == ["memory:///photos/circle/00.png"]
    assert urls(f"{remote}/*/0[12].png") == [
        f"memory:///photos/{shape}/0{number}.png" for shape in ("circle", "square", "triangle") for number in (1, 2)
    ]
    with pytest.raises(DataError, match="memory://photos/none: there is no such file or folder"):
        urls(f"{remote}/none")


def test_a_missing_package_or_network_is_one_line_with_its_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match="s3:// needs the package s3fs\n  Fix: pip install s3fs"):
        urls("s3://bucket/photos")
    with pytest.raises(DataError, match="nosuch://x: Protocol not known: nosuch"):
        urls("nosuch://x")
    monkeypatch.setenv("KIT_OFFLINE", "1")
    with pytest.raises(DataError, match="s3:// needs the network, and KIT_OFFLINE=1 turns it off"):
        urls("s3://bucket/photos")
    with pytest.raises(ImageError, match="https://example.org/a.jpg: https:// needs the network"):
        open_url("https://example.org/a.jpg")
