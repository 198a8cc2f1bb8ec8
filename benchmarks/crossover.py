"""From which size on a GPU is worth its launches: the same kernels on the CPU and on a GPU, over sizes. Start at `crossover`.

A launch costs some microseconds whatever it launches, so small arrays are faster where they are. Times are medians on the wall
clock, of calls one after another, on both sides until the result is there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigen.autograd import backend
from minigen.autograd.backend import KERNELS, move
from minigen.random import Generator

CASES: dict[str, Callable[[int], tuple]] = {  # label -> arguments of the kernel for about n numbers
    "silu": lambda n: (Generator(0).normal(n),),
    "softmax": lambda n: (Generator(0).normal((max(n // 256, 1), 256)),),
    "matmul": lambda n: tuple(Generator(i).normal((_side(n), _side(n))) for i in range(2)),
    "conv2d": lambda n: (
        Generator(0).normal((max(n // (28 * 28 * 16), 1), 28, 28, 16)), Generator(1).normal((3, 3, 16, 16)),
        (1, 1), (1, 1), (1, 1), 1,
    ),
}  # fmt: skip


def _side(n: int) -> int:
    return max(int(n**0.5), 1)


def crossover(most: int, repeats: int = 15) -> dict[str, dict[str, Any]]:
    """label -> sizes (numbers in the first array), seconds on the CPU and on the GPU, and the size from which the GPU wins.

    most: the largest size, as a power of two. The crossover is None where the CPU still wins at the largest.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, arguments in CASES.items():
        rows: dict[str, Any] = {"n": [], "cpu": [], "gpu": []}
        for log2 in range(8, most + 1, 2):
            here = arguments(1 << log2)
            there = tuple(move(a, "cuda") if isinstance(a, np.ndarray) else a for a in here)
            rows["n"].append(here[0].size)
            for place, args in (("cpu", here), ("gpu", there)):
                run = KERNELS[name].on({"cpu": "cpu", "gpu": "cuda"}[place])
                rows[place].append(_seconds(lambda run=run, args=args: run(*args), repeats))
        wins = [gpu < cpu for cpu, gpu in zip(rows["cpu"], rows["gpu"], strict=True)]
        first = len(wins) - next((i for i, won in enumerate(reversed(wins)) if not won), len(wins))
        rows["crossover"] = rows["n"][first] if first < len(wins) else None
        found[name] = rows
        print(f"{name:28}the GPU is faster from {rows['crossover'] or 'no size tried'} numbers on")
    return found


def _seconds(call: Callable[[], object], repeats: int) -> float:
    device = backend.cupy().cuda.Device()
    times = []
    for _ in range(repeats + 2):
        device.synchronize()
        start = time.perf_counter()
        call()
        device.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def plot(found: dict[str, dict[str, Any]], path: Path, device: str) -> None:
    """CPU time over GPU time, by size: above 1 the GPU is faster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, rows in found.items():
        axes.loglog(rows["n"], np.divide(rows["cpu"], rows["gpu"]), marker="o", markersize=3, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="numbers in the array", ylabel="times faster than the CPU", title=f"When a GPU pays: {device}")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
