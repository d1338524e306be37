"""Writing files so that nothing is lost, and finding a place to write."""

import hashlib
import json
import random
from mmap import ALLOCATIONGRANULARITY

import pytest

from kit.errors import OutputError
from kit.files import atomic_path, check_creatable, new_folder, packaged, sha256, write_json


def test_a_file_is_replaced_only_when_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    write_json(tmp_path / "x.json", {"name": "고양이"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": "고양이"}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("size", [0, 1, ALLOCATIONGRANULARITY, 2 * ALLOCATIONGRANULARITY + 1])
def test_a_file_of_several_pieces_has_one_hash(tmp_path, monkeypatch, size):
    monkeypatch.setattr("kit.files.BLOCK_BYTES", ALLOCATIONGRANULARITY)
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_folder_to_write_must_be_new_and_writable(tmp_path):
    assert new_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    with pytest.raises(OutputError, match="is a file; a folder was expected"):
        new_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="exists and is not empty"):
        new_folder(tmp_path / "full")
    with pytest.raises(OutputError, match="cannot be written"):
        new_folder(tmp_path / "file" / "below")


def test_trying_whether_a_folder_can_be_made_leaves_nothing(tmp_path):
    assert check_creatable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    check_creatable(tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()


def test_the_sample_and_the_weights_are_found_wherever_kit_is_installed():
    assert any(packaged("sample").glob("*.jpg"))
    assert any(packaged("weights").glob("*.safetensors"))
