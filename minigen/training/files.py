"""Files that are never half written, and text that is never half believed.

Start at `replace_file`: it is the whole recipe for a file that survives a crash at any moment. Around it stand

    write_atomically, write_json, read_json   whole files: configuration, figures
    append_line, write_lines, read_lines      one JSON value per line: the metrics of a run
    make_folder, remove_orphans               what a run does before its first file
    parse_json                                JSON as the standard has it, with limits
    FileError, explained                      the one exception, and how an OSError becomes one

The functions of the first three rows raise `FileError`, and nothing else, when a file is the cause.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20  # bytes per write
MAX_JSON = 64 << 20  # bytes of JSON text that is believed
MAX_DEPTH = 100  # nested lists and objects in it

ORPHAN = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)  # names that `replace_file` gives its temporary files


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Put the bytes of `parts` at `path` so that a crash at any moment leaves the old file or the new one, whole.

    1. write a temporary file beside it    a rename is atomic only within one file system
    2. fsync the file                      else a power cut can leave the new name with empty content
    3. rename it over `path`               readers see the old bytes, then the new ones, nothing between
    4. fsync the folder                    else a power cut can undo the rename

    A failure in 1 to 3 removes the temporary file and leaves `path` as it was; after a failure in 4 the new file is
    in place and whole, but perhaps not for good. A killed process leaves the temporary file: see `remove_orphans`.

    Raises OSError.  Source: Pillai et al., "All file systems are not created equal", OSDI 2014.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            for part in parts:
                _write(file, part)
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first failure is the one to report; what stays behind is an orphan
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _write(file: int, data: bytes | memoryview) -> None:
    """All of `data`, in blocks: the system may take less than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest[:BLOCK]) :]


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; NTFS journals the rename itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------------------- errors


class FileError(Exception):
    """A file cannot be used. One line: which file, the reason, and the remedy; each is an attribute too."""

    def __init__(self, file: str | os.PathLike[str], reason: str, remedy: str):
        super().__init__(file, reason, remedy)
        self.file, self.reason, self.remedy = Path(file), reason, remedy

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}; {self.remedy}"


REMEDIES = {
    errno.ENOSPC: "free space on this disk, or choose a folder on another one",
    errno.EDQUOT: "free space within your quota, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another file system",
    errno.EIO: "check the disk or the network: the system could not move the data",
    errno.EACCES: "change the permissions of the file and its folder, or choose another folder",
    errno.EPERM: "change the permissions of the file and its folder, or choose another folder",
    errno.EROFS: "choose a folder on a file system that can be written",
    errno.ENOENT: "check the path",
    errno.EEXIST: "check the path: a file has this name",
    errno.ENOTDIR: "check the path: a part of it is a file, not a folder",
    errno.EISDIR: "check the path: it is a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "close files, or raise the limit on open ones (ulimit -n)",
}


@contextmanager
def explained(
    path: str | os.PathLike[str], problem: str, error: type[FileError] = FileError, remedies: dict[int, str] = REMEDIES
) -> Iterator[None]:
    """Inside this block an OSError or MemoryError about `path` becomes an `error`.

    problem: what could not be done ("cannot be read"); the reason of the system is added to it.
    """
    try:
        yield
    except OSError as cause:
        remedy = remedies.get(cause.errno or 0, "check the path and the disk")
        raise error(path, f"{problem}: {cause.strerror or cause}", remedy) from cause
    except MemoryError as cause:
        raise error(path, f"{problem}: out of memory", "free memory, or check that this is the right file") from cause


# ------------------------------------------------------------------------------------------------------ whole files


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, all of it or nothing: see `replace_file`."""
    with explained(path, "cannot be written"):
        replace_file(Path(path), [data])


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN, infinities and keys that collide as text are refused."""
    write_atomically(path, _json_bytes(path, value, indent=2))


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a file of JSON: see `parse_json` for what is refused."""
    with explained(path, "cannot be read"), open_regular(path) as file:
        text = file.read(MAX_JSON + 1)  # one more than is believed, so that a longer file is noticed
    return _parsed(path, text, "the file")


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading. A pipe would wait for ever, a device would never end: OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        reason = errno.EISDIR if os.path.isdir(path) else errno.EINVAL
        raise OSError(reason, "not an ordinary file", os.fspath(path))
    with open(path, "rb") as file:
        yield file


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Create `folder` and the folders above it where missing, for good: the entry of each is fsynced in its parent."""
    folder = Path(folder)
    with explained(folder, "cannot be created"):
        missing = [f for f in (folder, *folder.parents) if not f.is_dir()]
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync_folder(new.parent)
    return folder


