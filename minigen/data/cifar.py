"""CIFAR-10 in its binary format, from single batch files or from the published archive. Start at `load_split`.

A batch file is a run of records of 3,073 bytes: a label, then the 32 x 32 red values row by row, the green, the blue
(Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"). The pickled version is never touched:
unpickling a file from outside runs whatever code it contains.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minigen.data.dataset import DataError, Dataset
from minigen.data.files import Archive, find, obtain, user_folder
from minigen.data.reader import AGAIN, Reader, check_sha256

SIDE, CHANNELS, CLASSES = 32, 3, 10
RECORD = 1 + CHANNELS * SIDE * SIDE  # bytes
BATCH = 10_000  # records in a published batch file, the most that one may have
FOLDER = "cifar-10-batches-bin"  # inside the archive
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
ARCHIVE = Archive(
    "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
)
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)


def load_split(split: str, cache: Path | str | None = None) -> Dataset:
    """Small colour photographs of ten classes: x (N, 32, 32, 3) in [0, 1], y (N,) in 0..9.

    Batch files in $MINIGEN_DATA/cifar10/, gzipped or not, are taken first: as many of the split's as are there, which
    `description` counts. No checksum of single batches is published, so these are trusted as to the values. Otherwise
    the published archive is found or downloaded, checked, and read. Raises DataError.
    """
    if paths := _batch_files(split):
        records = [read_batch(path) for path in paths]
        source = f"{paths[0].parent} (no checksum of the contents is known)"
    else:
        path = obtain("cifar10", ARCHIVE, MIRRORS, cache)
        records = read_archive(path, BATCHES[split])
        source = str(path)
    images, labels = zip(*map(decode, records), strict=True)
    return Dataset(
        name="cifar10",
        split=split,
        x=np.concatenate(images),  # (N, 32, 32, 3)
        y=np.concatenate(labels),
        levels=256,
        entropy=None,
        source=source,
        description=f"colour photographs, 32 x 32; {len(records)} of {len(BATCHES[split])} {split} batches",
    )


def where(cache: Path | str | None = None) -> str | None:
    """What holds both splits on this machine, or None where the archive would have to be downloaded. Reads nothing."""
    if all(_batch_files(split) for split in BATCHES):
        return str(_batch_files("train")[0].parent)
    archive = find("cifar10", ARCHIVE, cache)
    return None if archive is None else str(archive)


def decode(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Records (N, 3073) uint8 -> images (N, 32, 32, 3) float32 in [0, 1], labels (N,) int64."""
    planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)  # (N, 3, 32, 32)
    pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
    return np.divide(pixels, np.float32(255), dtype=np.float32), records[:, 0].astype(np.int64)


def read_batch(path: Path | str, batch: int = BATCH) -> np.ndarray:
    """Records (N, 3073) uint8 of a batch file, plain or gzipped, of 1 to `batch` records. Raises DataError."""
    with Reader(path, budget=batch * RECORD + 65_536) as reader:  # gzip adds a little to what it cannot compress
        data = reader.read_up_to(batch * RECORD)
        reader.finish()
    return _records(path, data)


def read_archive(
    path: Path | str, names: Sequence[str], sha256: str = ARCHIVE.sha256, batch: int = BATCH
) -> list[np.ndarray]:
    """Records (batch, 3073) uint8 of each of the batch files `names` inside the published archive.

    The archive's SHA-256 is checked before it is parsed, and nothing is written to the disk. Raises DataError.
    """
    check_sha256(path, sha256)
    found = {}
    try:
        with tarfile.open(path, "r|gz") as tar:  # a stream: one pass, no seeking
            for member in tar:
                name = member.name.removeprefix(FOLDER + "/")
                if name in names and name not in found:
                    found[name] = _read_member(path, tar, member, batch * RECORD)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(path, f"damaged archive ({error})", AGAIN) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(path, f"the archive has no {FOLDER}/{missing[0]}", AGAIN)
    return [_records(path, found[name]) for name in names]


def _read_member(path: Path | str, tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> bytes:
    if not member.isfile() or member.size != size:
        raise DataError(path, f"{member.name} has {member.size:,} bytes, expected a file of {size:,}", AGAIN)
    content = tar.extractfile(member)
    data = b"" if content is None else content.read(size)
    if len(data) != size:
        raise DataError(path, f"{member.name} is truncated: {len(data):,} of {size:,} bytes", AGAIN)
    return data


def _records(path: Path | str, data: bytes | bytearray) -> np.ndarray:
    if not data or len(data) % RECORD:
        reason = f"{len(data):,} bytes of contents, which is not a positive multiple of the record size {RECORD:,}"
        raise DataError(path, reason, AGAIN)
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= CLASSES:
        raise DataError(path, f"label {records[:, 0].max()}, expected 0 to {CLASSES - 1}", AGAIN)
    return records


def _batch_files(split: str) -> list[Path]:
    """The batch files of `split` that are in $MINIGEN_DATA/cifar10/, in order."""
    folder = user_folder()
    if folder is None:
        return []
    pairs = ((folder / "cifar10" / name, folder / "cifar10" / f"{name}.gz") for name in BATCHES[split])
    found = (next((path for path in pair if path.exists()), None) for pair in pairs)
    return [path for path in found if path is not None]
