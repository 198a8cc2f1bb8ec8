"""The IDX format of MNIST and its relatives, read with suspicion. Start at `read_idx`.

    offset  bytes        meaning                                  (LeCun, Cortes & Burges, "The MNIST database")
    0       2            zero
    2       1            type code of the elements; 0x08 is the unsigned byte, which is all that images and labels need
    3       1            number of dimensions d
    4       4 d          each dimension, big-endian unsigned
    4+4d    product      the elements, last dimension fastest
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from minigen.data.dataset import DataError
from minigen.data.reader import AGAIN, DEFLATE_RATIO, Reader

BUDGET = 128 << 20  # bytes; more than twice the largest file of the MNIST family
UNSIGNED_BYTE = 0x08
TYPES = {0x08: "unsigned byte", 0x09: "signed byte", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
MAX_DIMENSIONS = 4


def read_idx(
    path: Path | str,
    shape: tuple[int, ...] | None = None,
    sha256: str | None = None,
    budget: int = BUDGET,
) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped: uint8 array of the shape that the file declares.

    shape: what the file has to declare, where it is known.
    sha256: hexadecimal SHA-256 of the uncompressed contents, where it is known.
    budget: the largest number of bytes that the file may have or declare.

    Raises DataError for a file that is missing, damaged or not as expected, in time and memory bounded by the budget.
    """
    with Reader(path, budget) as reader:
        declared = _read_header(reader)
        if shape is not None and declared != shape:
            raise DataError(path, f"declares shape {declared}, expected {shape}", AGAIN)
        count = math.prod(declared)  # Python integers: four dimensions of 2^32 do not wrap around
        _check_size(reader, declared, count, budget)
        elements = reader.read(count, f"elements for the declared shape {declared}")
        reader.finish(sha256)
    return np.frombuffer(elements, np.uint8).reshape(declared)


def check_labels(path: Path | str, labels: np.ndarray, count: int, classes: int) -> None:
    """Raise DataError unless `labels` is one label in 0 .. classes - 1 for each of `count` images."""
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(path, f"labels of shape {labels.shape} for {count:,} images, expected ({count},)", AGAIN)
    if labels.max() >= classes:
        raise DataError(path, f"label {labels.max()}, expected 0 to {classes - 1}", AGAIN)


def _read_header(reader: Reader) -> tuple[int, ...]:
    """The declared dimensions, each at least 1."""
    magic = reader.read(4, "IDX header")
    if magic[:2] == b"\x1f\x8b":
        raise DataError(reader.path, "gzip inside gzip", "Decompress the file once")
    if magic[:2] != b"\0\0":
        raise DataError(reader.path, f"not an IDX file: it starts with {magic.hex(' ')}, not with 00 00", AGAIN)
    code, dimensions = magic[2], magic[3]
    if code != UNSIGNED_BYTE:
        kind = TYPES.get(code, "unknown")
        raise DataError(reader.path, f"IDX element type {code:#04x} ({kind}), expected 0x08 (unsigned byte)", AGAIN)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise DataError(reader.path, f"declares {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}", AGAIN)
    sizes = reader.read(4 * dimensions, "IDX dimensions")
    declared = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if 0 in declared:
        raise DataError(reader.path, f"declares the empty shape {declared}", AGAIN)
    return declared


def _check_size(reader: Reader, declared: tuple[int, ...], count: int, budget: int) -> None:
    """Compare the declared size with the budget and with the file's, before a byte of it is allocated."""
    if count > budget:
        reason = f"declares shape {declared}, {count:,} bytes, more than the budget of {budget:,}"
        raise DataError(reader.path, reason, "If the file is to be trusted, pass a larger budget to read_idx")
    total = 4 + 4 * len(declared) + count
    if reader.gzipped and total > reader.size * DEFLATE_RATIO:
        reason = f"declares shape {declared}, {total:,} bytes, which {reader.size:,} bytes of gzip cannot hold"
        raise DataError(reader.path, reason, AGAIN)
    if not reader.gzipped and total != reader.size:
        reason = f"declares shape {declared}, {total:,} bytes, but has {reader.size:,}"
        raise DataError(reader.path, reason, AGAIN)