def remove_orphans(folder: str | os.PathLike[str]) -> list[Path]:
    """Delete the temporary files that killed processes left in `folder`; returns their paths.

    Only the process that writes into a folder may call this: it would take the temporary file of another writer.
    """
    with explained(folder, "cannot be cleaned of temporary files"):
        orphans = sorted(p for p in Path(folder).iterdir() if ORPHAN.fullmatch(p.name))
        for orphan in orphans:
            os.unlink(orphan)
    return orphans


# ------------------------------------------------------------------------------------------------------- JSON lines


def append_line(path: str | os.PathLike[str], value: Any) -> None:
    """Add `value` as one line of JSON. A torn last line, from a process killed while writing, is cut off first.

    A failure leaves the complete lines that were there. NaN and infinities are refused: JSON has none. There is no
    fsync: a power cut may take the last lines, a checkpoint it may not. Raises FileError where it cannot be done.
    """
    line = _json_bytes(path, value, indent=None)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    with explained(path, "cannot be appended to"):
        file = os.open(path, flags, 0o666)
        try:
            end = _end_of_lines(file)
            if end != os.fstat(file).st_size:
                os.ftruncate(file, end)
            try:
                _write(file, line)
            except BaseException:
                with suppress(OSError):  # the first failure is the one to report; a torn line is cut next time
                    os.ftruncate(file, end)
                raise
        finally:
            os.close(file)


def _end_of_lines(file: int) -> int:
    """The position after the last newline."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 4096)
        os.lseek(file, start, os.SEEK_SET)
        newline = os.read(file, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_lines(path: str | os.PathLike[str]) -> list[Any]:
    """The values of a file of JSON lines. A torn last line is left out, as `append_line` would cut it off.

    Raises FileError for a file that cannot be read, or that holds something else.
    """
    values: list[Any] = []
    with explained(path, "cannot be read"), open_regular(path) as file:
        while (line := file.readline(MAX_JSON + 1)).endswith(b"\n"):
            values.append(_parsed(path, line, f"line {len(values) + 1}"))
    if len(line) > MAX_JSON:
        raise FileError(path, f"line {len(values) + 1} is longer than {MAX_JSON} bytes", "check that it is JSON lines")
    return values


def write_lines(path: str | os.PathLike[str], values: Iterable[Any]) -> None:
    """Replace a file of JSON lines, atomically; a resumed run drops the lines after its checkpoint this way."""
    write_atomically(path, b"".join(_json_bytes(path, value, indent=None) for value in values))


# ------------------------------------------------------------------------------------------------------------- JSON


def parse_json(text: bytes, max_bytes: int = MAX_JSON, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text in UTF-8, read strictly.

    Python's own reader takes NaN, lets the last of two equal keys win, turns 1e999 into infinity and exhausts its stack
    on deep nesting. All four are refused here, and more than `max_bytes` or `max_depth`.

    Raises ValueError.
    """
    if len(text) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes of JSON")
    decoded = text.decode("utf-8", "surrogatepass")  # keeps file names that are not UTF-8
    if _depth(decoded) > max_depth:
        raise ValueError(f"nested deeper than {max_depth} levels")
    return json.loads(decoded, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)


def _depth(text: str) -> int:
    """How deep brackets nest outside strings. Linear: the possessive quantifiers never step back."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', text):
        match token[0]:
            case "[" | "{":
                depth += 1
                deepest = max(deepest, depth)
            case "]" | "}":
                depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name[:40]!r} appears twice in one object")
        result[name] = value
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _parsed(path: str | os.PathLike[str], text: bytes, what: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as cause:
        raise FileError(path, f"{what} is not valid JSON: {cause}", "correct it, or delete the file") from cause


def _json_bytes(path: str | os.PathLike[str], value: Any, indent: int | None) -> bytes:
    """`value` as JSON text with a final newline, read back once so that nothing is written that would be refused."""
    try:
        text = json.dumps(value, indent=indent).encode() + b"\n"
        parse_json(text)
    except (TypeError, ValueError, RecursionError) as cause:
        remedy = "use finite numbers, text, lists and dicts with text as keys"
        raise FileError(path, f"not written, the value is not JSON: {cause}", remedy) from cause
    return text
