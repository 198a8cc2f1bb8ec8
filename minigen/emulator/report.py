"""What went wrong in a kernel, in words, with the line of its text. Start at `explained`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import compiler

FAILURES = ("", "divergence", "deadlock", "race", "bounds", "misaligned", "uninitialised", "lane")  # enum Failure in runtime.h

STATES = {-1: "this block does not have", 1: "waits at __syncthreads", 2: "waits for others", 3: "has ended"}  # enum State


class KernelError(RuntimeError):
    """A kernel that a real device would refuse, or that would do something wrong there.

    kind: one of FAILURES, or "limit" or "arguments" for a launch that was refused.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class Index(ctypes.Structure):
    """Three indices, as CUDA's threadIdx."""

    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))

    def __str__(self) -> str:
        return f"({self.x}, {self.y}, {self.z})"


class Place(ctypes.Structure):
    """A line of a kernel's source."""

    _fields_ = (("file", ctypes.c_char_p), ("line", ctypes.c_int))

    def __str__(self) -> str:
        return f"{self.file.decode()}:{self.line}"


class Party(ctypes.Structure):
    """A thread that took part, as in runtime.h."""

    _fields_ = (
        ("block", Index), ("thread", Index), ("pc", ctypes.c_void_p), ("place", Place), ("write", ctypes.c_int),
        ("atomic", ctypes.c_int),
    )  # fmt: skip

    def __str__(self) -> str:
        return f"thread {self.thread} of block {self.block}"

    @property
    def does(self) -> str:
        """ "reads", "writes" or "updates atomically"."""
        return "updates atomically" if self.atomic else "writes" if self.write else "reads"


class Report(ctypes.Structure):
    """As in runtime.h."""

    _fields_ = (
        ("failure", ctypes.c_int), ("waiting", ctypes.c_int), ("threads", ctypes.c_int), ("one", Party), ("other", Party),
        ("region", ctypes.c_int), ("offset", ctypes.c_long), ("size", ctypes.c_int),
    )  # fmt: skip


class _Counts(ctypes.Structure):
    """struct Traffic of runtime.h."""

    _fields_ = (
        ("pc", ctypes.c_void_p), ("shared", ctypes.c_int), ("write", ctypes.c_int), ("size", ctypes.c_int),
        ("requests", ctypes.c_long), ("sectors", ctypes.c_long), ("ideal_sectors", ctypes.c_long),
        ("wavefronts", ctypes.c_long), ("ideal_wavefronts", ctypes.c_long),
    )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """What one memory instruction of a kernel asked for.

    place: in the text.     requests: how often a warp came to it.
    per_request: sectors of 32 bytes of global memory, or passes over the banks of shared memory, that a request took;
    ideal: as few as its bytes need, which is 1 for shared memory.
    """

    place: str
    shared: bool
    write: bool
    requests: int
    per_request: float
    ideal: float


def measured(library: Any, room: int) -> list[Traffic]:
    """The traffic of a launch that has just ended, by instruction, in the order of the text."""
    counts = (_Counts * room)()
    found = counts[: library.loaded.emulator_traffic(counts, room)]
    places = compiler.lines_of(library.path, [c.pc - library.base for c in found])
    rows = []
    for c, place in zip(found, places, strict=True):
        taken, ideal = (c.wavefronts, c.ideal_wavefronts) if c.shared else (c.sectors, c.ideal_sectors)
        n = c.requests
        scale = c.ideal_wavefronts if c.shared else n
        rows.append(Traffic(place[0] if place else "?", bool(c.shared), bool(c.write), n, taken / scale, ideal / scale))
    return sorted(rows, key=lambda t: (t.place.partition(":")[0], int(t.place.partition(":")[2] or 0)))


def explained(report: Report, kernel: Any, library: Any, args: Sequence[Any], memory: Any) -> KernelError:
    """What the runtime has found, as an error to raise."""
    kind, name = FAILURES[report.failure], kernel.name
    one, other = report.one, report.other
    if kind == "divergence":
        elsewhere = f"waits at {other.place}" if other.place.file else "has ended"
        return KernelError(kind, (
            f"kernel {name}, {one.place}: __syncthreads is reached by {report.waiting} of {report.threads} threads only; "
            f"{other} {elsewhere}. All threads of a block have to come to the same barrier: move it out of the branch"
        ))  # fmt: skip
    if kind == "deadlock":
        return KernelError(kind, (
            f"kernel {name}, {one.place}: {one} waits for lane {report.waiting} of its warp, which the mask names, and which "
            f"{STATES[report.threads]}: name in the mask exactly the lanes that come here together"
        ))  # fmt: skip
    if kind == "lane":
        message = f"kernel {name}, {one.place}: {one} takes part with lane {report.waiting}, which is not in the mask"
        return KernelError(kind, message)
    pcs = [p.pc - library.base for p in (one, other) if p.pc]
    places = [" called from ".join(lines[:3]) or "?" for lines in compiler.lines_of(library.path, pcs)]
    what = _region(report, kernel, library, args, memory)
    head = f"kernel {name}, {places[-1]}: {other} {other.does} {what}"
    if kind == "race":
        return KernelError(kind, (
            f"{head}, which {one} {one.does} at {places[0]}, and nothing orders the two: {_remedy(one, other, report.region)}"
        ))  # fmt: skip
    if kind == "bounds":
        return KernelError(kind, f"{head}, which is outside: check the index against the size")
    if kind == "misaligned":
        return KernelError(kind, f"{head} as {report.size} bytes at once, which has to begin at a multiple of {report.size}")
    return KernelError(kind, f"{head}, which no thread of the block has written: shared memory starts with anything")


def _remedy(one: Party, other: Party, region: int) -> str:
    if str(one.block) != str(other.block):
        return "blocks run in any order; give each its own numbers, use an atomic, or launch twice"
    return "put a __syncthreads between them, or give each thread its own numbers"


def _region(report: Report, kernel: Any, library: Any, args: Sequence[Any], memory: Any) -> str:
    """What was touched, and where in it: "out[100] of 100", "tile (byte 1024 of 1024)"."""
    if report.region < 0:
        variables = library.shared
        index = -1 - report.region
        if index == len(variables):
            return f"dynamic shared memory at byte {report.offset}"
        full, _, size = variables[index]
        return f"shared {full.rpartition('::')[2]} at byte {report.offset} of {size}"
    arrays = [(i, a) for i, a in enumerate(args) if isinstance(a, np.ndarray)]
    address = memory.ranges[report.region][0] + report.offset
    inside = [(i, a) for i, a in arrays if memory.piece(a) == report.region]
    i, a = next(
        ((i, a) for i, a in inside if memory.address(a) <= address < memory.address(a) + a.nbytes), inside[0]
    )
    label = kernel.parameters[i]
    return f"{label}[{(address - memory.address(a)) // a.itemsize}], of an array of {a.size}"
