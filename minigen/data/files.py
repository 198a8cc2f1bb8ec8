"""Where the files of a data set come from: the user's folder, the cache, or a download. Start at `obtain`.

In this order, for the file F of the data set D:

    $MINIGEN_DATA/D/F     put there by the user, gzipped or not
    CACHE/D/F             downloaded before; CACHE is the operating system's cache folder, such as ~/.cache/minigen
    a download into CACHE, from the first mirror that delivers the published SHA-256
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from minigen.data.dataset import DataError

STALE = 24 * 3600.0  # seconds after which a .part file must be the orphan of a killed download
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of data


@dataclass(frozen=True)
class Archive:
    """A published file.

    name: as published.   size: bytes.   sha256: of the file as published.
    contents: SHA-256 of what is inside the .gz, or None where it is not known.
    """

    name: str
    size: int
    sha256: str
    contents: str | None = None


def obtain(dataset: str, archive: Archive, mirrors: tuple[str, ...], cache: Path | str | None = None) -> Path:
    """Path of `archive`, found or else downloaded to the cache folder `cache` (None: the default one).

    mirrors: addresses of folders, each ending in "/", tried in turn.
    Raises DataError where the file is nowhere and cannot be downloaded.
    """
    found = find(dataset, archive, cache)
    return found if found is not None else download(archive, mirrors, cache_folder(cache) / dataset)


def find(dataset: str, archive: Archive, cache: Path | str | None = None) -> Path | None:
    """Path of `archive`, or of its contents, on this machine; None where it is nowhere. Reads nothing."""
    candidates = [cache_folder(cache) / dataset / archive.name]
    if (folder := user_folder()) is not None:
        candidates[:0] = [folder / dataset / archive.name, folder / dataset / archive.name.removesuffix(".gz")]
    return next((path for path in candidates if path.exists()), None)


def is_users(path: Path) -> bool:
    """Whether `path` lies in $MINIGEN_DATA, so that it need not be the published file byte for byte."""
    folder = user_folder()
    return folder is not None and path.is_relative_to(folder)


def user_folder() -> Path | None:
    """$MINIGEN_DATA, or None where it is unset or empty. Raises DataError where it is not a folder."""
    value = os.environ.get("MINIGEN_DATA", "")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(folder, "MINIGEN_DATA names this, which is not a folder", "Correct the variable or unset it")
    return folder


def cache_folder(cache: Path | str | None) -> Path:
    """The folder that downloads are kept in: `cache`, or the operating system's place for it."""
    if cache is not None:
        return Path(cache)
    import pooch  # lazily: with the packages that it needs it takes a tenth of a second

    return Path(pooch.os_cache("minigen"))


def download(archive: Archive, mirrors: tuple[str, ...], folder: Path) -> Path:
    """Download `archive` into `folder`: to a .part file, verified, flushed to the disk, and only then renamed.

    Raises DataError naming the file, every mirror with what went wrong there, and the remedy. No file is left then.
    """
    target = folder / archive.name
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_orphans(target)
        for mirror in mirrors:
            try:
                _download_from(mirror + archive.name, archive, target)
            except _BadMirror as failure:
                failures.append(f"{mirror}: {failure}")
            else:
                return target
    except OSError as error:
        remedy = "Make the folder writable and leave it some room, or choose another cache folder"
        raise DataError(target, f"cannot be written: {error.strerror or error}", remedy) from error
    reason = f"not on this machine, and no mirror delivered it: {'; '.join(failures)}"
    remedy = f"Connect to the network, or put the file into a folder {folder.name} and set MINIGEN_DATA to its parent"
    raise DataError(target, reason, remedy)


def _download_from(url: str, archive: Archive, target: Path) -> None:
    """Download to a temporary file beside `target`, verify it, flush it to the disk, and only then rename it.

    Raises _BadMirror for what is the mirror's fault, OSError for what is this machine's. Both leave no file behind.
    """
    part = target.with_name(f"{target.name}.{secrets.token_hex(8)}.part")  # its own name for each process
    try:
        with part.open("xb") as file:
            _transfer(url, archive, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _fsync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)  # after the rename it is no longer there


def _transfer(url: str, archive: Archive, file: IO[bytes]) -> None:
    """Write what `url` delivers into `file`. Raises _BadMirror unless it is `archive`."""
    import pooch

    responses: list[Any] = []  # pooch leaves the connection open where a transfer is given up
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # the bytes as published, not decompressed on the way
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    writer = _VerifyingWriter(file, archive)
    try:
        downloader(url, writer, None)
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; a malformed header gives a ValueError
        if writer.fault is not None:
            raise writer.fault from None
        response = getattr(error, "response", None)
        raise _BadMirror(type(error).__name__ if response is None else f"HTTP status {response.status_code}") from error
    finally:
        for opened in responses:
            opened.close()
    writer.verify()


class _BadMirror(Exception):
    """A mirror did not deliver the file; the text says why."""


class _VerifyingWriter:
    """File-like: passes what is written on to `file`, hashes it, and takes no more bytes than `archive` has."""

    def __init__(self, file: IO[bytes], archive: Archive):
        self.file, self.archive = file, archive
        self.count, self.digest = 0, hashlib.sha256()
        self.fault: OSError | None = None  # a failure of this machine to write, which no other mirror would mend

    def write(self, data: bytes) -> int:
        self.count += len(data)
        if self.count > self.archive.size:
            raise _BadMirror(f"more than the published {self.archive.size:,} bytes")
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.fault = error
            raise

    def flush(self) -> None:
        """pooch asks for this after every piece; the file is flushed once, at the end."""

    def verify(self) -> None:
        """Raise _BadMirror unless all of the archive, and nothing else, was written."""
        if self.count != self.archive.size:
            raise _BadMirror(f"{self.count:,} bytes instead of the published {self.archive.size:,}")
        if self.digest.hexdigest() != self.archive.sha256:
            raise _BadMirror(f"SHA-256 {self.digest.hexdigest()} instead of the published {self.archive.sha256}")


def _remove_orphans(target: Path) -> None:
    """Remove the .part files that downloads of `target` left when they were killed, not those still under way."""
    for orphan in target.parent.glob(target.name + ".*.part"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if time.time() - orphan.stat().st_mtime > STALE:
                orphan.unlink()


def _fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure. (Windows cannot open folders, and does not need it.)"""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
