"""Images out of a zip: what is wrong with a member or with the whole is a row with its reason."""

import io
import struct
import zipfile

from kit.serve import archive


def zipped(tmp_path, *members):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members:
            archive_.writestr(name, data)
    return path


def test_a_zip_is_read_member_by_member_and_what_is_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1000)
    members = [
        ("a/one.jpg", b"one"),
        ("../out.jpg", b"x"),
        ("/abs.jpg", b"x"),
        ("C:\\x.jpg", b"x"),
        ("notes.txt", b"x"),
    ]
    members += [("bomb.jpg", bytes(1001)), ("__MACOSX/._one.jpg", b"x"), (".hidden.jpg", b"x"), ("inner.zip", b"x")]
    rows = dict(archive.images(zipped(tmp_path, *members)))
    assert rows["a/one.jpg"] == b"one"
    out = "its path leads out of the zip"
    assert [rows[name] for name in ("../out.jpg", "/abs.jpg", "C:\\x.jpg")] == [out] * 3
    assert rows["bomb.jpg"] == "unpacks to more than 1,000 bytes"
    assert rows["notes.txt"] == rows["inner.zip"] == "not an image by its name"
    assert len(rows) == 7 == archive.count(tmp_path / "some.zip")


def test_a_zip_that_is_none_or_is_damaged_is_a_row(tmp_path):
    none = tmp_path / "none.zip"
    none.write_bytes(b"no zip")
    assert list(archive.images(none)) == [("none.zip", "not a zip, or a damaged one")]
    assert list(archive.images(zipped(tmp_path))) == [("some.zip", "an empty zip")]
    good = zipped(tmp_path, ("one.jpg", bytes(range(256)) * 20)).read_bytes()
    for place in range(30, len(good), 7):
        none.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        for _, data in archive.images(none):
            assert isinstance(data, bytes | archive.Refused)


def contents_alone(count: int) -> bytes:
    """A zip that is nothing but a table of contents."""
    entries = b"".join(
        b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, *[0] * 7, len(name), *[0] * 6) + name
        for name in (b"%x.jpg" % number for number in range(count))
    )
    return entries + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, *[min(count, 65535)] * 2, len(entries), 0, 0)


def test_a_zip_of_countless_files_is_refused_before_its_contents_are_read(tmp_path):
    path = tmp_path / "many.zip"
    path.write_bytes(contents_alone(100_000))
    assert list(archive.images(path)) == [("many.zip", archive.TOO_MANY)]
    assert archive.count(path) == 1
    path.write_bytes(contents_alone(3000))
    rows = list(archive.images(path))
    assert len(rows) == archive.MAX_MEMBERS + 1 == archive.count(path)
    assert rows[-1] == ("many.zip", "3,000 files; the first 2,000 were read")
    assert all(isinstance(data, archive.Refused) for _, data in rows)


def test_a_zip_bomb_fills_neither_memory_nor_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 100_000)
    stream = io.BytesIO(bytes(50_000_000))
    path = zipped(tmp_path, *((f"{number}.jpg", stream.getvalue()) for number in range(3)))
    assert [len(data) < 100 for _, data in archive.images(path)] == [True] * 3
