"""Every kernel: readable NumPy against Numba, and where PyTorch has the same, against that. Start at `measure`.

    python -m benchmarks kernels --peers torch --threads 1 --plot kernels.png

Each is timed at three sizes: one that the per-call overhead governs, one that fits a cache, one that does not. The fraction of
the roof says how near the kernel is to the best that the machine can do with the card's bytes and operations: copying so many
bytes, or multiplying so much, whichever takes longer, both measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigen.autograd.backend import Kernel
from minigen.autograd.kernels import jit

from . import cases, rates, report

SIZES = {"4 K": 1 << 12, "64 K": 1 << 16, "2 M": 1 << 21}  # float32 numbers
SLOW_REFERENCE = 0.5  # seconds from which on the readable version is not timed


def measure(names: Sequence[str], peers: Sequence[str], threads: int, rounds: int, sizes: dict[str, int]) -> tuple[list, dict]:
    """Rows for each kernel and size, and the roof."""
    jit.set_threads(threads)
    torch = _torch(threads) if "torch" in peers else None
    roof = rates.measured()
    rows = []
    for name, kernel in cases.every_kernel().items():
        for size, numbers in sizes.items():
            if not names or name in names:
                rows += _rows(kernel, size, numbers, torch, rounds, roof)
    return rows, roof


def _rows(kernel: Kernel, size: str, numbers: int, torch: Any, rounds: int, roof: dict[str, float]) -> list[dict]:
    args, kwargs = cases.grown(kernel, numbers)
    lanes: dict[str, Callable[[], object]] = {"numba": _call(kernel.implementation("numba"), args, kwargs)}
    reference = _call(kernel.implementation("numpy"), args, kwargs)
    if _seconds(reference, 1) < SLOW_REFERENCE:
        lanes["numpy"] = reference
    if torch is not None and kernel.name in TORCH:
        lanes["torch eager"] = TORCH[kernel.name](torch, *[_given(torch, a) for a in args])
    repeats = {lane: max(1, int(2e-3 / max(_seconds(call, 2), 1e-7))) for lane, call in lanes.items()}
    times: dict[str, list[float]] = {lane: [] for lane in lanes}
    for _ in range(rounds):
        for lane, call in lanes.items():
            times[lane].append(_seconds(call, repeats[lane]))
    flops, moved = kernel.card.flops(*args, **kwargs), kernel.card.bytes(*args, **kwargs)
    at_best = max(moved / roof["copy"], flops / roof["product"])
    return [
        {
            "case": f"{kernel.name} {size}",
            "lane": lane,
            "unit": "µs",
            "quartiles": report.spread([1e6 * t for t in values]),
            "ratio": None if lane == "numba" else report.spread([a / b for a, b in zip(times["numba"], values, strict=True)]),
            "flops": flops,
            "bytes": moved,
            "of roof": float(at_best / np.median(values)),
        }
        for lane, values in times.items()
    ]


def _call(implementation: Callable, args: tuple, kwargs: dict) -> Callable[[], object]:
    own = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args)  # some kernels write into their arguments
    return lambda: implementation(*own, **kwargs)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def show(rows: list[dict], peers: Sequence[str]) -> None:
    """A line for each kernel and size."""
    by_case: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_case.setdefault(row["case"], {})[row["lane"]] = row
    header = ["kernel", "numbers", "numba µs", "of roof", "of numpy's time", *(["of torch's time"] if peers else [])]
    lines = []
    for case, lanes in by_case.items():
        name, size = case.split(" ", 1)
        ours = lanes["numba"]
        ratios = [report.ratio_text(lanes[lane]["ratio"] if lane in lanes else None) for lane in ("numpy", "torch eager")]
        numbers = [f"{ours['quartiles'][1]:.1f}", f"{ours['of roof']:.2f}"]
        lines.append([name, size, *numbers, *ratios[: 2 if peers else 1]])
    report.table(header, lines)


def figure(rows: list[dict], roof: dict[str, float]) -> bytes:
    """The roofline: operations a second over operations a byte, of our kernels at the largest size, below the measured roof."""
    import matplotlib

    matplotlib.use("Agg")
    import io

    from matplotlib import pyplot as plt

    largest = rows[-1]["case"].split(" ", 1)[1]
    mine = [r for r in rows if r["lane"] == "numba" and r["flops"] > 0 and r["case"].split(" ", 1)[1] == largest]
    x = np.array([r["flops"] / r["bytes"] for r in mine])
    y = np.array([r["flops"] / (r["quartiles"][1] * 1e-6) for r in mine]) / 1e9
    fig, ax = plt.subplots(figsize=(9, 6), layout="constrained")
    line = np.geomspace(min(0.05, x.min() / 2), x.max() * 2, 200)
    limit = np.minimum(line * roof["copy"], roof["product"]) / 1e9
    ax.loglog(line, limit, color="#6b7482", label="measured: copy, matrix product")
    ax.scatter(x, y, s=18, color="#3b6ea8")
    for row, a, b in zip(mine, x, y, strict=True):
        ax.annotate(row["case"].split(" ")[0], (a, b), fontsize=6, xytext=(3, 2), textcoords="offset points")
    ax.set(xlabel="operations per byte (of the card)", ylabel="10⁹ operations per second")
    ax.set_title(f"Kernels at {largest} numbers")
    ax.legend(frameon=False)
    target = io.BytesIO()
    fig.savefig(target, format="png", dpi=120)
    plt.close(fig)
    return target.getvalue()


# ---- PyTorch's version of a kernel, where it has one of its own: name -> (torch, arguments) -> call


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch


def _given(torch: Any, a: Any) -> Any:
    """An argument for PyTorch: images channels-first, as is usual there."""
    if not isinstance(a, np.ndarray):
        return a
    return torch.tensor(a.transpose(0, 3, 1, 2).copy() if a.ndim == 4 else a)


def _weight(t: Any) -> Any:
    """(kh, kw, in, out), which `_given` has turned to (kh, out, kw, in) -> (out, in, kh, kw)."""
    return t.permute(1, 3, 0, 2).contiguous()


def _same(name: str) -> Callable:
    return lambda torch, x, *rest: lambda: getattr(torch, name)(x)


def _function(name: str) -> Callable:
    return lambda torch, x, *rest: lambda: getattr(torch.nn.functional, name)(x)


def _aten(name: str, *more: Any) -> Callable:
    return lambda torch, g, x, *rest: lambda: getattr(torch.ops.aten, name)(g, x, *more)


def _convolution(torch: Any, x: Any, w: Any, *layer: Any) -> Callable:
    weight = _weight(w)
    return lambda: torch.nn.functional.conv2d(x, weight, stride=layer[0], padding=layer[1])


def _convolution_backward(which: int) -> Callable:
    def make(torch: Any, a: Any, b: Any, size: Any, stride: Any, padding: Any, *rest: Any) -> Callable:
        if which == 0:  # g, w, input size -> gradient of the image
            weight, image = _weight(b), torch.zeros(a.shape[0], _weight(b).shape[1], *size)
            g = a
        else:  # x, g, kernel size -> gradient of the weight
            image, g = a, b
            weight = torch.zeros(b.shape[1], a.shape[1], *size)
        wanted = [which == 0, which == 1, False]
        return lambda: torch.ops.aten.convolution_backward(
            g, image, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
        )

    return make


def _layer_norm(torch: Any, x: Any, weight: Any, bias: Any, eps: float, *rest: Any) -> Callable:
    return lambda: torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def _adam(torch: Any, p: Any, g: Any, m: Any, v: Any, t: int, lr: float, *rest: Any) -> Callable:
    with torch.enable_grad():
        leaf = torch.nn.Parameter(p)
    leaf.grad = g
    return torch.optim.Adam([leaf], lr).step


TORCH: dict[str, Callable] = {
    **{name: _same(name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "relu")},
    **{name: _function(name) for name in ("silu", "softplus", "leaky_relu", "elu", "gelu")},
    "silu_vjp": _aten("silu_backward"),
    "tanh_vjp": _aten("tanh_backward"),
    "sigmoid_vjp": _aten("sigmoid_backward"),
    "relu_vjp": _aten("threshold_backward", 0.0),
    "gelu_vjp": _aten("gelu_backward"),
    "matmul": lambda torch, a, b: lambda: a @ b,
    "softmax": lambda torch, x, *rest: lambda: torch.softmax(x, -1),
    "log_softmax": lambda torch, x, *rest: lambda: torch.log_softmax(x, -1),
    "layer_norm": _layer_norm,
    "conv2d": _convolution,
    "conv2d_input": _convolution_backward(0),
    "conv2d_weight": _convolution_backward(1),
    "cross_entropy": lambda torch, x, t, *rest: lambda: torch.nn.functional.cross_entropy(x, t, reduction="none"),
    "adam": _adam,
    "philox_normal": lambda torch, *a: lambda: torch.randn(a[3]),
    "philox_uniform": lambda torch, *a: lambda: torch.rand(a[3]),
}
