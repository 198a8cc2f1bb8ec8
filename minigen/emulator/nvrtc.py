"""NVIDIA's runtime compiler, from the wheel nvidia-cuda-nvrtc, without a driver or a device. Start at `compile`."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """What a kernel takes: per thread registers, and bytes of memory spilled out of registers; per block, shared memory."""

    registers: int
    spilled: int
    shared: int


class Compiled(NamedTuple):
    log: str
    ptx: str
    usage: dict[str, Usage]  # by kernel


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None where the wheel is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).rglob("libnvrtc.so.*")):
            if ".alt" not in path.name:
                return ctypes.CDLL(str(path))
    return None


def compile(text: str, options: Sequence[str]) -> Compiled:
    """Compile CUDA C for the architecture among the options. Raises RuntimeError with the compiler's log."""
    nvrtc = library()
    if nvrtc is None:
        raise RuntimeError("no NVRTC: pip install nvidia-cuda-nvrtc")
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"cuda.cu", 0, None, None)
    given = [*options, "--ptxas-options=-v"]
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*(o.encode() for o in given)))
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    if status:
        raise RuntimeError(log)
    ptx = _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Compiled(log, ptx, _usage(log))


def _text(size_of, get, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.value.decode()


def _usage(log: str) -> dict[str, Usage]:
    """Read what ptxas -v says of each kernel."""
    usage = {}
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        wanted = (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes smem")
        numbers = [re.search(pattern, part) for pattern in wanted]
        usage[name] = Usage(*(int(m[1]) if m else 0 for m in numbers))
    return usage
