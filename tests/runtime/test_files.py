"""What is written takes the place of the old file at once, or not at all."""

import errno
import os
import stat
import threading

import pytest

from pcmc.errors import OutputError
from pcmc.runtime.files import replacing


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_whole_and_only_at_the_end(tmp_path):
    path = tmp_path / "a"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def fail(file, error: type[BaseException]) -> None:
    file.write(b"new")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_error_meanwhile_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        fail(file, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OutputError, match="a: can't be written: No space left on device"),
        replacing(path) as file,
    ):
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_disk_that_fails_while_bytes_are_written_is_the_same_error(tmp_path):
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OutputError, match="No space left on device"),
        replacing(tmp_path / "a"),
    ):
        full.write(b"new")
    assert names(tmp_path) == []


def test_folders_that_are_missing_or_in_the_way_are_clear_errors(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    for name, message in (
        ("folder", "is a folder: give the name of a file"), ("none/a", "No such file or directory"),
        ("file/a", "Not a directory"), ("x" * 300, "File name too long"), ("a\0b", "null character"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=message), replacing(tmp_path / name):
            pytest.fail("nothing can be written there")
    assert names(tmp_path) == ["file", "folder"]


def test_a_pipe_or_device_is_never_replaced_by_a_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"), replacing(tmp_path / "pipe"):
        pytest.fail("nothing can be written there")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"), replacing(tmp_path / "a"):
        pytest.fail("nothing can be written there")


def test_the_file_has_the_permissions_that_the_user_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    gate = threading.Barrier(2)

    def write(byte: bytes) -> None:
        with replacing(path) as file:
            file.write(byte * 100_000)
            gate.wait(10)
            file.write(byte * 100_000)

    writers = [threading.Thread(target=write, args=(byte,)) for byte in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in (b"a" * 200_000, b"b" * 200_000)
    assert names(tmp_path) == ["a"]
