"""Downloads against a real server on this machine: cuts, wrong bytes, absent files, changed files, full stops."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kit import fetch
from kit.errors import FetchError, OutputError
from kit.fetch import Source, download
from kit.offline import check_connection

CONTENT = bytes(range(256)) * 4000
OTHER = bytes(reversed(CONTENT))


class Site:
    """What the server has, how it misbehaves, and the requests and bytes it has seen."""

    def __init__(self):
        self.files = {"/weights.pth": CONTENT}
        self.cuts = []
        self.ranges = True
        self.requests = []
        self.sent = []
        self.after_cut = lambda: None

    def source(self, path="/weights.pth", content=CONTENT, **options):
        return Source(self.address + path, hashlib.sha256(content).hexdigest(), **options)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.requests.append(dict(self.headers))
        content = site.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = self.start(site)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = site.cuts.pop(0) if site.cuts else len(content)
        site.sent.append(len(content[start : start + stop]))
        self.wfile.write(content[start : start + stop])
        if start + stop < len(content):
            site.after_cut()

    def start(self, site) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked and site.ranges else 0

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site()
    server.site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def to(tmp_path):
    return tmp_path / "cache" / "weights.pth"


def part_of(content, to):
    return to.with_name(f"weights.pth.{hashlib.sha256(content).hexdigest()[:8]}.partial")


def left_beside(to):
    return sorted(path.name for path in to.parent.iterdir())


def test_a_file_is_fetched_whole_and_nothing_else_is_left(site, to):
    assert download([site.source()], to, "the weights") == to
    assert to.read_bytes() == CONTENT
    assert left_beside(to) == ["weights.pth"]


def test_the_request_says_which_kit_asks(site, to):
    download([site.source()], to, "the weights")
    assert re.fullmatch(r"kit/\S+", site.requests[0]["User-Agent"])
    assert "Range" not in site.requests[0]


def test_after_a_cut_only_the_rest_is_sent(site, to):
    site.cuts = [300_000]
    download([site.source()], to, "the weights")
    assert to.read_bytes() == CONTENT
    assert site.requests[1]["Range"] == "bytes=300000-"
    assert site.sent == [300_000, len(CONTENT) - 300_000]
    assert left_beside(to) == ["weights.pth"]


def test_a_connection_that_is_always_cut_is_given_up_and_the_next_call_goes_on(site, to):
    site.cuts = [1000] * fetch.ATTEMPTS
    with pytest.raises(FetchError, match="connection cut"):
        download([site.source()], to, "the weights")
    assert len(site.requests) == fetch.ATTEMPTS
    assert left_beside(to) == [part_of(CONTENT, to).name]
    download([site.source()], to, "the weights")
    assert site.requests[-1]["Range"] == f"bytes={1000 * fetch.ATTEMPTS}-"
    assert to.read_bytes() == CONTENT


def test_a_server_that_cuts_before_the_first_byte_is_asked_a_few_times(site, to):
    site.cuts = [0] * fetch.ATTEMPTS
    with pytest.raises(FetchError, match="connection cut"):
        download([site.source()], to, "the weights")
    assert len(site.requests) == fetch.ATTEMPTS


def test_a_server_that_ignores_ranges_sends_the_whole_again(site, to):
    site.cuts, site.ranges = [300_000], False
    download([site.source()], to, "the weights")
    assert site.requests[1]["Range"] == "bytes=300000-"
    assert site.sent == [300_000, len(CONTENT)]
    assert to.read_bytes() == CONTENT


def test_a_file_that_changed_between_two_attempts_is_fetched_again_as_a_whole(site, to):
    site.cuts = [300_000]
    site.after_cut = lambda: site.files.update({"/weights.pth": OTHER})
    download([site.source(content=OTHER)], to, "the weights")
    assert to.read_bytes() == OTHER
    assert site.sent == [300_000, len(OTHER) - 300_000, len(OTHER)]


def test_a_mirror_of_the_same_file_goes_on_where_another_source_was_cut(site, to):
    site.files["/mirror.pth"] = CONTENT
    site.cuts = [1000] * fetch.ATTEMPTS
    download([site.source(), site.source("/mirror.pth")], to, "the weights")
    assert site.requests[-1]["Range"] == f"bytes={1000 * fetch.ATTEMPTS}-"
    assert to.read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_continued_and_is_removed_in_the_end(site, to):
    site.files["/newer.pth"] = OTHER
    site.cuts = [1000] * fetch.ATTEMPTS
    download([site.source(), site.source("/newer.pth", OTHER)], to, "the weights")
    assert "Range" not in site.requests[-1]
    assert to.read_bytes() == OTHER
    assert left_beside(to) == ["weights.pth"]


def test_a_whole_part_only_needs_its_name(site, to):
    to.parent.mkdir()
    part_of(CONTENT, to).write_bytes(CONTENT)
    download([site.source()], to, "the weights")
    assert to.read_bytes() == CONTENT
    assert site.sent == []


def test_a_part_that_is_longer_than_the_file_starts_over(site, to):
    to.parent.mkdir()
    part_of(CONTENT, to).write_bytes(CONTENT + b"more")
    download([site.source()], to, "the weights")
    assert to.read_bytes() == CONTENT


def test_a_damaged_part_starts_over(site, to):
    to.parent.mkdir()
    part_of(CONTENT, to).write_bytes(b"?" * 1000)
    download([site.source()], to, "the weights")
    assert to.read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_the_next_source_is_asked(site, to):
    site.files |= {"/weights.pth": OTHER, "/mirror.pth": CONTENT}
    download([site.source(), site.source("/mirror.pth")], to, "the weights")
    assert to.read_bytes() == CONTENT
    assert left_beside(to) == ["weights.pth"]


def test_an_absent_file_is_taken_from_the_next_source(site, to):
    download([site.source("/gone.pth"), site.source()], to, "the weights")
    assert to.read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_when_every_source_fails_three_lines_say_why_and_what_to_do(site, to):
    site.files["/other.pth"] = OTHER
    closed = Source("http://127.0.0.1:1/weights.pth", "0" * 32)
    with pytest.raises(FetchError) as caught:
        download([site.source("/gone.pth"), site.source("/other.pth"), closed], to, "the resnet18 weights")
    host = site.address.removeprefix("http://")
    assert str(caught.value) == (
        '"weights.pth" is missing (the resnet18 weights), and no source gave it:\n'
        f"  {host}: 404; {host}: wrong checksum; 127.0.0.1:1: Connection refused\n"
        f'  Fix: get "gone.pth" by hand ({site.address}/gone.pth) and put it at {to}'
    )
    assert left_beside(to) == []


def test_a_name_that_no_network_knows_is_told(to):
    with pytest.raises(FetchError, match=r"nowhere\.invalid: .*(name|Name|resolution)"):
        download([Source("http://nowhere.invalid/a", "0" * 32)], to, "the weights")


def test_a_host_that_drops_what_it_is_sent_is_given_up_after_one_look(to, monkeypatch):
    waited = []

    def dropped(place, timeout):
        waited.append(timeout)
        raise TimeoutError("timed out")

    many = [(2, 1, 6, "", ("192.0.2.1", 80))] * 2
    monkeypatch.setattr("kit.offline.getproxies", dict)
    monkeypatch.setattr("kit.offline.socket.getaddrinfo", lambda *_, **__: many)
    monkeypatch.setattr("kit.offline.socket.create_connection", dropped)
    with pytest.raises(FetchError, match=r"a\.test: timed out\n"):
        download([Source("http://a.test/a", "0" * 32)], to, "the weights")
    assert waited == [1.5, 1.5]


def test_with_a_proxy_only_the_proxy_is_asked(monkeypatch):
    monkeypatch.setattr("kit.offline.getproxies", lambda: {"https": "http://127.0.0.1:9"})
    assert check_connection("https://nowhere.invalid") is None


def test_a_file_of_another_size_is_not_even_fetched(site, to):
    with pytest.raises(FetchError, match=r"wrong size \(1,024,000 bytes, expected 7\)"):
        download([site.source(size=7)], to, "the weights")
    assert left_beside(to) == []


def test_a_file_that_is_there_already_makes_no_request(site, to):
    to.parent.mkdir()
    to.write_bytes(CONTENT)
    assert download([site.source()], to, "the weights") == to
    assert site.requests == []


def test_another_file_of_that_name_is_never_overwritten(site, to):
    to.parent.mkdir()
    to.write_bytes(OTHER)
    with pytest.raises(FetchError) as caught:
        download([site.source()], to, "the weights")
    there, expected = (hashlib.sha256(content).hexdigest() for content in (OTHER, CONTENT))
    assert caught.value.problem == f"{to} is not the weights: sha256 {there}, expected {expected}"
    assert caught.value.fix == "move it away or remove it yourself, then run again"
    assert to.read_bytes() == OTHER
    assert site.requests == []


def test_a_file_of_another_size_that_is_there_is_refused_by_its_size(site, to):
    to.parent.mkdir()
    to.write_bytes(b"half")
    with pytest.raises(FetchError, match="is not the weights: 4 bytes, expected 1,024,000"):
        download([site.source(size=len(CONTENT))], to, "the weights")


def test_a_disk_that_refuses_is_named(site, tmp_path):
    (tmp_path / "file").touch()
    to = tmp_path / "file" / "weights.pth"
    with pytest.raises(OutputError, match=r"file/weights\.pth cannot be written: .+\n  Fix: choose another folder"):
        download([site.source()], to, "the weights")
    assert site.requests == []


def test_a_digest_may_be_its_first_digits_or_of_the_first_bytes(site, to):
    start = hashlib.md5(CONTENT[:1000]).hexdigest()
    url = f"{site.address}/weights.pth"
    download([Source(url, start, algorithm="md5", first_bytes=1000, size=len(CONTENT))], to, "the weights")
    assert Source(url, hashlib.sha256(CONTENT).hexdigest()[:8]).fits(to)
    assert not Source(url, hashlib.sha256(OTHER).hexdigest()[:8]).fits(to)
    assert not Source(url, hashlib.sha256(CONTENT).hexdigest(), size=1).fits(to)


@pytest.mark.parametrize(("name", "value"), [("KIT_OFFLINE", "1"), ("HF_HUB_OFFLINE", "true"), ("KIT_OFFLINE", "ON")])
def test_offline_no_request_is_made_and_no_folder_left(site, tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    to = tmp_path / "new" / "weights.pth"
    with pytest.raises(FetchError, match=rf'"weights.pth" is missing \(them\), and {name}={value} forbids') as caught:
        download([site.source()], to, "them", or_else=", or send a letter")
    assert caught.value.fix.endswith(f"put it at {to}, or send a letter")
    assert site.requests == []
    assert list(tmp_path.iterdir()) == []


def test_offline_what_is_there_is_taken_and_no_or_zero_forbids_nothing(site, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_OFFLINE", "0")
    assert download([site.source()], tmp_path / "weights.pth", "them").read_bytes() == CONTENT
    monkeypatch.setenv("KIT_OFFLINE", "1")
    assert download([site.source()], tmp_path / "weights.pth", "them").read_bytes() == CONTENT
    assert len(site.requests) == 1


@pytest.mark.parametrize("digest", ["", "f370", "pretrained"])
def test_a_digest_that_checks_nothing_is_refused(digest):
    with pytest.raises(ValueError, match=f'digest="{digest}"; expected 8 or more hexadecimal digits, in lower case'):
        Source("https://host/weights.pth", digest)


def test_a_password_in_an_address_is_not_shown():
    assert Source("https://me:secret@host:8080/a%20b.zip", "0" * 32).host == "host:8080"
    assert Source("https://host/a%20b.zip?x=1", "0" * 32).name == "a b.zip"
