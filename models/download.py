"""Downloads the published archives of the data sets into the user's cache, once, and checks their hashes.

The addresses can be replaced, the hashes can't: a mirror serves the same bytes or is refused. Archives are
unpacked member by member, only those whose names are expected, each up to a bound, and put in place whole.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pcmc.errors import DataError

# Published members have 30.7 MB; nothing larger than this is unpacked.
MAX_MEMBER_BYTES = 400_000_000

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """A file to download: its name, its published SHA-256, and its wanted members if it is a tar archive."""

    file: str
    sha256: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set is published (`url` ends in a slash), and the archives that each split needs."""

    url: str
    subfolder: str
    archives: dict[str, tuple[Archive, ...]]


def _both(*archives: Archive) -> dict[str, tuple[Archive, ...]]:
    return {"train": archives, "test": archives}


SOURCES = {
    # The copy that torchvision downloads from, too; the hashes hold it to the published files.
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "mnist",
        {
            "train": (
                Archive(
                    "train-images-idx3-ubyte.gz",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                Archive(
                    "train-labels-idx1-ubyte.gz",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
            ),
            "test": (
                Archive(
                    "t10k-images-idx3-ubyte.gz",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                Archive(
                    "t10k-labels-idx1-ubyte.gz",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
        },
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        "cifar-10-batches-bin",
        _both(
            Archive(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
            )
        ),
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/",
        "cifar-100-binary",
        _both(
            Archive(
                "cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                ("train.bin", "test.bin"),
            )
        ),
    ),
}


def fetch(name: str, split: str, url: str | None = None) -> Path:
    """Return the cache folder with the files of one split of `name`, after downloading what is missing.

    `url` replaces the published address, and so does the environment variable PCMC_DATA_URL. Raises DataError
    where pooch is missing, the download fails, or the hash is not the published one.
    """
    source = SOURCES[name]
    base = url or os.environ.get("PCMC_DATA_URL") or source.url
    if not base.startswith(("http://", "https://")):
        raise DataError(f"{name}: can't download from {base!r}; an address begins with http:// or https://")
    root = _cache()
    folder = root / source.subfolder
    for archive in source.archives[split]:
        wanted = archive.members or (archive.file,)
        # Members are put in place whole and only after the archive's hash was checked.
        if archive.members and all((folder / member).is_file() for member in wanted):
            continue
        file = _download(f"{base.rstrip('/')}/{archive.file}", archive, root if archive.members else folder)
        if archive.members:
            _unpack(file, archive, source.subfolder, folder)
            file.unlink(missing_ok=True)
    return root


def _cache() -> Path:
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise DataError(
            "downloading a data set needs pooch: pip install pcmc[data]; or name a folder that has the files "
            "in the environment variable PCMC_DATA"
        ) from error
    return Path(pooch.os_cache("pcmc"))


def _download(address: str, archive: Archive, folder: Path) -> Path:
    """Return `archive` in `folder`, downloaded from `address` unless it is there with the right hash."""
    import pooch

    try:
        file = pooch.retrieve(address, f"sha256:{archive.sha256}", fname=archive.file, path=folder)
    except OSError as error:  # the errors of requests are OSErrors, too
        raise DataError(
            f"{address} can't be downloaded into {folder} ({type(error).__name__}: {error}); name another "
            "address in PCMC_DATA_URL, or a folder that has the files in PCMC_DATA"
        ) from error
    except ValueError as error:  # a wrong hash, the file is deleted then; or an address that can't be parsed
        raise DataError(f"{address} is refused: {error}") from error
    return Path(file)


def _unpack(file: Path, archive: Archive, subfolder: str, folder: Path) -> None:
    """Unpack the expected members of a tar archive into `folder`, and nothing else."""
    expected = {f"{subfolder}/{member}": member for member in archive.members}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "r:gz") as tar:
            for member in tar:
                target = expected.get(member.name.removeprefix("./"))
                if target is None or not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{file}: {member.name} has {member.size:,} bytes, more than it should")
                stream = tar.extractfile(member)
                if stream is not None:
                    _put(stream, folder / target)
                    del expected[member.name.removeprefix("./")]
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is not a whole tar archive ({error})") from error
    except OSError as error:
        raise DataError(f"{file} can't be unpacked into {folder}: {error}") from error
    if expected:
        raise DataError(f"{file} lacks {', '.join(sorted(expected))}")


def _put(stream: IO[bytes], target: Path) -> None:
    """Write `stream` beside `target` and move it there when complete, so that a killed run leaves no part."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            while piece := stream.read(_CHUNK):
                out.write(piece)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
