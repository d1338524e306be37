"""Writing files so that nothing is lost, and finding a place to write."""

import hashlib
import json
import os
import random

import pytest

from kit.errors import OutputError
from kit.files import (
    atomic_folder,
    atomic_path,
    claimed,
    new_folder,
    packaged,
    reserved,
    sha256,
    sorted_texts,
    write_json,
)


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


@pytest.mark.parametrize("size", [0, 1, 1_000_001])
def test_a_file_of_several_pieces_has_one_hash(tmp_path, size):
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


def test_a_claimed_folder_is_removed_unless_something_was_written(tmp_path):
    with claimed(tmp_path / "a" / "b") as folder:
        assert folder == tmp_path / "a" / "b"
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with claimed(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()
    with claimed(tmp_path / "full") as folder:
        (folder / "file").touch()
    assert (tmp_path / "full" / "file").is_file()


@pytest.mark.parametrize("there_before", [True, False])
def test_a_folder_is_claimed_once(tmp_path, there_before):
    if there_before:
        (tmp_path / "run").mkdir()
    with claimed(tmp_path / "run"):
        with pytest.raises(OutputError, match="another kit is writing .*run"), claimed(tmp_path / "run"):
            pass
        assert (tmp_path / "run").is_dir()
    with claimed(tmp_path / "run"):
        pass


def test_what_a_killed_run_left_is_removed_or_told(tmp_path):
    (tmp_path / "run" / ".checkpoint.1234.partial").mkdir(parents=True)
    with claimed(tmp_path / "run"):
        assert list((tmp_path / "run").iterdir()) == []
        (tmp_path / "run" / "bundle").mkdir()
    with pytest.raises(OutputError, match="holds a run that did not finish"), claimed(tmp_path / "run"):
        pass


def test_a_folder_appears_only_when_all_is_written(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "new") as partial:
        (partial / "file").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "new") as partial:
        (partial / "file").touch()
        assert list((tmp_path / "new").iterdir()) == []
        with pytest.raises(OutputError, match="another kit is writing"), atomic_folder(tmp_path / "new"):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_more_room_than_the_disk_has_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="has no room for the 1000000000000 MB"), reserved(tmp_path, 10**18):
        pass
    with reserved(tmp_path, 10):
        assert list(tmp_path.iterdir()) == []


def test_the_sample_and_the_weights_are_found_wherever_kit_is_installed():
    assert any(packaged("sample").glob("*.jpg"))
    assert any(packaged("weights").glob("*.safetensors"))


@pytest.mark.parametrize("at_once", [3, 4, 100])
def test_many_texts_are_sorted_on_the_disk_as_in_memory(at_once):
    texts = ["b", "a\nb", "ä", "a", '"', "\udcff", "", "c", "a", "z\\"]
    assert list(sorted_texts(iter(texts), at_once)) == sorted(texts)
    assert list(sorted_texts(iter([]), at_once)) == []
