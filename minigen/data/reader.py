"""Files from outside, read with every length checked first. Start at `Reader`; `check_sha256` is for whole archives.

A file from outside may be truncated, damaged, or made to hurt: a kilobyte of gzip can expand to a gigabyte. So a Reader
never holds more than the caller asked for plus one chunk, whatever the file claims, and every fault is a `DataError`.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from types import TracebackType

from minigen.data.dataset import DataError

CHUNK = 1 << 16  # bytes read, and at most bytes decompressed, in one step
DEFLATE_RATIO = 1032  # no deflate stream expands more than this (zlib technical details, "Maximum Compression Factor")
AGAIN = "Fetch the file again from its source"


class Reader:
    """Context manager that reads the contents of `path`; gzip is recognised by its first two bytes, not by the name.

    budget: the most bytes the file, as it lies on the disk, may have.
    Raises DataError for anything but a regular, readable file within the budget.

    size: bytes on the disk.   gzipped: whether these are compressed.
    """

    def __init__(self, path: Path | str, budget: int):
        self.path = Path(path)
        self._digest = hashlib.sha256()  # of the contents
        self._rest = b""  # contents that were decompressed but not asked for yet
        try:
            if not self.path.is_file():
                reason = "not a regular file" if self.path.exists() else "no such file"
                raise DataError(self.path, reason, "Check the path and MINIGEN_DATA")
            self.size = self.path.stat().st_size
            if self.size > budget:
                raise DataError(self.path, f"{self.size:,} bytes, more than the {budget:,} expected at most", AGAIN)
            with self.path.open("rb") as file:
                self.gzipped = file.read(2) == b"\x1f\x8b"
            self._file = self.path.open("rb")
        except OSError as error:
            raise DataError(self.path, f"cannot be opened: {error.strerror}", "Check its permissions") from error
        self._gzip = zlib.decompressobj(wbits=31)  # 31: gzip header and trailer, the trailer's CRC is checked

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def read(self, count: int, what: str) -> bytearray:
        """Exactly `count` bytes of the contents; `what` they are, for the message when there are fewer."""
        data = self.read_up_to(count)
        if len(data) < count:
            raise DataError(self.path, f"truncated: {len(data):,} of the {count:,} bytes of {what}", AGAIN)
        return data

    def read_up_to(self, count: int) -> bytearray:
        """The next `count` bytes of the contents, fewer only where they end."""
        data = bytearray()  # grows with what is really there, not with what a header declares
        while len(data) < count:
            piece = self._rest or self._next_piece()
            if not piece:
                break
            taken = count - len(data)
            data += piece[:taken]
            self._rest = piece[taken:]
        return data

    def finish(self, sha256: str | None = None) -> None:
        """Check that nothing follows what was read, and the SHA-256 of the contents where it is given."""
        if self._rest or self._next_piece():
            raise DataError(self.path, "trailing data after the declared contents", AGAIN)
        if sha256 is not None:
            _compare(self.path, "contents", self._digest, sha256)

    def _next_piece(self) -> bytes:
        """Some more of the contents, at most CHUNK bytes; empty at the end."""
        piece = self._inflate() if self.gzipped else self._read_raw()
        self._digest.update(piece)
        return piece

    def _inflate(self) -> bytes:
        while not self._gzip.eof:
            raw = self._gzip.unconsumed_tail or self._read_raw()
            try:
                piece = self._gzip.decompress(raw, CHUNK)
            except zlib.error as error:
                raise DataError(self.path, f"damaged gzip data ({error})", AGAIN) from error
            if piece:
                return piece
            if not raw:
                raise DataError(self.path, "truncated: the gzip data end early", AGAIN)
        if self._gzip.unused_data or self._read_raw():
            raise DataError(self.path, "trailing data after the end of the gzip stream", AGAIN)
        return b""

    def _read_raw(self) -> bytes:
        try:
            return self._file.read(CHUNK)
        except OSError as error:
            raise DataError(self.path, f"cannot be read: {error.strerror}", "Check the disk") from error


def check_sha256(path: Path | str, sha256: str) -> None:
    """Raise DataError unless the file, as it lies on the disk, has this SHA-256."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}", "Check its permissions and the disk") from error
    _compare(Path(path), "file", digest, sha256)


def _compare(path: Path, what: str, digest: hashlib._Hash, expected: str) -> None:
    if digest.hexdigest() != expected:
        reason = f"the SHA-256 of the {what} is {digest.hexdigest()}, expected {expected}"
        raise DataError(path, reason, f"{AGAIN}, after deleting this one")
