"""A bundle in Ray Data: batches of paths or bytes in, the table of kit predict out, by workers of a real Ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from kit import bundle
from kit.cli.main import application
from kit.errors import BundleError, DataError

APP = Path(__file__).parents[2] / "apps" / "predict_with_ray.py"


def same(table, other):
    pd.testing.assert_frame_equal(table.convert_dtypes(), other.convert_dtypes(), check_dtype=False, atol=1e-6)


@pytest.fixture(scope="module")
def photos(shapes, tmp_path_factory):
    """The drawn images and a damaged one, in one folder."""
    folder = tmp_path_factory.mktemp("ray") / "photos"
    folder.mkdir()
    for path in shapes.rglob("*.png"):
        (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    (folder / "bad.png").write_text("text")
    return folder


@pytest.fixture(scope="module")
def expected(run, photos, tmp_path_factory):
    """What kit predict writes."""
    out = tmp_path_factory.mktemp("answers") / "answers.parquet"
    done = CliRunner().invoke(application(), ["predict", str(run.bundle), str(photos), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return pd.read_parquet(out)


def test_a_batch_of_paths_or_bytes_becomes_the_table_of_kit_predict(run, photos, expected):
    predict = bundle.ray_predictor(run.folder)()
    paths = sorted(photos.iterdir())
    names = np.array(list(map(str, paths)), dtype=object)
    same(predict({"path": names}).to_pandas(), expected)
    contents = np.array([path.read_bytes() for path in paths], dtype=object)
    same(predict({"path": names, "bytes": contents}).to_pandas(), expected)


def test_a_wrong_bundle_or_batch_is_refused(run, tmp_path):
    with pytest.raises(BundleError, match="is no bundle"):
        bundle.ray_predictor(tmp_path)
    with pytest.raises(DataError, match="the batch has the columns image; path was expected"):
        bundle.ray_predictor(run.folder)()({"image": np.zeros(1)})


@pytest.mark.slow
def test_two_ray_workers_write_the_table_of_kit_predict(run, photos, expected, tmp_path):
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'ray[data]'")
    command = [sys.executable, APP, run.folder, photos, tmp_path / "answers", "--workers", "2", "--batch", "4"]
    environment = os.environ | {"RAY_ADDRESS": "local"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "25 images predicted" in done.stderr
    same(pd.read_parquet(tmp_path / "answers"), expected)
