"""Finding and downloading files, against mirrors on this machine's loopback interface. No outside network is needed."""

import errno
import hashlib
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minigen.data import files
from minigen.data.dataset import DataError
from minigen.data.files import Archive, cache_folder, find, obtain

DATA = b"the published bytes " * 5_000
ARCHIVE = Archive("images.gz", len(DATA), hashlib.sha256(DATA).hexdigest())


class Mirror(BaseHTTPRequestHandler):
    """The first folder of the address says how this mirror behaves."""

    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        body = {
            "good": DATA,
            "changed": DATA[:-1] + b"!",
            "short": DATA[:-1],
            "long": DATA + b"!" * 10_000_000,
            "cut": DATA,
        }.get(self.path.split("/")[1])
        if self.headers["Accept-Encoding"] != "identity":
            body = None  # a mirror must not be asked to compress or to decompress what is compared bit by bit
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        try:
            self.wfile.write((body or b"")[: 1_000 if "cut" in self.path else None])
        except ConnectionError:
            assert "long" in self.path  # the client stops listening after what was published

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def mirror():
    """mirror(*behaviours) -> addresses; mirror.requests lists what was asked for."""
    Mirror.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def addresses(*behaviours):
        return tuple(f"http://127.0.0.1:{server.server_port}/{behaviour}/" for behaviour in behaviours)

    addresses.requests = Mirror.requests
    yield addresses
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch):
    monkeypatch.delenv("MINIGEN_DATA", raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def test_downloads_once(mirror, tmp_path):
    path = obtain("d", ARCHIVE, mirror("good"), tmp_path)
    assert path == tmp_path / "d" / "images.gz"
    assert path.read_bytes() == DATA
    assert list(path.parent.iterdir()) == [path]
    assert obtain("d", ARCHIVE, mirror("good"), tmp_path) == path
    assert mirror.requests == ["/good/images.gz"]


@pytest.mark.parametrize("bad", ["missing", "changed", "short", "long", "cut"])
def test_next_mirror_is_tried(mirror, tmp_path, bad):
    path = obtain("d", ARCHIVE, mirror(bad, "good"), tmp_path)
    assert path.read_bytes() == DATA
    assert list(path.parent.iterdir()) == [path]
    assert mirror.requests == [f"/{bad}/images.gz", "/good/images.gz"]


def test_no_mirror_left(mirror, tmp_path):
    mirrors = (*mirror("missing", "changed", "short", "long", "cut"), "http://127.0.0.1:1/closed/")
    with pytest.raises(DataError) as error:
        obtain("d", ARCHIVE, mirrors, tmp_path)
    message = str(error.value)
    assert error.value.file == str(tmp_path / "d" / "images.gz")
    assert all(address in message for address in mirrors)
    for reason in (
        "HTTP status 404",
        f"SHA-256 {hashlib.sha256(DATA[:-1] + b'!').hexdigest()} instead of the published {ARCHIVE.sha256}",
        "99,999 bytes instead of the published 100,000",
        "more than the published 100,000 bytes",
        "ConnectionError",
    ):
        assert reason in message
    assert "set MINIGEN_DATA" in error.value.remedy
    assert "\n" not in message
    assert list((tmp_path / "d").iterdir()) == []


def test_flushed_before_renamed(mirror, tmp_path, monkeypatch):
    """fsync of the file < rename < fsync of the folder: a power failure leaves the whole file or none."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(descriptor):
        steps.append("fsync " + ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
        fsync(descriptor)

    def traced_replace(source, target):
        assert str(source).endswith(".part")
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    obtain("d", ARCHIVE, mirror("good"), tmp_path)
    assert steps == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_faults(mirror, tmp_path, monkeypatch, call):
    """A fault of this machine is reported as such, and other mirrors are not troubled."""

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        obtain("d", ARCHIVE, mirror("good", "good"), tmp_path)
    assert len(mirror.requests) == 1
    assert list((tmp_path / "d").iterdir()) == []


def test_disk_full_while_writing(mirror, tmp_path, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self):
            """Nothing to flush."""

    with pytest.raises(OSError, match="No space left"):
        files._transfer(mirror("good")[0] + ARCHIVE.name, ARCHIVE, Full())


def test_folder_that_cannot_be_made(mirror, tmp_path):
    (tmp_path / "d").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written") as error:
        obtain("d", ARCHIVE, mirror("good"), tmp_path)
    assert "choose another cache folder" in error.value.remedy


def test_orphans_of_killed_downloads_are_removed(mirror, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    old, recent, other = (folder / name for name in ("images.gz.1.part", "images.gz.2.part", "labels.gz.1.part"))
    for path in (old, recent, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    obtain("d", ARCHIVE, mirror("good"), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["images.gz", "images.gz.2.part", "labels.gz.1.part"]


def test_users_folder_comes_first(mirror, tmp_path, monkeypatch):
    cached = obtain("d", ARCHIVE, mirror("good"), tmp_path / "cache")
    mine = tmp_path / "mine"
    (mine / "d").mkdir(parents=True)
    monkeypatch.setenv("MINIGEN_DATA", str(mine))
    assert find("d", ARCHIVE, tmp_path / "cache") == cached
    assert not files.is_users(cached)
    for name in ("images", "images.gz"):
        (mine / "d" / name).write_bytes(b"")
        assert find("d", ARCHIVE, tmp_path / "cache") == mine / "d" / name
        assert files.is_users(mine / "d" / name)
    assert find("other", ARCHIVE, tmp_path / "cache") is None


def test_users_folder_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "typo"))
    with pytest.raises(DataError, match="MINIGEN_DATA names this, which is not a folder"):
        find("d", ARCHIVE, tmp_path)
    monkeypatch.setenv("MINIGEN_DATA", "")
    assert find("d", ARCHIVE, tmp_path) is None


def test_default_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None).name == "minigen"
    assert cache_folder("here").name == "here"
