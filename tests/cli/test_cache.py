"""kit cache lists what kit keeps, and removes what it can compute again."""

import numpy as np
from typer.testing import CliRunner

from kit.cli.main import application
from kit.features import Store


def test_decoded_images_and_features_are_listed_and_cleared_and_downloads_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    Store({"body": "any"}).add({"0" * 64: np.zeros(4, np.float32)})
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "one.images").write_bytes(bytes(1000))
    (tmp_path / "oxford-pets.tar.gz").write_bytes(bytes(2_000_000))
    said = CliRunner().invoke(application(), ["cache"]).stdout
    assert said.startswith(f"{tmp_path}:\ndecoded images: 1, 0.0 MB of at most 20.0 GB")
    assert "features of images: 1, 0.0 MB of at most 5.0 GB" in said
    assert "oxford-pets.tar.gz  2.0 MB  downloaded" in said
    assert "removed" in CliRunner().invoke(application(), ["cache", "--clear"]).stdout
    assert [path for folder in ("decoded", "features") for path in (tmp_path / folder).iterdir()] == []
    assert (tmp_path / "oxford-pets.tar.gz").exists()
