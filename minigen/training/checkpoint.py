"""Checkpoints: the whole state of a run in one file, which is either exactly what was saved or refused.

Start at `save` and `load`; `Checkpoints` numbers the files of a run and keeps the newest good ones. A file is

    magic     8 bytes     b"minigen\\0"
    version   uint32      1
    length    uint64      bytes of payload; the file ends with it
    digest    32 bytes    SHA-256 of the 20 bytes above and the payload
    payload               a safetensors file: the arrays, named "0", "1", ..., and "tree", the text that says where
                          in the nested state each of them belongs, and holds everything that is no array

so every byte is either part of the digest or under it, and the digest is checked before anything is parsed: safetensors
alone has no checksum and reads most damaged files without complaint. Nothing is ever unpickled. How a file comes to be
whole or absent after a crash is told in `files.replace_file`.

`CheckpointError` is the only exception that a file, or a state that no file can hold, raises here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from .files import (
    MAX_JSON,
    FileError,
    explained,
    make_folder,
    open_regular,
    parse_json,
    remove_orphans,
    replace_file,
)

MAGIC, VERSION = b"minigen\0", 1  # count the version up when the format changes
PREFIX = struct.Struct("<8sIQ")  # magic, version, length
HEADER = PREFIX.size + hashlib.sha256().digest_size  # 52 bytes, then the payload

DTYPES = {np.dtype("?"): "BOOL"}  # and little-endian numbers: their names in safetensors
DTYPES |= {np.dtype(f"<{kind}{size}"): f"{kind.upper()}{8 * size}" for kind in "iu" for size in (1, 2, 4, 8)}
DTYPES |= {np.dtype(f"<f{size}"): f"F{8 * size}" for size in (2, 4, 8)}
MAX_NESTING = 32  # of dicts, lists and tuples in a state

OLDER = "delete it and resume from an older checkpoint, or from a copy"


class CheckpointError(FileError):
    """A checkpoint cannot be written, read, trusted or used. One line: file, reason, remedy; each an attribute too."""


def save(path: str | os.PathLike[str], state: dict[str, Any], *, meta: dict[str, Any]) -> None:
    """Write `state` and `meta` to `path`: after a crash or an error at any moment the old file is there, or the new.

    state, meta: dicts with str keys, of dicts, lists, tuples, int (of any size), float, str, bool, None and arrays
        (bool, integers, float16 to float64; any shape and memory layout), nested at most 32 deep. `load` returns them
        exactly: floats bit for bit with NaN and infinities, dicts in their order, arrays with dtype and shape, in C
        order. An array that stands in two places is saved twice. NumPy scalars are refused rather than turned into
        Python's: the two promote differently, and a resumed run would drift.

    Arrays are written from where they lie, without a copy unless their layout asks for one; nothing may change them
    meanwhile. Raises CheckpointError; `path` is then as it was, unless the very last step failed, the fsync of the
    folder, which leaves the new file, whole.
    """
    with explained(path, "the checkpoint cannot be written", CheckpointError):
        payload = _pack(state, meta, path)
        prefix = PREFIX.pack(MAGIC, VERSION, sum(map(len, payload)))
        replace_file(Path(path), [prefix + _digest(prefix, *payload), *payload])


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the meta that `save` was given; the arrays are new, writable and in C order.

    Raises CheckpointError for a file that is missing, unreadable, foreign, of another version, truncated or damaged in
    any byte. Sizes that the file declares are compared with its size before memory is taken for them. Needs memory for
    the file and the arrays at once.
    """
    with explained(path, "the checkpoint cannot be read", CheckpointError), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(HEADER)
        length = _payload_length(header, size, path)
        payload = file.read(length)
        prefix, digest = header[: PREFIX.size], header[PREFIX.size :]
        if _digest(prefix, payload) != digest:
            raise CheckpointError(path, "damaged: its content does not match its SHA-256", OLDER)
        return _unpack(payload, path)


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _payload_length(header: bytes, size: int, path: str | os.PathLike[str]) -> int:
    if not header.startswith(MAGIC[: len(header)]):
        raise CheckpointError(path, "not a minigen checkpoint, or damaged in its first bytes", "check the path")
    if len(header) < HEADER:
        raise CheckpointError(path, f"truncated: {size} bytes, and the header alone takes {HEADER}", OLDER)
    _, version, length = PREFIX.unpack_from(header)
    if version != VERSION:
        reason = f"format version {version}, and this minigen reads version {VERSION}"
        raise CheckpointError(path, reason, "load it with the version of minigen that wrote it")
    if size != HEADER + length:
        problem = "truncated" if size < HEADER + length else "too long"
        raise CheckpointError(path, f"{problem}: {size} bytes where its header says {HEADER + length}", OLDER)
    return length


# ------------------------------------------------------------------------------------------------ a run's checkpoints


@dataclass(frozen=True)
class Latest:
    """The newest checkpoint that can be trusted, and what was wrong with newer ones: tell the user about `rejected`."""

    step: int
    path: Path
    state: dict[str, Any]
    meta: dict[str, Any]
    rejected: list[CheckpointError]


