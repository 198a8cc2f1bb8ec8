"""Launching kernels on the CPU, with what CUDA leaves to the programmer checked. Start at `Program.launch`.

    program = Program(text)                                             compiled once, then kept on disk
    program.launch("scale", 4, 256, (np.int32(1000), x, y))             kernel, blocks, threads, arguments
    with running(check=True, schedule="shuffled"):                      the same, looked at
        program.launch(...)                                             raises KernelError, with the line of the text
"""

from __future__ import annotations

import collections
import ctypes
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import compiler
from .checks import Size, check_arguments, check_shared, check_sizes
from .report import Report, Traffic, explained, measured

SCHEDULES = ("forward", "backward", "shuffled")
GUARD = 1 << 20  # bytes on both sides of an array that the checker knows to be outside
ALIGNED = 256  # what device memory begins at a multiple of
ROOM = 4096  # instructions whose traffic is counted
DOOR = "emulator_call_"  # and the name of a kernel: a function of a library


class Launched(NamedTuple):
    """A launch, as it was asked for."""

    name: str
    grid: Size
    block: Size
    shared: int


@dataclass(frozen=True)
class Mode:
    """How kernels are run.

    schedule: in what order the threads of a block, and the blocks, come: "forward", "backward" or "shuffled" (by `seed`).
    check: look at every memory access, for races, bounds, and shared memory that nobody has written. Much slower.
    measure: also count the sectors and bank conflicts of each instruction, into `traffic` by kernel.
    dry: launch nothing, which needs no compiler; only note in `launches`, as always, what would have been.
    """

    schedule: str = "forward"
    seed: int = 1
    check: bool = False
    measure: bool = False
    dry: bool = False
    traffic: dict[str, list[Traffic]] = field(default_factory=dict)
    launches: list[Launched] = field(default_factory=list)


_mode = Mode(launches=collections.deque(maxlen=0))  # type: ignore[arg-type]  # nobody asks for them
_lock = threading.Lock()


def mode() -> Mode:
    """How kernels are run at this moment."""
    return _mode


@contextmanager
def running(**changes: Any) -> Iterator[Mode]:
    """Inside this block, kernels are run as `Mode` says. Raises ValueError for an unknown schedule."""
    global _mode
    before, wanted = _mode, replace(_mode, traffic={}, launches=[], **changes)
    if wanted.schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {wanted.schedule!r}: choose one of {', '.join(SCHEDULES)}")
    _mode = wanted
    try:
        yield wanted
    finally:
        _mode = before


class Dim(ctypes.Structure):
    """Three sizes, as CUDA's dim3."""

    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class Range(ctypes.Structure):
    """The first address of a piece of memory, and the one behind its last."""

    _fields_ = (("begin", ctypes.c_void_p), ("end", ctypes.c_void_p))


class Launch(ctypes.Structure):
    """As in runtime.h."""

    _fields_ = (
        ("grid", Dim), ("block", Dim), ("schedule", ctypes.c_int), ("seed", ctypes.c_uint), ("dynamic", ctypes.c_int),
        ("measure", ctypes.c_int), ("array_count", ctypes.c_int), ("variable_count", ctypes.c_int),
        ("arrays", ctypes.POINTER(Range)), ("variables", ctypes.POINTER(Range)),
    )  # fmt: skip


class Program:
    """A text with kernels.

    text: CUDA C, as NVRTC would get it.     options: as NVRTC takes them.
    Raises CompileError for a text with mistakes, at the first launch; NoCompiler.
    """

    def __init__(self, text: str, options: Sequence[str] = ()):
        self.text, self.options = text, tuple(options)

    def library(self, checked: bool = False) -> Library:
        """The compiled text, with or without the checker."""
        return library_of(self.text, self.options, checked)

    def signature(self, name: str) -> list[str]:
        """Types of a kernel's parameters, as NumPy writes them, a pointer's after a star: ["i4", "*f4"].

        Raises AttributeError for a kernel that the text does not have.
        """
        return self.library(_mode.check).kernel(name).signature

    def launch(self, name: str, grid: Any, block: Any, args: Sequence[Any], shared: int = 0) -> None:
        """Run kernel `name` on a grid of blocks, each of `block` threads: ints, or tuples of up to three.

        args: NumPy arrays in C order, and NumPy scalars, of the types that the kernel declares.
        shared: bytes of dynamic shared memory.
        Raises KernelError for what a real device would refuse, or do wrong without a word.
        """
        grid, block = _three(grid), _three(block)
        _mode.launches.append(Launched(name, grid, block, shared))
        if _mode.dry:
            return
        library = self.library(_mode.check)
        kernel = library.kernel(name)
        check_sizes(name, grid, block, kernel.shared, shared)
        check_arguments(name, kernel.signature, args, kernel.parameters)
        with _lock:
            library.run(kernel, grid, block, args, shared, _mode)


@cache
def library_of(text: str, options: tuple[str, ...], checked: bool) -> Library:
    return Library(text, options, checked)


class Kernel(NamedTuple):
    """address: of the function that calls it.     shared: bytes of its own shared variables."""

    name: str
    address: Any
    signature: list[str]
    parameters: list[str]
    shared: int


