"""Crashes on purpose. Start at `kills`: a process that saves without pause, killed at random moments.

    python checkpoint_harness.py kills FOLDER COUNT SEED    SIGKILL at COUNT random moments
    python checkpoint_harness.py points FOLDER              SIGKILL before, in and after each call that touches the disk
    python checkpoint_harness.py save FOLDER STEP           one save, for strace to disturb

It runs as a program of its own because it forks, and prints what it saw as JSON; the tests judge that. They also take
`state`, `same` and `FaultyOS` from here.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigen.training import checkpoint, files

INTERVAL = 10  # steps between two checkpoints
BLOCK = 4096  # bytes per write here, so that a small state takes many


def state(step: int) -> dict[str, Any]:
    """What a run could hold at `step`: another one for every step, about 32 KiB."""
    rng = np.random.default_rng(step)
    return {
        "parameters": {"w": rng.normal(size=(40, 100)).astype(np.float32), "b": rng.normal(size=100)},
        "optimiser": [rng.normal(size=(40, 100)).astype(np.float32), {"t": step}],
        "generator": {"key": int(rng.integers(2**63)) * 2**64 + step, "counter": rng.integers(0, 2**32, 4, np.uint32)},
        "losses": [1.0 / (step + 1), float("inf")],
    }


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape, order of keys and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return a == b


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, once it is certain that nothing in the folder is damaged."""
    latest = checkpoint.Checkpoints(folder).latest()
    if latest.rejected:
        raise SystemExit(f"a crash left an unreadable checkpoint: {latest.rejected[0]}")
    if not same(latest.state, state(latest.step)):
        raise SystemExit(f"{latest.path} holds another state than was saved")
    return latest.step


def temporaries(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".part")]


# ------------------------------------------------------------------------------------------------------------- faults


class FaultyOS:
    """Stands in for the module `os` in minigen.training: writes down the calls that touch the disk, disturbs one.

    at: the number of the call that goes wrong; None for a run that is only written down.
    fault(function, *args): what happens in its place.
    """

    CALLS = ("open", "write", "fsync", "close", "replace", "unlink")

    def __init__(self, at: int | None = None, fault: Callable[..., Any] | None = None):
        self.at, self.fault = at, fault
        self.trace: list[str] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in self.CALLS:
            return function

        def call(*args: Any) -> Any:
            self.trace.append(name)
            if name == "fsync":
                self.trace[-1] += " folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            disturb = self.fault is not None and len(self.trace) - 1 == self.at
            return self.fault(function, *args) if disturb else function(*args)

        return call

    def install(self, patch: Callable[[Any, str, Any], None] = setattr) -> FaultyOS:
        """Take the place of `os`, and make blocks small. patch: monkeypatch.setattr in a test."""
        patch(files, "os", self)
        patch(checkpoint, "os", self)
        patch(files, "BLOCK", BLOCK)
        return self


def error(code: int) -> Callable[..., Any]:
    """The call fails, and does nothing; a close does close, as it does in Linux."""

    def fault(function: Callable[..., Any], *args: Any) -> Any:
        if function is os.close:
            function(*args)
        raise OSError(code, os.strerror(code))

    return fault


def die_before(function: Callable[..., Any], *args: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(function: Callable[..., Any], *args: Any) -> Any:
    function(*args)
    os.kill(os.getpid(), signal.SIGKILL)


def die_inside(function: Callable[..., Any], *args: Any) -> Any:
    """Half of a write arrives."""
    function(args[0], args[1][: len(args[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


FATAL = {f.__name__: f for f in (die_before, die_inside, die_after)}


def prepared(folder: Path) -> list[str]:
    """Fill `folder` with checkpoints of steps 1 and 2; returns the calls that saving step 3 then takes."""
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(1, state(1), {})
    checkpoints.save(2, state(2), {})
    trial = folder.with_name(folder.name + "-trial")
    shutil.copytree(folder, trial)
    pid = os.fork()
    if pid == 0:
        recorder = FaultyOS().install()
        checkpoint.Checkpoints(trial).save(3, state(3), {})
        (trial / "trace.json").write_text(json.dumps(recorder.trace))
        os._exit(0)
    os.waitpid(pid, 0)
    return json.loads((trial / "trace.json").read_text())


# ---------------------------------------------------------------------------------------------------------- programs


def kills(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill a saving process `count` times, each time going on from the newest checkpoint in the same folder.

    behind, ahead: how many steps the newest checkpoint was, at most, older or newer than the last save that returned.
    in_a_save: how many kills left a temporary file; left: those still there after one more save.
    """
    rng = random.Random(seed)
    files.BLOCK = BLOCK
    checkpoint.Checkpoints(folder).save(0, state(0), {})
    behind = ahead = in_a_save = previous = 0
    for _ in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            checkpoints = checkpoint.Checkpoints(folder)
            step = checkpoints.latest().step
            while True:
                step += INTERVAL
                checkpoints.save(step, state(step), {})
                os.write(write, struct.pack("<q", step))
        os.close(write)
        told = os.read(read, 8)  # waits until it has saved once; its next saves are on the way
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] != signal.SIGKILL:
            raise SystemExit("the saving process failed before it was killed")
        told += os.read(read, 1 << 16)
        os.close(read)
        promised = struct.unpack("<q", told[-8:])[0]  # the step of the last save that returned
        previous = newest(folder)
        behind = max(behind, promised - previous)
        ahead = max(ahead, previous - promised)  # renamed into place, but killed before `save` returned
        in_a_save += bool(temporaries(folder))
    checkpoint.Checkpoints(folder).save(previous + INTERVAL, state(previous + INTERVAL), {})
    return {
        "behind": behind,
        "ahead": ahead,
        "in_a_save": in_a_save,
        "saves": previous // INTERVAL,
        "left": temporaries(folder),
    }


def points(folder: Path) -> list[dict[str, Any]]:
    """Kill a process at every call of one save, in every way; what is left, and whether a run goes on from there."""
    template = folder / "template"
    trace = prepared(template)
    seen = []
    for at, call in enumerate(trace):
        for name, fault in FATAL.items():
            if fault is die_inside and call != "write":
                continue
            case = folder / f"{at}-{name}"
            shutil.copytree(template, case)
            pid = os.fork()
            if pid == 0:
                FaultyOS(at, fault).install()
                checkpoint.Checkpoints(case).save(3, state(3), {})
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            left, step = temporaries(case), newest(case)
            checkpoint.Checkpoints(case).save(4, state(4), {})
            seen.append(
                {
                    "call": call,
                    "fault": name,
                    "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
                    "replaced": "replace" in trace[:at] or (call == "replace" and name == "die_after"),
                    "newest": step,
                    "orphans": len(left),
                    "then": newest(case),
                    "orphans_then": len(temporaries(case)),
                }
            )
            shutil.rmtree(case)
    return seen


def main(program: str, folder: str, *numbers: str) -> None:
    where = Path(folder)
    if program == "kills":
        print(json.dumps(kills(where, *map(int, numbers))))
    elif program == "points":
        print(json.dumps(points(where)))
    elif program == "save":
        files.BLOCK = BLOCK
        step = int(numbers[0])
        try:
            checkpoint.Checkpoints(where).save(step, state(step), {})
        except checkpoint.CheckpointError as failure:
            os._exit(3 if os.strerror(errno.EIO) in str(failure) or os.strerror(errno.ENOSPC) in str(failure) else 1)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