class Checkpoints:
    """The checkpoints of one run: `folder`/step-00001234.ckpt, the newest `keep` good ones.

    Reading changes nothing in the folder, so a run can be looked at while it trains. `save` creates the folder and
    first removes temporary files that killed processes left; so only one process may save into a folder.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep = {keep}: the number of checkpoints to keep is at least 1")
        self.folder, self.keep = Path(folder), keep
        self._good: dict[Path, tuple[int, ...]] = {}  # files known to verify, and `_identity` when they did

    def path(self, step: int) -> Path:
        """The file of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}.ckpt"

    def steps(self) -> list[int]:
        """The steps of all checkpoints in the folder, good or not, ascending; none if there is no folder."""
        with explained(self.folder, "the checkpoints cannot be listed", CheckpointError):
            names = os.listdir(self.folder) if self.folder.exists() else []
        found = (int(m[1]) for m in map(re.compile(r"step-(\d{8,18})\.ckpt").fullmatch, names) if m)
        return sorted(step for step in found if self.path(step).name in names)

    def save(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> Path:
        """Write the checkpoint of `step`, then delete those older than the newest `keep` that verify.

        meta: gets "step" added. Raises CheckpointError, also when a good checkpoint of a later step is there: `latest`
        would go on returning that one.
        """
        if step < 0:
            raise ValueError(f"step = {step}: steps count from 0")
        try:
            make_folder(self.folder)
            remove_orphans(self.folder)
        except FileError as error:
            raise CheckpointError(error.file, error.reason, error.remedy) from error
        if later := next((s for s in self.steps() if s > step and self._verifies(s)), None):
            reason = f"the folder has a checkpoint of a later step, {later}"
            raise CheckpointError(self.path(step), reason, "resume from that one, or choose an empty folder")
        path = self.path(step)
        save(path, state, meta={**meta, "step": step})
        self._good[path] = _identity(path)
        self._prune()
        return path

    def delete(self, step: int) -> None:
        """Remove the checkpoint of `step`, which turned out to be of no use. Raises CheckpointError."""
        path = self.path(step)
        with explained(path, "this checkpoint cannot be deleted", CheckpointError):
            os.unlink(path)
        self._good.pop(path, None)

    def latest(self) -> Latest:
        """The newest checkpoint that verifies, with the errors of the newer ones that do not, newest first.

        Raises CheckpointError if there is none, or none that verifies.
        """
        rejected: list[CheckpointError] = []
        for step in reversed(self.steps()):
            try:
                state, meta = self._load(step)
            except CheckpointError as error:
                rejected.append(error)
            else:
                return Latest(step, self.path(step), state, meta, rejected)
        if not rejected:
            raise CheckpointError(self.folder, "no checkpoint here", "check the path, or start a new run")
        reason = f"none of {len(rejected)} checkpoints can be used; the newest is {rejected[0].reason}"
        raise CheckpointError(self.folder, reason, "restore one from a copy, or start a new run")

    def _load(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        path = self.path(step)
        state, meta = load(path)
        if meta.get("step") != step:
            reason = f"named as step {step} but saved as step {meta.get('step')}"
            raise CheckpointError(path, reason, "give it back its name, or delete it")
        self._good[path] = _identity(path)
        return state, meta

    def _verifies(self, step: int) -> bool:
        """Whether the checkpoint of `step` loads; read again only if the file has changed since it last did."""
        path = self.path(step)
        try:
            if self._good.get(path) != _identity(path):
                self._load(step)
        except CheckpointError:
            return False
        return True

    def _prune(self) -> None:
        good = 0
        for step in reversed(self.steps()):
            path = self.path(step)
            if good == self.keep:
                with explained(path, "saved the new checkpoint, but cannot delete this old one", CheckpointError):
                    os.unlink(path)
                self._good.pop(path, None)
            elif self._verifies(step):
                good += 1


def _identity(path: Path) -> tuple[int, ...]:
    """Changes whenever the file is written or replaced."""
    with explained(path, "the checkpoint cannot be read", CheckpointError):
        status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def require_same(
    saved: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], file: str | os.PathLike[str]
) -> None:
    """Make sure that the arrays read from `file` fit those of the model: same names, shapes and dtypes.

    Raises CheckpointError that names the first difference, in the order of `expected`.
    """
    remedy = "use the model and options that the run was started with"
    for name, array in expected.items():
        if name not in saved:
            raise CheckpointError(file, f"{name!r} is missing: the model has it with shape {array.shape}", remedy)
        for what in ("shape", "dtype"):
            theirs, ours = getattr(saved[name], what), getattr(array, what)
            if theirs != ours:
                raise CheckpointError(file, f"{name!r} has {what} {theirs} in the file and {ours} in the model", remedy)
    for name, array in saved.items():
        if name not in expected:
            raise CheckpointError(file, f"{name!r}, of shape {array.shape}, is not in the model", remedy)


# ---------------------------------------------------------------------------------------- nested state <-> safetensors
#
# The tree is JSON. What JSON lacks is an object with one key that starts with "$":
#
#     {"$array": "3"}                   the array of that name        {"$tuple": [...]}   a tuple
#     {"$float": "7ff0000000000000"}    the eight bytes of a float    {"$int": "0x1f..."}  an int of more than 64 bits
#
# and a "$" at the start of a key of the state's own is doubled.


def _pack(state: dict[str, Any], meta: dict[str, Any], path: str | os.PathLike[str]) -> list[bytes | memoryview]:
    """The payload that holds `state` and `meta`, in parts."""
    arrays: dict[str, np.ndarray] = {}
    try:
        if not (type(state) is dict and type(meta) is dict):
            raise TypeError(f"state is {_kind(state)} and meta {_kind(meta)}; both are dicts")
        tree = {name: _encode(part, name, arrays, MAX_NESTING) for name, part in (("state", state), ("meta", meta))}
        text = json.dumps(tree, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
        if len(text) > MAX_JSON:
            raise ValueError(f"its text is longer than {MAX_JSON} bytes; keep long lists of numbers as arrays")
    except (TypeError, ValueError) as cause:
        raise CheckpointError(path, f"not written: {cause}", "see minigen.training.checkpoint.save") from cause
    arrays["tree"] = np.frombuffer(text, np.uint8)
    return _safetensors(arrays)


def _safetensors(arrays: dict[str, np.ndarray]) -> list[bytes | memoryview]:
    """A safetensors file, in parts: the length of a header, the header, then the memory of one array after another.

    Written here because `safetensors.numpy.save` takes two copies of all arrays on its way; its `load` reads this.
    """
    header, end = {}, 0
    by_size = sorted(arrays.items(), key=lambda item: -item[1].itemsize)  # keeps each array aligned in the file
    for name, array in by_size:
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text, *(array.reshape(-1).view(np.uint8).data for _, array in by_size)]


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _encode(value: Any, where: str, arrays: dict[str, np.ndarray], levels: int) -> Any:
    """`value` in terms of JSON; its arrays go into `arrays`. Types are compared exactly: np.float64 is also a float."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if kind is np.ndarray:
        if value.dtype not in DTYPES:
            raise TypeError(f"{where} is an array of {value.dtype!r}; use native bool, integers or float16 to float64")
        name = str(len(arrays))
        arrays[name] = np.asarray(value, order="C")  # the memory is written as it lies, whatever the strides
        return {"$array": name}
    if kind not in (dict, list, tuple):
        raise TypeError(f"{where} is {_kind(value)}; use dict, list, tuple, array, int, float, str, bool, None")
    if levels == 0:
        raise ValueError(f"{where[:60]}... is nested deeper than {MAX_NESTING} levels, or contains itself")
    if kind is dict:
        if wrong := [key for key in value if type(key) is not str]:
            raise TypeError(f"{where} has the key {wrong[0]!r}; use str")
        return {
            "$" + key if key.startswith("$") else key: _encode(v, f"{where}[{key!r}]", arrays, levels - 1)
            for key, v in value.items()
        }
    items = [_encode(v, f"{where}[{i}]", arrays, levels - 1) for i, v in enumerate(value)]
    return {"$tuple": items} if kind is tuple else items


def _unpack(payload: bytes, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and meta in a payload whose digest is right, so only a foreign or forged one fails here."""
    try:
        arrays = safetensors.numpy.load(payload)
        whole = _decode(parse_json(arrays.pop("tree").tobytes()), arrays)
        if arrays:
            raise ValueError(f"array {min(arrays)!r} belongs nowhere")
        if not (isinstance(whole, dict) and list(whole) == ["state", "meta"]):
            raise ValueError("it holds no state and meta")
        state, meta = whole["state"], whole["meta"]
        if not (isinstance(state, dict) and isinstance(meta, dict)):
            raise ValueError("its state or meta is no dict")
    except (SafetensorError, struct.error, ValueError, KeyError) as cause:
        detail = f"{type(cause).__name__}: {cause}"[:200]
        reason = f"its SHA-256 is right but its content is no checkpoint: {detail}"
        raise CheckpointError(path, reason, "check what wrote this file") from cause
    return state, meta


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo `_encode`. Every array is used once: it leaves `arrays`."""
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if not any(_is_tag(key) for key in value):
        return {key.removeprefix("$"): _decode(v, arrays) for key, v in value.items()}
    if len(value) > 1:
        raise ValueError(f"an object with a tag has other keys: {', '.join(sorted(value))[:80]}")
    [(tag, content)] = value.items()
    match tag, content:
        case "$array", str():
            return arrays.pop(content)
        case "$tuple", list():
            return tuple(_decode(content, arrays))
        case "$int", str():
            return int(content, 16)
        case "$float", str():
            return struct.unpack(">d", bytes.fromhex(content))[0]
    raise ValueError(f"the tag {tag[:40]!r} is unknown, or its content is wrong")


def _is_tag(key: str) -> bool:
    return key.startswith("$") and not key.startswith("$$")
