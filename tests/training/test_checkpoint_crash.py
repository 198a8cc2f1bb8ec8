"""Crashes and failing disks, at every call that touches the disk: the old checkpoint or the new one, whole.

SIGKILL does not test fsync, since the system keeps what a dead process wrote; so the order of the calls is tested too.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minigen.training import files
from minigen.training.checkpoint import CheckpointError, Checkpoints, load, save

HARNESS = Path(__file__).with_name("checkpoint_harness.py")
_spec = importlib.util.spec_from_file_location("checkpoint_harness", HARNESS)
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # one thread: it forks


def run_harness(*arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, str(HARNESS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=ENVIRONMENT, check=False)


def harness_result(*arguments: object):
    done = run_harness(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "run")
    for step in (1, 2):
        checkpoints.save(step, harness.state(step), {})
    return checkpoints.folder


def calls_of_a_save(folder: Path) -> list[str]:
    """The calls that touch the disk when step 3 is saved and step 1 deleted, as they happen without a fault."""
    trial = folder.with_name("trial")
    shutil.copytree(folder, trial)
    with pytest.MonkeyPatch.context() as patch:
        recorder = harness.FaultyOS().install(patch.setattr)
        Checkpoints(trial).save(3, harness.state(3), {})
    return recorder.trace


def newest(folder: Path) -> int:
    latest = Checkpoints(folder).latest()
    assert latest.rejected == []
    assert harness.same(latest.state, harness.state(latest.step))
    return latest.step


# ------------------------------------------------------------------------------------------------------------- order


def test_the_file_is_synced_before_the_rename_and_the_folder_after_it(folder):
    trace = calls_of_a_save(folder)
    writes = trace.count("write")
    assert writes > 8
    file = ["open", *["write"] * writes, "fsync file", "close", "replace"]
    assert trace == [*file, "open", "fsync folder", "close", "unlink"]


def test_a_new_folder_is_synced_into_the_folder_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "_sync_folder", lambda f: synced.append((f, sorted(p.name for p in f.iterdir()))))
    files.make_folder(tmp_path / "runs" / "x" / "checkpoints")
    assert synced == [(tmp_path, ["runs"]), (tmp_path / "runs", ["x"]), (tmp_path / "runs" / "x", ["checkpoints"])]
    files.make_folder(tmp_path / "runs" / "x" / "checkpoints")
    assert len(synced) == 3


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_an_error_of_any_call_leaves_a_good_checkpoint(folder, code):
    trace = calls_of_a_save(folder)
    for at, call in enumerate(trace):
        case = folder.with_name(f"case-{at}")
        shutil.copytree(folder, case)
        checkpoints = Checkpoints(case)
        with pytest.MonkeyPatch.context() as patch:
            harness.FaultyOS(at, harness.error(code)).install(patch.setattr)
            with pytest.raises(CheckpointError) as caught:
                checkpoints.save(3, harness.state(3), {})
        assert os.strerror(code) in caught.value.reason
        assert caught.value.remedy == files.REMEDIES[code]
        renamed = "replace" in trace[:at]
        assert newest(case) == (3 if renamed else 2), f"call {at}, {call}"
        assert {1, 2} <= set(checkpoints.steps()), f"call {at}, {call}: an old checkpoint is gone"
        assert harness.temporaries(case) == []
        checkpoints.save(4, harness.state(4), {})  # and the same run goes on
        assert newest(case) == 4
        assert len(checkpoints.steps()) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_overwriting_one_file_keeps_the_old_content(tmp_path, code):
    path = tmp_path / "a.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        trace = harness.FaultyOS().install(patch.setattr).trace
        save(path, harness.state(1), meta={})
    for at in range(trace.index("replace") + 1):
        with pytest.MonkeyPatch.context() as patch:
            harness.FaultyOS(at, harness.error(code)).install(patch.setattr)
            with pytest.raises(CheckpointError, match=os.strerror(code)):
                save(path, harness.state(2), meta={})
        assert harness.same(load(path)[0], harness.state(1))
        assert os.listdir(tmp_path) == ["a.ckpt"]


def test_a_write_that_takes_only_a_part_is_continued(tmp_path, monkeypatch):
    class Reluctant(harness.FaultyOS):
        def __getattr__(self, name):
            return (lambda file, data: os.write(file, data[:1000])) if name == "write" else super().__getattr__(name)

    Reluctant().install(monkeypatch.setattr)
    save(tmp_path / "a.ckpt", harness.state(1), meta={})
    assert harness.same(load(tmp_path / "a.ckpt")[0], harness.state(1))


def test_an_orphan_that_could_not_be_removed_is_removed_at_the_next_start(folder):
    class Stuck(harness.FaultyOS):
        def __getattr__(self, name):
            return harness.error(errno.EIO).__get__(os.unlink) if name == "unlink" else super().__getattr__(name)

    with pytest.MonkeyPatch.context() as patch:
        Stuck(2, harness.error(errno.ENOSPC)).install(patch.setattr)
        with pytest.raises(CheckpointError, match="No space left"):  # the first failure, not that of the cleaning
            Checkpoints(folder).save(3, harness.state(3), {})
    assert len(harness.temporaries(folder)) == 1
    assert newest(folder) == 2
    Checkpoints(folder).save(3, harness.state(3), {})
    assert harness.temporaries(folder) == []


def test_an_interrupt_while_writing_leaves_nothing_behind(folder):
    def interrupt(function, *args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        harness.FaultyOS(3, interrupt).install(patch.setattr)
        with pytest.raises(KeyboardInterrupt):
            Checkpoints(folder).save(3, harness.state(3), {})
    assert harness.temporaries(folder) == []
    assert newest(folder) == 2


def test_a_real_limit_on_the_size_of_files(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large; raise the limit"):
            Checkpoints(folder).save(3, harness.state(3), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest(folder) == 2
    assert harness.temporaries(folder) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied; change the permissions"):
            Checkpoints(folder).save(3, harness.state(3), {})
    finally:
        folder.chmod(0o700)
    assert newest(folder) == 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match="cannot be created: File exists; check the path: a file"):
            Checkpoints(folder).save(1, {}, {})


# ------------------------------------------------------------------------------------------------------------- kills


def test_sigkill_at_every_call(tmp_path):
    seen = harness_result("points", tmp_path)
    assert len(seen) > 30
    assert {p["call"] for p in seen} >= {"open", "write", "fsync file", "close", "replace", "fsync folder", "unlink"}
    for point in seen:
        assert point["killed"], point
        assert point["newest"] == (3 if point["replaced"] else 2), point
        assert point["then"] == 4, point
        assert point["orphans_then"] == 0, point
    assert any(point["orphans"] for point in seen)  # or the cleaning was never needed


def check_kills(result: dict, count: int) -> None:
    assert result["behind"] == 0  # what `save` reported as done is there
    assert result["ahead"] <= harness.INTERVAL
    assert result["saves"] >= count  # each process got on by one interval at least
    assert result["in_a_save"] > count / 20  # or the moments were not random
    assert result["left"] == []


def test_sigkill_at_random_moments(tmp_path):
    check_kills(harness_result("kills", tmp_path, 20, 1), 20)


@pytest.mark.slow
def test_sigkill_at_many_random_moments(tmp_path):
    check_kills(harness_result("kills", tmp_path, 200, 2), 200)


# ------------------------------------------------------------------------------------------------------------ strace


def strace_works() -> bool:
    return bool(shutil.which("strace")) and subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode == 0


@pytest.mark.slow
def test_faults_injected_into_the_system_calls(folder, tmp_path):
    """The same promises, with nothing replaced in Python: strace makes the k-th system call fail, or kills there."""
    if not strace_works():
        pytest.skip("strace is not installed or may not trace here")
    log = tmp_path / "log"

    def save_3(case: Path, *options: str) -> int:
        shutil.copytree(folder, case)
        strace = ("strace", "-f", "-o", str(log), "-e", "trace=write,fsync,/^rename", *options)
        return run_harness("save", case, 3, before=strace).returncode

    assert save_3(tmp_path / "plain") == 0
    calls = re.findall(r"^\d+ +(write|fsync|rename)\w*\(", log.read_text(), re.MULTILINE)
    writes = calls.count("write")
    assert calls == ["write"] * writes + ["fsync", "rename", "fsync"]
    assert writes > 8

    places = [("write", k) for k in range(1, writes + 1)] + [("fsync", 1), ("fsync", 2), ("/^rename", 1)]
    for call, k in places:
        for fault, code in (("error=ENOSPC", 3), ("error=EIO", 3), ("signal=KILL", -9)):
            case = tmp_path / f"{call.strip('/^')}-{k}-{fault}"
            returned = save_3(case, "-e", f"inject={call}:{fault}:when={k}")
            assert returned == code, case.name
            assert newest(case) == (3 if (call, k) == ("fsync", 2) else 2), case.name
            Checkpoints(case).save(4, harness.state(4), {})
            assert newest(case) == 4
            assert harness.temporaries(case) == []


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from Linux's /proc")
def test_a_save_takes_no_copy_and_a_load_two(tmp_path):
    size = 200_000_000  # bytes
    program = f"""
import numpy as np
from pathlib import Path
from minigen.training.checkpoint import load, save

def kilobytes(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

def peak(function, *args, **kwargs):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = kilobytes("VmRSS")
    result = function(*args, **kwargs)
    return result, 1024 * (kilobytes("VmHWM") - before)

path, w = {str(tmp_path / "a.ckpt")!r}, np.arange({size // 4}, dtype=np.float32)
saving = peak(save, path, {{"w": w}}, meta={{}})[1]
(state, meta), loading = peak(load, path)
assert np.array_equal(state["w"], w)
print(saving, loading)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    saving, loading = map(int, done.stdout.split())
    assert saving < 0.1 * size
    assert loading < 2.1 * size
