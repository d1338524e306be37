"""Unpacking: whole or not at all, and nothing outside the folder."""

import io
import tarfile

import pytest

from kit.errors import OutputError
from kit.fetch import extract


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def packed(tmp_path):
    """A function that packs files of the given names, each holding its own name, into a tar.gz."""

    def pack(*members):
        with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as tar:
            for member in members:
                entry = tarfile.TarInfo(member) if isinstance(member, str) else member
                entry.size = 0 if entry.issym() else len(entry.name)
                tar.addfile(entry, io.BytesIO(entry.name.encode()))
        return tmp_path / "photos.tar.gz"

    return pack


def test_an_archive_is_unpacked_into_its_folder(packed, tmp_path):
    folder = extract(packed("cats/tom.txt", "dogs/rex.txt"), tmp_path / "photos")
    assert folder == tmp_path / "photos"
    assert (folder / "cats" / "tom.txt").read_text() == "cats/tom.txt"
    assert left_in(tmp_path) == ["photos", "photos.tar.gz"]


def test_a_member_that_leaves_the_folder_is_refused_by_name(packed, tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../outside"
    for member, name in ("../evil.txt", r"\.\./evil\.txt"), (link, "link"):
        with pytest.raises(OutputError, match=f"cannot be unpacked .*'{name}' would"):
            extract(packed("fine.txt", member), tmp_path / "photos")
        assert left_in(tmp_path) == ["photos.tar.gz"]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no archive", lambda data: data[:40]])
def test_a_damaged_archive_leaves_no_half_folder(packed, tmp_path, damage):
    archive = packed("cats/tom.txt", "dogs/rex.txt")
    archive.write_bytes(damage(archive.read_bytes()))
    fix = r"\n  Fix: make room; where the archive is damaged, remove it and fetch it again"
    with pytest.raises(OutputError, match=r"photos\.tar\.gz cannot be unpacked into .+: .+" + fix):
        extract(archive, tmp_path / "photos")
    assert left_in(tmp_path) == ["photos.tar.gz"]


def test_a_folder_that_is_there_is_not_unpacked_into(packed, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(OutputError, match="photos is there already\n  Fix: remove it yourself"):
        extract(packed("a.txt"), tmp_path / "photos")


def test_a_disk_that_refuses_to_unpack_is_named(packed, tmp_path):
    with pytest.raises(OutputError, match=r"cannot be unpacked into .+: .+\n  Fix: make room"):
        extract(packed("a.txt"), tmp_path / "photos.tar.gz" / "photos")
