"""A data set is downloaded once, checked by its hash, and unpacked no further than expected.

The server is one of the standard library on the local machine.
"""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import sys
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest

import real
from pcmc.errors import DataError
from pcmc.models import datasets, download

pooch = pytest.importorskip("pooch")


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that is served, its address, and the list of paths asked for; and an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []
    handler = type("Handler", (Server,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PCMC_DATA", raising=False)
    monkeypatch.delenv("PCMC_DATA_URL", raising=False)
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/", asked
    server.shutdown()
    server.server_close()
    thread.join()


def publish(monkeypatch, folder, name, contents):
    """Serve archives of these `contents` (by file name), and take their hashes for the published ones."""
    archives = {}
    for split, old in download.SOURCES[name].archives.items():
        for archive in old:
            (folder / archive.file).write_bytes(contents[archive.file])
        hashes = [hashlib.sha256(contents[archive.file]).hexdigest() for archive in old]
        archives[split] = tuple(replace(a, sha256=h) for a, h in zip(old, hashes, strict=True))
    monkeypatch.setitem(download.SOURCES, name, replace(download.SOURCES[name], archives=archives))


def small_mnist():
    images = np.arange(3 * 784, dtype=np.int64).astype(np.uint8).tobytes()
    contents = {
        "images-idx3": gzip.compress(struct.pack(">4I", 0x0803, 3, 28, 28) + images, mtime=0),
        "labels-idx1": gzip.compress(struct.pack(">2I", 0x0801, 3) + bytes([7, 2, 1]), mtime=0),
    }
    return {f"{s}-{k}-ubyte.gz": v for s in ("train", "t10k") for k, v in contents.items()}


def tar(members):
    """Return the bytes of a .tar.gz of (name, content or the target of a link) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def cifar100_record(coarse, fine):
    return bytes([coarse, fine]) + bytes(3072)


def test_a_download_is_read_and_the_second_load_asks_for_nothing(served, monkeypatch):
    folder, url, asked = served
    publish(monkeypatch, folder, "mnist", small_mnist())
    images, labels = datasets.load("mnist", url=url)
    assert images.shape == (3, 1, 28, 28)
    assert labels.tolist() == [7, 2, 1]
    assert asked == ["/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]
    again, _ = datasets.load("mnist", url=url)
    np.testing.assert_array_equal(again, images)
    assert len(asked) == 2


def test_the_address_may_come_from_the_environment_without_a_slash_at_its_end(served, monkeypatch):
    folder, url, asked = served
    publish(monkeypatch, folder, "mnist", small_mnist())
    monkeypatch.setenv("PCMC_DATA_URL", url.rstrip("/"))
    assert datasets.load("mnist", "train")[1].tolist() == [7, 2, 1]
    assert asked == ["/train-images-idx3-ubyte.gz", "/train-labels-idx1-ubyte.gz"]


def test_an_altered_file_is_refused_by_its_hash_and_not_kept(served, monkeypatch, tmp_path):
    folder, url, _ = served
    publish(monkeypatch, folder, "mnist", small_mnist())
    file = folder / "t10k-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is refused: .* does not match"):
        datasets.load("mnist", url=url)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_file_altered_in_the_cache_is_fetched_again(served, monkeypatch, tmp_path):
    folder, url, asked = served
    publish(monkeypatch, folder, "mnist", small_mnist())
    datasets.load("mnist", url=url)
    (cached,) = (tmp_path / "cache").rglob("t10k-labels-idx1-ubyte.gz")
    cached.write_bytes(b"altered")
    assert datasets.load("mnist", url=url)[1].tolist() == [7, 2, 1]
    assert asked[2:] == ["/t10k-labels-idx1-ubyte.gz"]


def test_an_archive_is_unpacked_once_and_no_further_than_expected(served, monkeypatch, tmp_path):
    folder, url, asked = served
    members = [
        ("cifar-100-binary/train.bin", cifar100_record(1, 2) * 2),
        ("cifar-100-binary/fine_label_names.txt", b"apple"),
        ("../escaped.bin", b"x"),
        ("/escaped.bin", b"x"),
        ("cifar-100-binary/../../escaped.bin", b"x"),
        ("cifar-100-binary/test.bin", cifar100_record(19, 99)),
    ]
    publish(monkeypatch, folder, "cifar100", {"cifar-100-binary.tar.gz": tar(members)})
    assert datasets.load("cifar100", url=url)[1].tolist() == [99]
    assert datasets.load("cifar100", "train", url=url)[1].tolist() == [2, 2]
    assert asked == ["/cifar-100-binary.tar.gz"]
    written = {p.name for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents}
    assert written == {"train.bin", "test.bin"}


BAD_ARCHIVES = {
    "lacks a member": (tar([("cifar-100-binary/train.bin", b"x")]), r"lacks cifar-100-binary/test\.bin"),
    "a link for a member": (
        tar([("cifar-100-binary/train.bin", "/etc/passwd"), ("cifar-100-binary/test.bin", b"x")]),
        r"lacks cifar-100-binary/train\.bin",
    ),
    "no archive": (b"<html>not found</html>", "not a whole tar archive"),
    "cut": (tar([("cifar-100-binary/train.bin", bytes(range(256)) * 99)])[:200], "not a whole tar archive"),
    "too large": (tar([("cifar-100-binary/train.bin", bytes(1001))]), "1,001 bytes, more than it should"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_is_refused_and_leaves_nothing_half_unpacked(served, monkeypatch, tmp_path, case):
    folder, url, _ = served
    content, message = BAD_ARCHIVES[case]
    monkeypatch.setattr(download, "MAX_MEMBER_BYTES", 1_000 if case == "too large" else 100_000)
    publish(monkeypatch, folder, "cifar100", {"cifar-100-binary.tar.gz": content})
    with pytest.raises(DataError, match=message):
        datasets.load("cifar100", url=url)
    assert not list(tmp_path.rglob("*.part"))


def test_a_missing_file_on_the_server_is_said_with_its_address(served):
    _, url, _ = served
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz can't be downloaded.*404"):
        datasets.load("cifar10", url=url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/", "begins with http:// or https://"),
        ("example.org", "begins with http:// or https://"),
        ("http://", "can't be downloaded|is refused"),
        ("http://[", "can't be downloaded|is refused"),
        ("http://127.0.0.1:1/", "can't be downloaded"),
        ("http://127.0.0.1:99999/", "can't be downloaded|is refused"),
    ],
)
def test_an_address_that_does_not_work_is_a_data_error(served, url, message):
    with pytest.raises(DataError, match=message):
        datasets.load("mnist", url=url)


def test_a_cache_that_can_not_be_written_is_a_data_error(served, tmp_path):
    _, url, _ = served
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="can't be downloaded into"):
        datasets.load("mnist", url=url)


def test_without_pooch_the_cure_is_said(monkeypatch):
    monkeypatch.delenv("PCMC_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"pip install pcmc\[data\]"):
        datasets.load("mnist")


def test_the_published_mnist_hashes_are_those_of_the_published_files():
    folder = real.data_folder() / "mnist"
    for archives in download.SOURCES["mnist"].archives.values():
        for archive in archives:
            file = folder / archive.file
            if not file.is_file():
                pytest.skip(f"PCMC_DATA has no {archive.file}")
            assert hashlib.sha256(file.read_bytes()).hexdigest() == archive.sha256
