"""`read_idx` believes nothing: every bad file is one DataError, soon and in little memory. Start at BAD_FILES."""

import gzip
import hashlib
import os
import time
import tracemalloc

import numpy as np
import pytest

from minigen.data.dataset import DataError
from minigen.data.idx import check_labels, read_idx
from minigen.data.reader import CHUNK, Reader

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def encode(array: np.ndarray, code: int = 0x08) -> bytes:
    """The IDX bytes of a uint8 array, written independently of the package."""
    dimensions = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + dimensions + array.tobytes()


def header(*dimensions: int, code: int = 0x08) -> bytes:
    return bytes([0, 0, code, len(dimensions)]) + b"".join(size.to_bytes(4, "big") for size in dimensions)


GOOD = encode(IMAGES)
ZIPPED = gzip.compress(GOOD)

BAD_FILES = {  # name -> (bytes, what the message has to say)
    "empty": (b"", "truncated: 0 of the 4 bytes of IDX header"),
    "cut in the magic": (GOOD[:3], "truncated: 3 of the 4 bytes"),
    "cut in the dimensions": (GOOD[:9], "truncated: 5 of the 12 bytes of IDX dimensions"),
    "cut in the elements": (GOOD[:-1], "76 bytes, but has 75"),
    "one byte more": (GOOD + b"\0", "76 bytes, but has 77"),
    "not IDX": (b"P5 28 28", "not an IDX file: it starts with 50 35 20 32"),
    "type float32": (encode(IMAGES, code=0x0D), "element type 0x0d (float32)"),
    "type unknown": (encode(IMAGES, code=0x77), "element type 0x77 (unknown)"),
    "no dimension": (b"\0\0\x08\0", "declares 0 dimensions"),
    "too many dimensions": (header(*[1] * 5) + b"\1", "declares 5 dimensions"),
    "255 dimensions": (b"\0\0\x08\xff", "declares 255 dimensions"),
    "an empty dimension": (header(5, 0, 3), "empty shape (5, 0, 3)"),
    "a terabyte": (header(1 << 20, 1 << 20) + b"\1", "1,099,511,627,776 bytes, more than the budget"),
    "a product of 2^128": (header(*[0xFFFFFFFF] * 4), "more than the budget"),
    "a product of 2^64": (header(1 << 16, 1 << 16, 1 << 16, 1 << 16), "more than the budget"),
    "gzip that is too small": (gzip.compress(header(100_000_000)), "which 28 bytes of gzip cannot hold"),
    "gzip cut in the data": (ZIPPED[:-20], "the gzip data end early"),
    "gzip cut in the trailer": (ZIPPED[:-3], "the gzip data end early"),
    "gzip with trailing zeros": (ZIPPED + b"\0", "trailing data after the end of the gzip stream"),
    "gzip with a second member": (ZIPPED + ZIPPED, "trailing data after the end of the gzip stream"),
    "gzip with more contents": (gzip.compress(GOOD + b"\0"), "trailing data after the declared contents"),
    "gzip with less contents": (gzip.compress(GOOD[:-1]), "truncated: 59 of the 60 bytes of elements"),
    "gzip with a wrong CRC": (ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "damaged gzip data"),
    "gzip in gzip": (gzip.compress(ZIPPED), "gzip inside gzip"),
}


@pytest.fixture
def put(tmp_path):
    def put(data: bytes, name: str = "file.idx"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (5, 4, 3), (2, 1, 3, 2), (3 * CHUNK + 1,)], ids=str)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_what_was_written(put, shape, compress):
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    path = put(compress(encode(array)), "any-name")  # gzip is recognised by contents
    result = read_idx(path, shape, hashlib.sha256(encode(array)).hexdigest())
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(put, name):
    data, message = BAD_FILES[name]
    path = put(data)
    with pytest.raises(DataError) as error:
        read_idx(path)
    assert message in str(error.value)
    assert error.value.file == str(path)
    assert "\n" not in str(error.value)


def test_unexpected_shape_and_checksum(put):
    path = put(GOOD)
    with pytest.raises(DataError, match=r"declares shape \(5, 4, 3\), expected \(5, 3, 4\)"):
        read_idx(path, shape=(5, 3, 4))
    with pytest.raises(DataError, match=r"SHA-256 of the contents is .*, expected 00"):
        read_idx(path, sha256="00" * 32)
    with pytest.raises(DataError, match="76 bytes, more than the 75 expected at most"):
        read_idx(path, budget=75)


