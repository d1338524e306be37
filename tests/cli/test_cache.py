"""kit cache lists what kit keeps, and removes what it can compute again."""

import numpy as np

from kit.cli.cache import cache
from kit.features import Store


def test_decoded_images_and_features_are_listed_and_cleared_and_downloads_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    Store({"body": "any"}).add({"0" * 64: np.zeros(4, np.float32)})
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "one.images").write_bytes(bytes(1000))
    (tmp_path / "resnet18.pth").write_bytes(bytes(2_000_000))
    cache()
    said = capsys.readouterr().out
    assert "decoded images: 1, 0.0 MB of at most 20.0 GB" in said
    assert "features of images: 1, 0.0 MB of at most 5.0 GB" in said
    assert "resnet18.pth  2.0 MB  downloaded" in said
    cache(clear=True)
    assert [path for folder in ("decoded", "features") for path in (tmp_path / folder).iterdir()] == []
    assert (tmp_path / "resnet18.pth").exists()
