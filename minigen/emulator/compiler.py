"""From the text of a kernel to a library that can be called: the one place that runs a C++ compiler. Start at `build`.

What was compiled is kept in a folder, under a digest of everything that it depends on, so that each text is compiled once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..autograd.backend import DeviceError

HERE = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
HEADERS = ("device.h", "runtime.h")
SOURCES = ("runtime.cpp", "checker.cpp")  # the second for checked libraries only
FLAGS = ("-std=c++17", "-g", "-fPIC", "-fvisibility=hidden", "-w")
LIKE_CUDA = ("-ffp-contract=off", "-fno-strict-aliasing")  # a*b + c is rounded twice; a float* may be read as a float4*
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?(\w+(?:\s+\w+)*?)\s+(\w+)\s*\[\s*\]\s*;")
KEPT = 30 * 24 * 3600  # seconds that an unused library stays
IGNORED = ("-fmad", "--gpu-architecture", "-arch", "--use_fast_math")  # options of NVRTC that mean nothing here


class NoCompiler(DeviceError):
    """There is no C++ compiler, so that kernels cannot be run on the CPU."""


class CompileError(RuntimeError):
    """The text of a kernel is not what the compiler understands. One line for each error: file, line, what it is."""


@cache
def find_compiler() -> str:
    """The C++ compiler's path: $CXX, else the first that is found. Raises NoCompiler, also where there is no Linux."""
    if sys.platform != "linux":
        raise NoCompiler(f"CUDA kernels run on the CPU under Linux only, not on {sys.platform}: use a container, or WSL")
    for name in (os.environ.get("CXX"), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NoCompiler(
        "running CUDA kernels on the CPU needs a C++ compiler, and there is none: install g++ (apt install g++, "
        "dnf install gcc-c++), or name one in the variable CXX"
    )


@cache
def version() -> str:
    """What the compiler says of itself."""
    return _run([find_compiler(), "--version"]).splitlines()[0]


def status() -> str:
    """Whether kernels can be run on the CPU, in one sentence."""
    try:
        return f"ready: --device cuda-emu runs the CUDA kernels on the CPU, compiled by {version()}"
    except NoCompiler as error:
        return str(error)


@cache
def folder() -> Path:
    """Where libraries are kept: beside this file, else in ~/.cache/minigen. Raises OSError where neither can be written."""
    for place in (HERE / "__pycache__" / "compiled", Path("~/.cache/minigen/emulator").expanduser()):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    raise OSError("no folder for compiled kernels: make ~/.cache/minigen writable")


def build(text: str, options: Sequence[str] = (), checked: bool = False) -> Path:
    """The library of a kernel's text, compiled if it is not there yet.

    options: as NVRTC takes them, of which -D and --std= count here.     checked: with the checker in it.
    Raises NoCompiler; CompileError for a text with mistakes; ValueError for an option that is not known.
    """
    flags = _flags(options)
    parts = [_object(name, "-O2", *(["-DCHECKED"] if checked else [])) for name in (SOURCES if checked else SOURCES[:1])]
    key = _digest(text, *LIKE_CUDA, *flags, str(checked), *(p.name for p in parts), *_headers())
    library = folder() / f"{key}.so"
    if library.exists():
        library.touch()
    else:
        _forget_old()
        with tempfile.TemporaryDirectory(dir=folder()) as scratch:
            source, made = Path(scratch, "kernel.cu"), Path(scratch, "kernel.o")
            source.write_text(translated(text, flags), encoding="utf-8")
            watch = ["-O1", "-fsanitize=thread"] if checked else ["-O2"]
            kind = ["-x", "c++", "-include", str(HERE / "device.h"), "-c", source.name]
            _run([find_compiler(), *FLAGS, *LIKE_CUDA, *flags, *watch, *kind, "-o", str(made)], scratch)
            linked = Path(scratch, "kernel.so")
            _run([find_compiler(), "-shared", "-o", str(linked), str(made), *map(str, parts)])
            os.replace(linked, library)
    return library


def _forget_old() -> None:
    """Remove what has not been used for a month: every change of a text leaves a library behind."""
    for path in folder().glob("*.so"):
        with suppress(FileNotFoundError):  # another process was quicker
            if path.stat().st_mtime < time.time() - KEPT:
                path.unlink()


def translated(text: str, flags: Sequence[str]) -> str:
    """What the compiler gets after the dialect: the text as it is, and a door to each kernel.

    The one thing that is rewritten is `extern __shared__ T name[];`, an array whose size comes with the launch.
    """
    doors = "".join(f"EXPORT({name})\n" for name in kernel_names(text, flags))
    return f"{_with_dynamic_shared(text)}\n{doors}"


def _with_dynamic_shared(text: str) -> str:
    return DYNAMIC.sub(r"\1* const \2 = (\1*)emulator_dynamic_shared();", text)


def kernel_names(text: str, flags: Sequence[str] = ()) -> list[str]:
    """Names of the functions in a text that are marked __global__, also by a macro of its own."""
    plain = _run([find_compiler(), *flags, "-E", "-x", "c++", "-w", "-"], text=text)
    return re.findall(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(", plain)


def symbols(library: Path) -> dict[str, int]:
    """Addresses in a library of what Python calls."""
    lines = (line.split() for line in _run(["nm", "-D", "--defined-only", str(library)]).splitlines())
    return {name: int(address, 16) for address, _, name in lines}


ROOM = "emulator::emulator_room"  # see runtime.cpp


def variables(library: Path) -> list[tuple[str, int, int]]:
    """Shared variables of a library, which are thread-local: name, place among them, size in bytes. ROOM is one of them."""
    found = []
    for line in _run(["nm", "-C", "-S", "-f", "sysv", "--defined-only", str(library)]).splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 7 and columns[3] == "TLS":
            found.append((columns[0], int(columns[1], 16), int(columns[4], 16)))
    return found


def lines_of(library: Path, addresses: Sequence[int]) -> list[list[str]]:
    """For each address of code, where it comes from in the text: "cuda.cu:12" first, then where that was called from."""
    if not addresses:
        return []
    output = _run(["addr2line", "-e", str(library), "-i", "-a", *(hex(a - 1) for a in addresses)])  # - 1: into the call
    found: list[list[str]] = []
    for line in output.splitlines():
        if line.startswith("0x"):
            found.append([])
        elif not line.startswith("?") and not any(line.partition(":")[0].endswith(header) for header in HEADERS):
            found[-1].append(_short(line.partition(" ")[0]))
    return found


def _short(place: str) -> str:
    """A file's path without the folder in which it happened to be compiled."""
    return re.sub(rf"^{re.escape(str(folder()))}/[^/]+/", "", place)


def _flags(options: Sequence[str]) -> list[str]:
    kept = []
    for option in options:
        if option.startswith("-D"):
            kept.append(option)
        elif option.startswith("--std="):
            kept.append(option[1:])
        elif not option.startswith(IGNORED):
            raise ValueError(f"the emulator does not know the compiler option {option!r}: leave it out")
    return kept


def _object(name: str, *flags: str) -> Path:
    """A part of the emulator itself, compiled."""
    source = (HERE / name).read_text(encoding="utf-8")
    target = folder() / f"{_digest(source, *flags, *_headers())}.o"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as scratch:
            made = Path(scratch, "part.o")
            _run([find_compiler(), *FLAGS, *flags, "-c", str(HERE / name), "-o", str(made)])
            os.replace(made, target)
    return target


@cache
def _headers() -> tuple[str, ...]:
    """What every library depends on besides its text."""
    return (version(), *(HERE.joinpath(name).read_text(encoding="utf-8") for name in HEADERS))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _run(command: list[str], cwd: str | None = None, text: str | None = None) -> str:
    """A command's output; `text` is its input. Raises CompileError with what the compiler found wrong."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        errors = [_short(line) for line in done.stderr.splitlines() if ": error: " in line or "undefined reference" in line]
        raise CompileError("\n".join(errors) or done.stderr.strip())
    return done.stdout
