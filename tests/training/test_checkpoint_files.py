"""Whole files, JSON and JSON lines that survive crashes. Faults of the disk: test_checkpoint_crash.py."""

from __future__ import annotations

import errno
import os
import time
from functools import reduce
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.training import files
from minigen.training.files import (
    FileError,
    append_line,
    parse_json,
    read_json,
    read_lines,
    remove_orphans,
    write_atomically,
    write_json,
    write_lines,
)

REFUSED = {
    "NaN": (b"[NaN]", "NaN is not a number"),
    "infinity": (b"[-Infinity]", "-Infinity is not a number"),
    "too large": (b"[1e400]", "1e400 is too large"),
    "same key": (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' appears twice"),
    "deep lists": (b"[" * 101 + b"]" * 101, "nested deeper than 100"),
    "deep objects": (b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than 100"),
    "very deep, unclosed": (b"[" * 1_000_000, "nested deeper than 100"),
    "deep after a string": (b'["\\"[", ' + b"[" * 100 + b"]" * 101, "nested deeper than 100"),
    "long": (b"[" + b"1," * files.MAX_JSON, "more than"),
    "two values": (b"1 2", "Extra data"),
    "empty": (b"", "Expecting value"),
    "not UTF-8": (b'"\xff"', "codec"),
    "byte order mark": (b"\xef\xbb\xbf1", "BOM"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_json_that_is_refused(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(FileError, match=f"the file is not valid JSON: .*{reason}") as caught:
        read_json(tmp_path / "config.json")
    assert caught.value.file == tmp_path / "config.json"


def test_brackets_in_strings_do_not_nest():
    text = '["' + "[{" * 200 + r"\"\\" + '", "' + "[" * 200 + r'\\"]'
    assert parse_json(text.encode()) == ["[{" * 200 + '"\\', "[" * 200 + "\\"]
    assert parse_json(b"[" * 100 + b"]" * 100)


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b'"\\"', b"\\", b'"['])
def test_the_search_for_brackets_is_linear(piece):
    """A pattern that steps back needs hours for one of these."""
    start = time.process_time()
    files._depth((b'["' + piece * 300_000).decode())
    assert time.process_time() - start < 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4),
    max_leaves=10,
)


@given(value=json_values, torn=st.binary(max_size=20).filter(lambda b: b"\n" not in b))
def test_values_come_back_and_a_torn_line_goes(tmp_path_factory, value, torn):
    path = tmp_path_factory.mktemp("json") / "a"
    write_json(path, value)
    assert read_json(path) == value
    path.write_bytes(torn)
    append_line(path, value)
    append_line(path, [value])
    assert read_lines(path) == [value, [value]]
    with open(path, "ab") as file:
        file.write(torn)
    assert read_lines(path) == [value, [value]]
    append_line(path, 3)
    assert read_lines(path) == [value, [value], 3]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 20_000])
def test_a_torn_line_of_any_length_is_cut(tmp_path, size):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * size)
    append_line(path, {"step": 2})
    assert path.read_bytes() == whole + b'{"step": 2}\n'


NOT_JSON = {
    "NaN": float("nan"),
    "infinity": [float("inf")],
    "colliding keys": {1: "a", "1": "b"},
    "set": {"a": {1, 2}},
    "bytes": b"x",
    "long int": 10**5000,
    "deep": reduce(lambda value, _: [value], range(150), 0),
    "very deep": reduce(lambda value, _: [value], range(5000), 0),
}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_not_written(tmp_path, value):
    write_json(tmp_path / "config.json", {"old": 1})
    append_line(tmp_path / "metrics.jsonl", {"old": 1})
    for write, name in ((write_json, "config.json"), (append_line, "metrics.jsonl")):
        with pytest.raises(FileError, match="not written, the value is not JSON"):
            write(tmp_path / name, value)
    assert read_json(tmp_path / "config.json") == {"old": 1}
    assert read_lines(tmp_path / "metrics.jsonl") == [{"old": 1}]


def test_a_full_disk_leaves_the_complete_lines(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})

    class Full(SimpleNamespace):
        def __getattr__(self, name):
            return getattr(os, name)

    def half(file, data):
        if len(data) < 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(file, data[:6])

    monkeypatch.setattr(files, "os", Full(write=half))
    with pytest.raises(FileError, match="cannot be appended to: No space left on device; free space"):
        append_line(path, {"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n'


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(FileError, match="line 2 is not valid JSON"):
        read_lines(tmp_path / "metrics.jsonl")


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON", 1000)
    (tmp_path / "metrics.jsonl").write_bytes(b"1\n" + b"2" * 2000)
    with pytest.raises(FileError, match="line 2 is longer than 1000 bytes"):
        read_lines(tmp_path / "metrics.jsonl")


def test_lines_after_a_step_can_be_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(5):
        append_line(path, {"step": step})
    write_lines(path, [line for line in read_lines(path) if line["step"] <= 2])
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2]


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    path, ordinary = tmp_path / "figure.png", tmp_path / "ordinary"
    ordinary.touch()
    write_atomically(path, b"old")
    data = bytes(range(256)) * 8192  # two blocks
    write_atomically(path, data)
    assert path.read_bytes() == data
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure.png", "ordinary"]


def test_errors_of_the_system_are_explained(tmp_path):
    with pytest.raises(FileError, match=r"cannot be written: No such file or directory; check the path"):
        write_atomically(tmp_path / "none" / "a", b"")
    with pytest.raises(FileError, match=r"cannot be written: Is a directory; check the path: it is a folder"):
        write_atomically(tmp_path, b"")
    with pytest.raises(FileError, match="cannot be read: not an ordinary file"):
        read_json(tmp_path)
    with pytest.raises(FileError, match="cannot be written: File name too long; choose a shorter path"):
        write_json(tmp_path / ("n" * 300), 1)


def test_only_temporary_files_are_orphans(tmp_path):
    orphans = [".a.0123456789abcdef.part", ".config.json.ffffffffffffffff.part"]
    others = ["a.part", ".a.part", "x.0123456789abcdef.part", ".a.0123456789abcdef.part.bak"]
    others += [".a.0123456789ABCDEF.part", ".a.123456789abcdef.part"]
    for name in orphans + others:
        (tmp_path / name).touch()
    assert remove_orphans(tmp_path) == [tmp_path / name for name in orphans]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)