class Library:
    """A compiled text, with or without the checker, in memory."""

    def __init__(self, text: str, options: tuple[str, ...], checked: bool):
        self.text, self.checked = text, checked
        self.path = compiler.build(text, options, checked)
        self.loaded = ctypes.CDLL(str(self.path))
        self.loaded.emulator_find_room.restype = ctypes.c_size_t
        found = compiler.variables(self.path)  # name, place, size
        self.shared = [variable for variable in found if variable[0] != compiler.ROOM]
        (self.room,) = (place for name, place, _ in found if name == compiler.ROOM)
        symbols = compiler.symbols(self.path)
        self.names = [name.removeprefix(DOOR) for name in symbols if name.startswith(DOOR)]
        own = ctypes.cast(self.loaded.emulator_run, ctypes.c_void_p).value or 0
        self.base = own - symbols["emulator_run"]  # where the library was put in memory
        for name, _, size in self.shared:
            check_shared(f"{name}, a shared variable", size)
        self.kernels: dict[str, Kernel] = {}  # that have been asked for

    def kernel(self, name: str) -> Kernel:
        """Raises AttributeError for one that the text does not have."""
        if name not in self.kernels:
            if name not in self.names:
                raise AttributeError(f"no kernel {name!r} in this text, which has {', '.join(self.names) or 'none'}")
            buffer = ctypes.create_string_buffer(4096)
            getattr(self.loaded, f"emulator_signature_{name}")(buffer)
            signature = buffer.value.decode().split()
            address = ctypes.cast(getattr(self.loaded, DOOR + name), ctypes.c_void_p)
            own = sum(size for variable, _, size in self.shared if variable.startswith(f"{name}::"))
            self.kernels[name] = Kernel(name, address, signature, self._parameters(name, len(signature)), own)
        return self.kernels[name]

    def variables(self) -> Any:
        """Where shared variables are in this thread of the host."""
        start = self.loaded.emulator_find_room() - self.room
        ranges = [(start + place, start + place + size) for _, place, size in self.shared]
        return (Range * max(len(ranges), 1))(*(Range(*r) for r in ranges))

    def _parameters(self, name: str, count: int) -> list[str]:
        """Names of a kernel's parameters, where the text lists them one by one; else their positions."""
        found = re.search(rf"\b{name}\s*\(([^)]*)\)\s*{{", self.text)
        names = [part.split()[-1].lstrip("*&") for part in found[1].split(",") if part.split()] if found else []
        return names if len(names) == count else [f"argument {i}" for i in range(count)]

    def run(self, kernel: Kernel, grid: Size, block: Size, args: Sequence[Any], shared: int, mode: Mode) -> None:
        """Launch a kernel on arrays and numbers, and wait for it. Raises what the checker found, and where."""
        memory = Memory(args, guarded=self.checked)
        places = [ctypes.c_void_p(memory.address(a)) if isinstance(a, np.ndarray) else np.array(a) for a in args]
        pointers = [p.ctypes.data if isinstance(p, np.ndarray) else ctypes.addressof(p) for p in places]
        arrays = (Range * max(len(memory.ranges), 1))(*(Range(*r) for r in memory.ranges))
        schedule = SCHEDULES.index(mode.schedule)
        counts = (int(mode.measure), len(memory.ranges), len(self.shared))
        launch = Launch(Dim(*grid), Dim(*block), schedule, mode.seed, shared, *counts, arrays, self.variables())
        report = Report()
        addresses = (ctypes.c_void_p * max(len(args), 1))(*pointers)
        self.loaded.emulator_run(kernel.address, addresses, ctypes.byref(launch), ctypes.byref(report))
        if report.failure:
            raise explained(report, kernel, self, args, memory)
        memory.bring_back()
        if mode.measure:
            mode.traffic.setdefault(kernel.name, []).extend(measured(self, ROOM))


class Memory:
    """Arrays of a launch: where they are, or, guarded, where copies of them are that have nothing else around.

    ranges: begin and end of each piece of memory; arrays that overlap are of one piece.
    """

    def __init__(self, args: Sequence[Any], guarded: bool):
        arrays = sorted((a for a in args if isinstance(a, np.ndarray)), key=lambda a: a.ctypes.data)
        self.pieces: list[list[int]] = []
        for a in arrays:
            begin, end = a.ctypes.data, a.ctypes.data + a.nbytes
            if self.pieces and begin < self.pieces[-1][1]:
                self.pieces[-1][1] = max(end, self.pieces[-1][1])
            else:
                self.pieces.append([begin, end])
        self.ranges = [(begin, end) for begin, end in self.pieces]
        self.buffers: list[np.ndarray] = []
        if guarded:
            self.ranges = [self._copy(begin, end) for begin, end in self.pieces]

    def _copy(self, begin: int, end: int) -> tuple[int, int]:
        buffer = np.empty(end - begin + 2 * GUARD + ALIGNED, np.uint8)
        self.buffers.append(buffer)  # keeps it alive
        start = -(-(buffer.ctypes.data + GUARD) // ALIGNED) * ALIGNED
        ctypes.memmove(start, begin, end - begin)
        return start, start + end - begin

    def piece(self, array: np.ndarray) -> int:
        """The number of the piece that an array is in."""
        first, after = array.ctypes.data, array.ctypes.data + array.nbytes
        return next(i for i, (begin, end) in enumerate(self.pieces) if begin <= first and after <= end)

    def address(self, array: np.ndarray) -> int:
        """Where the first element of an array lies in the memory that the kernel sees."""
        i = self.piece(array)
        return self.ranges[i][0] + array.ctypes.data - self.pieces[i][0]

    def bring_back(self) -> None:
        """Copy guarded memory back to where it came from."""
        if self.buffers:
            for (begin, end), (copy, _) in zip(self.pieces, self.ranges, strict=True):
                ctypes.memmove(begin, copy, end - begin)


def _three(size: Any) -> Size:
    given = tuple(int(s) for s in size) if isinstance(size, tuple | list) else (int(size),)
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z