def test_things_that_are_no_files(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # reading it would wait for ever
    for path, message in ((tmp_path, "not a regular file"), (fifo, "not a regular file"), (tmp_path / "no", "no such")):
        with pytest.raises(DataError, match=message):
            read_idx(path)


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(GOOD + bytes(200 << 20), id="small shape, much behind it"),
        pytest.param(gzip.compress(bytes(200 << 20), 1), id="gzip in gzip"),
        pytest.param(header(400 << 20) + bytes(200 << 20), id="more declared than the budget"),
    ],
)
def test_gzip_bomb(put, contents):
    """200 MiB in 200 kB are refused without being unpacked."""
    path = put(gzip.compress(contents, 1))
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(DataError):
            read_idx(path)
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_memory_follows_the_contents_and_not_the_header(put):
    """A declared size within the budget and the possible ratio, but not there, is not allocated."""
    path = put(gzip.compress(header(100 << 20) + np.random.default_rng(0).bytes(200_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="truncated: 200,000 of the 104,857,600"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_check_labels():
    check_labels("f", np.array([0, 9, 3], np.uint8), 3, 10)
    with pytest.raises(DataError, match="label 10, expected 0 to 9"):
        check_labels("f", np.array([0, 10, 3], np.uint8), 3, 10)
    with pytest.raises(DataError, match=r"labels of shape \(3,\) for 4 images"):
        check_labels("f", np.array([0, 9, 3], np.uint8), 4, 10)
    with pytest.raises(DataError, match=r"labels of shape \(3, 1\)"):
        check_labels("f", np.zeros((3, 1), np.uint8), 3, 10)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reader_in_odd_pieces(put, compress):
    data = np.random.default_rng(2).bytes(2 * CHUNK + 12_345)
    with Reader(put(compress(data)), budget=1 << 20) as reader:
        pieces = [reader.read(size, "x") for size in (1, CHUNK - 1, 1, CHUNK, 12_000)]
        pieces.append(reader.read_up_to(1_000))
        assert len(pieces[-1]) == 344  # all that is left
        assert b"".join(pieces) == data
        reader.finish(hashlib.sha256(data).hexdigest())


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three random damages: a byte changed, bits flipped in the head, a cut, an insertion, a piece repeated."""
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, len(data))))
        match rng.integers(0, 6):
            case 0:
                data = data[:at] + rng.bytes(1) + data[at + 1 :]
            case 1:
                at = int(rng.integers(0, 20))
                data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(0, 8)))]) + data[at + 1 :]
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]
            case 4:
                data = data[:at] + data[at + int(rng.integers(1, 9)) :]
            case _:
                data = data[:at] + data[at // 2 :]
        if len(data) < 20:
            break
    return data


def fuzz(path, count: int) -> tuple[int, int]:
    """Mutate plain and gzipped files, `count` in all. How many were refused with and without a checksum."""
    rng = np.random.default_rng(3)
    array = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
    good = encode(array)
    digest = hashlib.sha256(good).hexdigest()
    refused = refused_unchecked = 0
    for i in range(count):
        path.write_bytes(mutate(good if i % 2 else gzip.compress(good), rng))
        start = time.process_time()
        try:
            np.testing.assert_array_equal(read_idx(path, sha256=digest), array)
        except DataError:
            refused += 1
        try:
            result = read_idx(path)
        except DataError:
            refused_unchecked += 1
        else:
            assert result.dtype == np.uint8
            assert result.size >= 1
        assert time.process_time() - start < 1
    return refused, refused_unchecked


def test_fuzz(tmp_path):
    """No mutation gives wrong data in silence, none another exception; most are refused for their form alone."""
    refused, refused_unchecked = fuzz(tmp_path / "file", 300)
    assert refused > 280
    assert refused >= refused_unchecked > 200


@pytest.mark.slow
def test_fuzz_long(tmp_path):
    refused, _ = fuzz(tmp_path / "file", 5_000)
    assert refused > 4_600
