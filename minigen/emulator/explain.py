"""What a kernel costs on a GPU, as far as that shows without one. Start at `explain`.

Operations and bytes are those of the kernel's card. Registers, spills and shared memory come from NVIDIA's compiler, where it
is installed. Sectors and bank conflicts are counted by the emulator in a run of the card's largest case, which the checker
looks at too.
"""

from __future__ import annotations

import importlib
import math

import numpy as np

from ..autograd import backend
from ..autograd.backend import Kernel
from . import nvrtc
from .listing import load_all, on_device, typical_case
from .program import Mode, running
from .report import Traffic

ARCHITECTURE = "sm_90"
BALANCE = 14  # FLOP per byte: the float32 rate of an H200 over that of its memory, 67 TFLOP/s over 4.8 TB/s in its data sheet


def explain(name: str) -> str:
    """A page about a kernel. Raises KeyError for an unknown name, DeviceError where there is no C++ compiler."""
    kernel = load_all()[name]
    args, kwargs = typical_case(kernel)
    with backend.emulate(), running(check=True, measure=True) as mode:
        kernel.implementation("cuda")(*on_device(args), **kwargs)
    lines = [f"{name}({_shown(args, kwargs)})", "", *_costs(kernel, args, kwargs)]
    usage = _usage(kernel)
    for cuda_name in dict.fromkeys(launch.name for launch in mode.launches):
        lines += ["", *_cuda_kernel(cuda_name, mode, usage)]
    if not mode.launches:
        lines += ["", "cuBLAS does it. In a captured step, where CuPy cannot call that, matmul_kernel of linalg/cuda.cu does."]
    else:
        lines += ["", "The checker found no race, nothing out of bounds, and no shared memory read before it was written."]
    return "\n".join(lines)


def _shown(args: tuple, kwargs: dict) -> str:
    given = [f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else repr(a) for a in args]
    return ", ".join([*given, *(f"{key}={value!r}" for key, value in kwargs.items())])


def _costs(kernel: Kernel, args: tuple, kwargs: dict) -> list[str]:
    """Operations, bytes, and which of the two takes longer."""
    flops, moved = kernel.card.flops(*args, **kwargs), kernel.card.bytes(*args, **kwargs)
    intensity = flops / max(moved, 1)
    held = "below about {} a large GPU waits for memory" if intensity < BALANCE else "above about {} a large GPU waits for sums"
    rows = {
        "FLOPs": f"{flops:,}",
        "bytes": f"{moved:,}, each input read once and each output written once",
        "intensity": f"{intensity:.2f} FLOP per byte; {held.format(BALANCE)}",
        "accuracy": f"{kernel.card.ulp:g} ulp" if kernel.card.ulp else "the same bits as the reference",
    }
    if kernel.card.note:
        rows["note"] = kernel.card.note
    return [f"{key:10} {value}" for key, value in rows.items()]


def _usage(kernel: Kernel) -> dict[str, nvrtc.Usage] | None:
    """What NVIDIA's compiler says of the kernels of a family, for float32; None where it is not installed."""
    if nvrtc.library() is None:
        return None
    source = importlib.import_module(f"{kernel.family}.cuda").source
    used: dict[str, nvrtc.Usage] = {}
    for own in (source, importlib.import_module("minigen.autograd.kernels.reduction.cuda").source):  # many end in its sum
        options = [*own.options(np.float32), f"--gpu-architecture={ARCHITECTURE}"]
        used |= nvrtc.compile(own.text(), options).usage
    return used


def _cuda_kernel(name: str, mode: Mode, usage: dict[str, nvrtc.Usage] | None) -> list[str]:
    """One CUDA kernel: how it is launched, what it takes, and a line for each line of its text that moves memory."""
    lines = [name]
    for launch in (launch for launch in mode.launches if launch.name == name):
        threads, blocks = math.prod(launch.block), math.prod(launch.grid)
        lines.append(f"  {blocks} blocks {launch.grid} of {threads} threads {launch.block}")
    if usage is None:
        lines.append("  registers and shared memory: not known without pip install nvidia-cuda-nvrtc")
    elif name in usage:
        u = usage[name]
        spills = f"spills {u.spilled} bytes" if u.spilled else "no spills"
        lines.append(f"  {u.registers} registers a thread, {spills}, {u.shared} bytes of shared memory ({ARCHITECTURE})")
    table = [("line", "what", "requests", "each takes", "at best", ""), *map(_row, _merged(mode.traffic.get(name, [])))]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return lines + ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _merged(rows: list[Traffic]) -> list[Traffic]:
    """Instructions of one line that do the same, as one: a compiler may make several of a loop."""
    merged: dict[tuple, list[Traffic]] = {}
    for row in rows:
        merged.setdefault((row.place, row.shared, row.write), []).append(row)
    result = []
    for (place, shared, write), same in merged.items():
        n = sum(r.requests for r in same)
        taken, ideal = (sum(getattr(r, what) * r.requests for r in same) / n for what in ("per_request", "ideal"))
        result.append(Traffic(place, shared, write, n, taken, ideal))
    return result


def _row(t: Traffic) -> tuple[str, ...]:
    unit = "passes" if t.shared else "sectors"
    what = f"{'shared' if t.shared else 'global'} {'write' if t.write else 'read'}"
    remark = ("bank conflicts" if t.shared else "not coalesced") if t.per_request > 1.25 * t.ideal + 0.5 else ""
    return t.place, what, f"{t.requests:,}", f"{t.per_request:.1f} {unit}", f"{t.ideal:.1f}", remark
