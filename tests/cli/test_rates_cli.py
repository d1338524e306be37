"""kit rates: the suggestion on standard output, the curve as a picture and a table; a rate as number or word."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from kit.cli.main import application
from kit.data.images import open_image

TINY = ["--arch", "test_resnet", "--weights", "none", "--size", "32", "--batch", "4", "--workers", "0"]


def invoke(*arguments):
    return CliRunner().invoke(application(), [*map(str, arguments)])


def test_the_rate_is_the_result_and_the_curve_a_picture_and_a_table(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.train.rates.STEPS", 30)
    done = invoke("rates", shapes, *TINY, "--out", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    name, rate = line.split()
    assert name == "rate"
    assert 1e-7 < float(rate) < 10
    assert open_image(tmp_path / "curve.png").width > 400
    assert list(pd.read_csv(tmp_path / "curve.csv")) == ["rate", "loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "curve.png"]
    assert "1.0e-07" in done.stderr


@pytest.mark.parametrize(
    ("rate", "text"), [("fast", "rate='fast' is not a number"), ("-1", "rate=-1.0 is not a number")]
)
def test_a_rate_is_a_number_or_auto(shapes, rate, text):
    done = invoke("fine-tune", shapes, "--rate", rate)
    assert text in str(done.exception)
