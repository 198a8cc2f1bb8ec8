"""Damaged and forged checkpoints: each one is refused with CheckpointError, at once, without taking memory for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import time
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from minigen.training import checkpoint
from minigen.training.checkpoint import CheckpointError, load, save

LIMIT = 1.0  # seconds of processor time to refuse one file


def original() -> tuple[dict, dict]:
    """A state and meta that take about 20 KiB; that they come back exactly is tested elsewhere."""
    rng = np.random.default_rng(0)
    state = {
        "w": rng.normal(size=(50, 60)).astype(np.float32),
        "zeros": np.zeros(500),
        "generator": {"key": 2**100, "counter": rng.integers(0, 2**32, 4, np.uint32)},
        "losses": rng.normal(size=100).tolist(),
    }
    return state, {"step": 12, "model": "vae"}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "a.ckpt"
    state, meta = original()
    save(path, state, meta=meta)
    return path.read_bytes()


def flip_bit(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def flip_header(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(checkpoint.HEADER)] ^= rng.integers(1, 256)


def change_bytes(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(len(data))] = rng.integers(256)


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[rng.integers(len(data)) :]


def cut_out(data: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(data))
    del data[start : start + rng.integers(1, 100)]


def insert(data: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(data) + 1)
    data[start:start] = rng.bytes(rng.integers(1, 100))


def duplicate(data: bytearray, rng: np.random.Generator) -> None:
    start, end = np.sort(rng.integers(len(data) + 1, size=2))
    data[end:end] = data[start:end]


def zero(data: bytearray, rng: np.random.Generator) -> None:
    start, end = np.sort(rng.integers(len(data) + 1, size=2))
    data[start:end] = bytes(end - start)


def swap(data: bytearray, rng: np.random.Generator) -> None:
    size = int(rng.integers(1, 64))
    a, b = rng.integers(len(data) - size, size=2)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def append(data: bytearray, rng: np.random.Generator) -> None:
    data += rng.bytes(rng.integers(1, 100))


def zero_tail(data: bytearray, rng: np.random.Generator) -> None:
    """What a file system may show after a power cut: the right length, the last blocks never written."""
    start = rng.integers(len(data))
    data[start:] = bytes(len(data) - start)


MUTATIONS = [flip_bit, flip_header, change_bytes, truncate, cut_out, insert, duplicate, zero, swap, append, zero_tail]


def refuse_mutants(good: bytes, path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tried = 0
    while tried < count:
        mutate = MUTATIONS[tried % len(MUTATIONS)]
        data = bytearray(good)
        mutate(data, rng)
        if data == good:  # zeros over zeros, say
            continue
        tried += 1
        path.write_bytes(data)
        tracemalloc.start()
        start = time.process_time()
        try:
            with pytest.raises(CheckpointError) as caught:
                load(path)
            spent, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert caught.value.file == path
        assert spent < LIMIT, mutate.__name__
        assert peak < len(data) + 50_000, mutate.__name__  # its bytes once, and nothing made from them


def test_every_random_mutation_is_refused(good, tmp_path):
    refuse_mutants(good, tmp_path / "a.ckpt", 300, seed=1)


@pytest.mark.slow
def test_many_random_mutations_are_refused(good, tmp_path):
    refuse_mutants(good, tmp_path / "a.ckpt", 5000, seed=2)


def test_a_flip_of_any_bit_of_the_header_is_refused(good, tmp_path):
    path = tmp_path / "a.ckpt"
    for bit in range(8 * checkpoint.HEADER):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            load(path)


def test_a_cut_anywhere_in_the_header_is_called_truncated(good, tmp_path):
    path = tmp_path / "a.ckpt"
    for size in range(checkpoint.HEADER + 1):
        path.write_bytes(good[:size])
        with pytest.raises(CheckpointError, match=f"truncated: {size} bytes"):
            load(path)


@pytest.mark.parametrize("more", [b"\0", b"\n", bytes(5000)], ids=["zero", "newline", "block"])
def test_a_file_that_goes_on_is_called_too_long(good, tmp_path, more):
    (tmp_path / "a.ckpt").write_bytes(good + more)
    with pytest.raises(CheckpointError, match=f"too long: {len(good + more)} bytes where its header says {len(good)}"):
        load(tmp_path / "a.ckpt")


def test_the_undamaged_file_loads(good, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(good)
    state, meta = load(tmp_path / "a.ckpt")
    expected, expected_meta = original()
    assert meta == expected_meta
    assert np.array_equal(state["w"], expected["w"])
    assert state["losses"] == expected["losses"]


def test_a_declared_size_takes_no_memory(good, tmp_path):
    path = tmp_path / "a.ckpt"
    for declared in (2**30, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(good[:12] + struct.pack("<Q", declared) + good[20:])
        tracemalloc.start()
        reason = f"truncated: {len(good)} bytes where its header says {declared + checkpoint.HEADER}"
        with pytest.raises(CheckpointError, match=reason):
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000


FOREIGN = {
    "text": b"hello, this is no checkpoint at all; it is a text that someone gave the wrong name\n",
    "zeros": bytes(1000),
    "safetensors": safetensors.numpy.save({"w": np.zeros(30)}),
    "zip": b"PK\3\4" + bytes(100),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_called_foreign(tmp_path, data):
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(CheckpointError, match="not a minigen checkpoint"):
        load(tmp_path / "a.ckpt")


def test_another_version_is_named(good, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(good[:8] + struct.pack("<I", 2) + good[12:])
    with pytest.raises(CheckpointError, match="format version 2, and this minigen reads version 1"):
        load(tmp_path / "a.ckpt")


# ---------------------------------------------------------------------- forged: whatever follows, the digest is right


def forge(path, payload: bytes) -> None:
    prefix = checkpoint.PREFIX.pack(checkpoint.MAGIC, checkpoint.VERSION, len(payload))
    path.write_bytes(prefix + hashlib.sha256(prefix + payload).digest() + payload)


def test_mutants_with_a_right_digest_raise_nothing_else(good, tmp_path):
    """No promise can be made about what they hold, only that reading them is harmless."""
    path, rng = tmp_path / "a.ckpt", np.random.default_rng(3)
    harmless = 0
    for i in range(300):
        payload = bytearray(good[checkpoint.HEADER :])
        if i % 2:
            MUTATIONS[i // 2 % len(MUTATIONS)](payload, rng)
        else:  # the header of safetensors, where the declared sizes are
            payload[rng.integers(500)] = rng.integers(256)
        forge(path, bytes(payload))
        start = time.process_time()
        with contextlib.suppress(CheckpointError):
            load(path)
            harmless += 1
        assert time.process_time() - start < LIMIT
    assert 0 < harmless < 150


def raw(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """Bytes in the safetensors format that its own writer might not make."""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_tree(tree: bytes, **arrays: np.ndarray) -> bytes:
    return safetensors.numpy.save({"tree": np.frombuffer(tree, np.uint8), **arrays})


ONE = {"0": np.zeros(1)}
FORGED = {
    "no tree": (safetensors.numpy.save(ONE), "tree"),
    "no state": (with_tree(b'{"meta": {}}'), "no state and meta"),
    "list": (with_tree(b"[1]"), "no state and meta"),
    "state is no dict": (with_tree(b'{"state": 1, "meta": {}}'), "no dict"),
    "array missing": (with_tree(b'{"state": {"a": {"$array": "0"}}, "meta": {}}'), "'0'"),
    "array with a long name": (with_tree(b'{"state": {"$array": "' + b"n" * 100_000 + b'"}, "meta": {}}'), "'nnn"),
    "array twice": (with_tree(b'{"state": {"a": {"$array": "0"}, "b": {"$array": "0"}}, "meta": {}}', **ONE), "'0'"),
    "array unused": (with_tree(b'{"state": {}, "meta": {}}', **ONE), "belongs nowhere"),
    "unknown tag": (with_tree(b'{"state": {"a": {"$object": "os.system"}}, "meta": {}}'), "unknown"),
    "tag and more": (with_tree(b'{"state": {"$int": "0x1", "b": 2}, "meta": {}}'), "other keys"),
    "int of floats": (with_tree(b'{"state": {"a": {"$int": 1.5}}, "meta": {}}'), "content is wrong"),
    "int of letters": (with_tree(b'{"state": {"a": {"$int": "many"}}, "meta": {}}'), "invalid literal"),
    "short float": (with_tree(b'{"state": {"a": {"$float": "00"}}, "meta": {}}'), "8 bytes"),
    "NaN": (with_tree(b'{"state": {"a": NaN}, "meta": {}}'), "NaN is not a number in JSON"),
    "overflow": (with_tree(b'{"state": {"a": 1e999}, "meta": {}}'), "1e999 is too large"),
    "long int": (with_tree(b'{"state": {"a": ' + b"9" * 5000 + b'}, "meta": {}}'), "4300 digits"),
    "same key twice": (with_tree(b'{"state": {"a": 1, "a": 2}, "meta": {}}'), "'a' appears twice"),
    "deep": (with_tree(b"[" * 100_000 + b"]" * 100_000), "nested deeper than 100 levels"),
    "cut short": (with_tree(b'{"state": {"a": "'), "Unterminated"),
    "not UTF-8": (with_tree(b'{"state": {"a": "\xff"}, "meta": {}}'), "codec"),
    "tensor too large": (raw({"tree": ("U8", [2**40], b"{}")}), "Safetensor"),
    "tensor size overflows": (raw({"tree": ("F64", [2**62, 2**62], b"{}")}), "Safetensor"),
    "unknown dtype": (raw({"tree": ("F8_E4M3", [2], b"{}")}), "F8_E4M3"),
    "empty": (b"", "Safetensor"),
}


@pytest.mark.parametrize(("payload", "reason"), FORGED.values(), ids=FORGED)
def test_forged_contents(tmp_path, payload, reason):
    forge(tmp_path / "a.ckpt", payload)
    with pytest.raises(CheckpointError, match="its content is no checkpoint") as caught:
        load(tmp_path / "a.ckpt")
    assert reason in caught.value.reason
    assert len(caught.value.reason) < 300
    assert "\n" not in str(caught.value)
