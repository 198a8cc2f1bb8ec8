"""What a checkpoint gives back, what it refuses to hold, and which files of a run are kept.

Damaged files are in test_checkpoint_damage.py, crashes in test_checkpoint_crash.py.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigen.training import checkpoint
from minigen.training.checkpoint import CheckpointError, Checkpoints, load, require_same, save
from minigen.training.files import FileError

_spec = importlib.util.spec_from_file_location("checkpoint_harness", Path(__file__).with_name("checkpoint_harness.py"))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)
same = harness.same

# ------------------------------------------------------------------------------------------------------- round trips

DTYPES = sorted(checkpoint.DTYPES, key=str)
LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "every second": lambda a: a[..., ::2] if a.ndim else a,
    "backwards": lambda a: a[::-1] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) if a.size else a,
}
arrays = st.builds(
    lambda array, layout: LAYOUTS[layout](array),
    hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    st.sampled_from(sorted(LAYOUTS)),
)
texts = st.one_of(
    st.text(),
    st.text("a\udcff\ud800\udc00$\0\n\"\\\u2028"),  # halves of surrogate pairs stand for names that are not UTF-8
    st.sampled_from(["$", "$$", "$array", "$int", "state"]),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers() | st.integers(-(2**200), 2**200) | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]),
    st.floats(),
    texts,
    arrays,
)
trees = st.recursive(
    leaves,
    lambda t: st.lists(t, max_size=4) | st.lists(t, max_size=3).map(tuple) | st.dictionaries(texts, t, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(texts, trees, max_size=4)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(state=states, meta=states)
def test_what_is_saved_is_what_is_loaded(tmp_path, state, meta):
    save(tmp_path / "a.ckpt", state, meta=meta)
    loaded_state, loaded_meta = load(tmp_path / "a.ckpt")
    assert same(loaded_state, state)
    assert same(loaded_meta, meta)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dtype_in_every_layout(tmp_path, dtype, layout):
    array = LAYOUTS[layout](np.arange(24).reshape(2, 3, 4).astype(dtype))
    empty, scalar = np.empty((0, 3), dtype), np.array(1, dtype)
    save(tmp_path / "a.ckpt", {"array": array, "empty": empty, "scalar": scalar}, meta={})
    loaded, _ = load(tmp_path / "a.ckpt")
    assert same(loaded, {"array": array, "empty": empty, "scalar": scalar})
    assert all(a.flags.c_contiguous and a.flags.writeable and a.flags.aligned for a in loaded.values())


@pytest.mark.parametrize("value", [10**6000, -(10**6000)], ids=["positive", "negative"])
def test_ints_of_any_size(tmp_path, value):
    """Python refuses to turn more than 4300 decimal digits into an int."""
    save(tmp_path / "a.ckpt", {"key": value}, meta={})
    assert load(tmp_path / "a.ckpt")[0]["key"] == value


def test_floats_keep_every_bit(tmp_path):
    patterns = ["0000000000000000", "8000000000000000", "0000000000000001", "3ff0000000000001", "7fefffffffffffff"]
    patterns += ["7ff0000000000000", "fff0000000000000", "7ff8000000000000", "fff8000000000000", "7ff8dead0000beef"]
    values = [struct.unpack(">d", bytes.fromhex(p))[0] for p in patterns]
    save(tmp_path / "a.ckpt", {"floats": values}, meta={})
    assert [struct.pack(">d", v).hex() for v in load(tmp_path / "a.ckpt")[0]["floats"]] == patterns


@pytest.mark.parametrize("name", ["MT19937", "PCG64", "Philox", "SFC64"])
def test_the_state_of_a_generator_goes_on_alike(tmp_path, name):
    bits = getattr(np.random, name)(7)
    bits.random_raw(3)
    save(tmp_path / "a.ckpt", {"generator": bits.state}, meta={})
    again = getattr(np.random, name)(0)
    again.state = load(tmp_path / "a.ckpt")[0]["generator"]
    assert np.array_equal(again.random_raw(700), bits.random_raw(700))


def test_loaded_arrays_share_no_memory(tmp_path):
    flat = np.arange(6.0)
    save(tmp_path / "a.ckpt", {"flat": flat, "view": flat[2:]}, meta={})
    loaded, _ = load(tmp_path / "a.ckpt")
    loaded["flat"][:] = -1
    assert loaded["view"].tolist() == [2, 3, 4, 5]


def test_the_payload_opens_in_any_safetensors_reader(tmp_path):
    import safetensors.numpy

    save(tmp_path / "a.ckpt", {"w": np.arange(3, dtype=np.float32)}, meta={})
    payload = (tmp_path / "a.ckpt").read_bytes()[checkpoint.HEADER :]
    arrays = safetensors.numpy.load(payload)
    assert safetensors.numpy.save(arrays) == payload
    assert arrays["0"].tolist() == [0, 1, 2]
    assert arrays["tree"].tobytes() == b'{"state": {"w": {"$array": "0"}}, "meta": {}}'


@pytest.mark.parametrize("wrap", [lambda x: {"k": x}, lambda x: [x], lambda x: (x,)], ids=["dict", "list", "tuple"])
def test_nesting_up_to_the_limit(tmp_path, wrap):
    value = 2**70
    for _ in range(checkpoint.MAX_NESTING - 1):
        value = wrap(value)
    save(tmp_path / "a.ckpt", {"deep": value}, meta={})
    assert same(load(tmp_path / "a.ckpt")[0], {"deep": value})
    with pytest.raises(CheckpointError, match="nested deeper than 32 levels"):
        save(tmp_path / "a.ckpt", {"deep": wrap(value)}, meta={})


# ---------------------------------------------------------------------------------------------------------- refusals

CYCLE: list = []
CYCLE.append(CYCLE)


class Renamed(dict):
    pass


UNSAVEABLE = {
    "NumPy float": ({"a": [0, np.float64(1)]}, r"state\['a'\]\[1\] is numpy.float64"),
    "NumPy int": ({"a": np.int64(1)}, "numpy.int64"),
    "NumPy bool": ({"a": np.True_}, "numpy.bool"),
    "objects": ({"a": np.array([None])}, r"array of dtype\('O'\)"),
    "text array": ({"a": np.array(["x"])}, "array of dtype"),
    "other byte order": ({"a": np.zeros(2, np.dtype(np.float32).newbyteorder())}, "native"),
    "complex": ({"a": np.zeros(2, complex)}, "complex128"),
    "records": ({"a": np.zeros(2, [("x", "f4")])}, "array of dtype"),
    "matrix": ({"a": np.ma.masked_array([1.0])}, "MaskedArray"),
    "int key": ({"a": {1: 2}}, r"state\['a'\] has the key 1"),
    "set": ({"a": {1}}, r"state\['a'\] is set"),
    "bytes": ({"a": b"x"}, "bytes"),
    "complex number": ({"a": 1j}, "complex"),
    "function": ({"a": math.sqrt}, "builtin_function"),
    "subclass of dict": ({"a": Renamed()}, "Renamed"),
    "cycle": ({"a": CYCLE}, "contains itself"),
    "no dict": ([1], "state is list"),
}


@pytest.mark.parametrize(("state", "reason"), UNSAVEABLE.values(), ids=UNSAVEABLE)
def test_what_a_file_cannot_hold_exactly_is_refused(tmp_path, state, reason):
    path = tmp_path / "a.ckpt"
    save(path, {"old": 1}, meta={})
    with pytest.raises(CheckpointError, match=reason):
        save(path, state, meta={})
    assert load(path)[0] == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_meta_is_held_to_the_same_rules(tmp_path):
    with pytest.raises(CheckpointError, match=r"meta\['rate'\] is numpy.float32"):
        save(tmp_path / "a.ckpt", {}, meta={"rate": np.float32(0.1)})


def test_text_that_could_not_be_read_back_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_JSON", 1000)
    with pytest.raises(CheckpointError, match="longer than 1000 bytes; keep long lists of numbers as arrays"):
        save(tmp_path / "a.ckpt", {"losses": [0.5] * 1000}, meta={})


def test_the_error_names_file_reason_and_remedy(tmp_path):
    path = tmp_path / "none.ckpt"
    with pytest.raises(CheckpointError) as caught:
        load(path)
    error = caught.value
    assert isinstance(error, FileError)
    assert (error.file, error.remedy) == (path, "check the path")
    assert error.reason == "the checkpoint cannot be read: No such file or directory"
    assert str(error) == f"{path}: {error.reason}; {error.remedy}"


def test_too_little_memory_is_an_error_like_others(tmp_path, monkeypatch):
    def exhausted(*parts):
        raise MemoryError

    path = tmp_path / "a.ckpt"
    save(path, {"old": 1}, meta={})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_digest", exhausted)
        with pytest.raises(CheckpointError, match="cannot be written: out of memory; free memory"):
            save(path, {"new": 1}, meta={})
        with pytest.raises(CheckpointError, match="cannot be read: out of memory; free memory"):
            load(path)
    assert load(path)[0] == {"old": 1}


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path)


# --------------------------------------------------------------------------------------------------- files of a run


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def filled(folder: Path, *steps: int, keep: int = 9) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, harness.state(step), {"epoch": step // 10})
    return checkpoints


def test_the_newest_are_kept_and_the_newest_is_returned(tmp_path):
    checkpoints = filled(tmp_path / "runs" / "x", *range(0, 60, 10), keep=3)
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == [f"step-000000{s}.ckpt" for s in (30, 40, 50)]
    latest = checkpoints.latest()
    assert (latest.step, latest.path, latest.rejected) == (50, checkpoints.path(50), [])
    assert same(latest.state, harness.state(50))
    assert latest.meta == {"epoch": 5, "step": 50}


def test_steps_sort_as_numbers(tmp_path):
    checkpoints = filled(tmp_path, 7, 99_999_999, 100_000_000)
    assert checkpoints.steps() == [7, 99_999_999, 100_000_000]
    assert checkpoints.latest().step == 100_000_000


def test_a_damaged_newest_one_is_reported_with_the_one_before_it(tmp_path):
    checkpoints = filled(tmp_path, 10, 20, 30)
    damage(checkpoints.path(30))
    checkpoints.path(20).write_bytes(b"")
    latest = checkpoints.latest()
    assert latest.step == 10
    assert same(latest.state, harness.state(10))
    assert [error.file for error in latest.rejected] == [checkpoints.path(30), checkpoints.path(20)]
    assert "damaged" in latest.rejected[0].reason
    assert "truncated: 0 bytes" in latest.rejected[1].reason


def test_nothing_good_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        Checkpoints(tmp_path / "none").latest()
    assert Checkpoints(tmp_path / "none").steps() == []
    checkpoints = filled(tmp_path, 10, 20)
    damage(checkpoints.path(10))
    damage(checkpoints.path(20))
    with pytest.raises(CheckpointError, match="none of 2 checkpoints can be used; the newest is damaged"):
        checkpoints.latest()


@pytest.mark.parametrize("restart", [True, False])
def test_damaged_files_do_not_push_good_ones_out(tmp_path, restart):
    checkpoints = filled(tmp_path, 10, 20, 30, keep=2)
    damage(checkpoints.path(30))
    if restart:
        checkpoints = Checkpoints(tmp_path)
    checkpoints.save(40, harness.state(40), {})
    assert checkpoints.steps() == [20, 30, 40]  # 20 is the second good one; 30 is left for whoever looks into it
    checkpoints.save(50, harness.state(50), {})
    assert checkpoints.steps() == [40, 50]


def test_a_later_checkpoint_is_neither_deleted_nor_left_in_the_way(tmp_path):
    checkpoints = filled(tmp_path, 10, 20, 30, keep=2)
    with pytest.raises(CheckpointError, match="a checkpoint of a later step, 30; resume from that one"):
        Checkpoints(tmp_path).save(25, harness.state(25), {})
    assert checkpoints.steps() == [20, 30]
    damage(checkpoints.path(30))  # now the run has to go on from 20
    checkpoints.save(25, harness.state(25), {})
    assert checkpoints.latest().step == 25
    checkpoints.save(30, harness.state(30), {})
    assert checkpoints.latest().step == 30
    assert checkpoints.steps() == [25, 30]


def test_a_renamed_checkpoint_is_rejected(tmp_path):
    checkpoints = filled(tmp_path, 10, 20)
    shutil.copy(checkpoints.path(10), checkpoints.path(30))
    latest = checkpoints.latest()
    assert latest.step == 20
    assert "named as step 30 but saved as step 10" in latest.rejected[0].reason


def test_other_files_are_ignored_and_left(tmp_path):
    others = ["step-5.ckpt", "step-0000000001234.ckpt", "step-00000099.ckpt.bak", "model.ckpt", ".step-1.ckpt.part"]
    for name in others:
        (tmp_path / name).touch()
    checkpoints = filled(tmp_path, 10, 20, 30, keep=1)
    assert checkpoints.steps() == [30]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "step-00000030.ckpt"])


def test_a_save_removes_orphans_and_reading_does_not(tmp_path):
    filled(tmp_path, 10)
    orphan = tmp_path / ".step-00000020.ckpt.0123456789abcdef.part"
    orphan.touch()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest().step == 10
    assert orphan.exists()  # it may be the file that a training process is writing at this moment
    checkpoints.save(20, harness.state(20), {})
    assert not orphan.exists()


def test_known_good_files_are_not_read_again(tmp_path, monkeypatch):
    filled(tmp_path, 10, 20, keep=2)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest().step == 20
    monkeypatch.setattr(checkpoint, "load", lambda path: pytest.fail(f"read {path}"))
    checkpoints.save(30, harness.state(30), {})
    checkpoints.save(40, harness.state(40), {})
    assert checkpoints.steps() == [30, 40]


def test_values_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="keep = 0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="step = -1"):
        Checkpoints(tmp_path).save(-1, {}, {})


# ------------------------------------------------------------------------------------------------------ require_same

MODEL = {"w": np.zeros((200, 50), np.float32), "b": np.zeros(50, np.float32)}
MISFITS = {
    "shape": ({**MODEL, "w": np.zeros((200, 20), np.float32)}, r"'w' has shape \(200, 20\) in .* and \(200, 50\)"),
    "dimensions": ({**MODEL, "b": np.zeros((1, 50), np.float32)}, r"'b' has shape \(1, 50\) in the file and \(50,\)"),
    "dtype": ({**MODEL, "b": np.zeros(50)}, "'b' has dtype float64 in the file and float32 in the model"),
    "missing": ({"w": MODEL["w"]}, r"'b' is missing: the model has it with shape \(50,\)"),
    "extra": ({**MODEL, "c": np.zeros(3)}, r"'c', of shape \(3,\), is not in the model"),
    "the first of two": ({"w": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}, r"'w' has shape \(1,\)"),
}


@pytest.mark.parametrize(("saved", "reason"), MISFITS.values(), ids=MISFITS)
def test_arrays_that_do_not_fit_the_model(saved, reason):
    with pytest.raises(CheckpointError, match=reason) as caught:
        require_same(saved, MODEL, "run/step-00000010.ckpt")
    assert caught.value.file == Path("run/step-00000010.ckpt")


def test_arrays_that_fit_in_any_order():
    require_same({name: MODEL[name] + 1 for name in reversed(MODEL)}, MODEL, "run/step-00000010.ckpt")
