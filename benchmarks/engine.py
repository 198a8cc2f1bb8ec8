"""What the engine itself costs: microseconds per op on tiny arrays, where the arithmetic is nothing. Start at `measure`.

    python -m benchmarks engine                 ours: forward; and backward; or with create_graph; or that, and once more
    python -m benchmarks engine --peers torch   the same chains in PyTorch, A B A B in one process on one thread

A chain is a few hundred ops on 8 numbers, none of which vanishes or overflows on the way. Each mode includes those before it:
"second" is the chain, its recorded gradients, and the gradients of the sum of their squares. Times are processor time, medians
over rounds; ratios are medians of the ratios of neighbouring rounds, with their quartiles, since the absolute times of a shared
machine mean little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import Tensor, grad, ops
from minigen.autograd.kernels import jit

from . import report

OPS_PER_ROUND = 3
MODES = ("forward", "backward", "create_graph", "second")


def chains(lib: Any, one: Any) -> dict[str, Callable[[Any, Any, int], Any]]:
    """The chains: functions of two vectors and a length, written once for both libraries."""
    return {
        "add": lambda x, y, n: repeat(n, x, lambda h: (h + y) + (h + y)),
        "multiply-add-tanh": lambda x, y, n: repeat(n, x, lambda h: lib.tanh(h * y + x)),
        "sin-multiply-subtract": lambda x, y, n: repeat(n, x, lambda h: lib.sin(h) * y - x),
        "matmul": lambda x, y, n: repeat(n, x, lambda h: (h @ one) * y + x),
    }


def repeat(n: int, h: Any, step: Callable[[Any], Any]) -> Any:
    for _ in range(n):
        h = step(h)
    return h.sum()


def ours(name: str, mode: str) -> Callable[[int], None]:
    chain = chains(ops, np.eye(8, dtype=np.float32))[name]
    x = Tensor(np.full(8, 0.1, np.float32), requires_grad=True)
    y = Tensor(np.full(8, 0.9, np.float32), requires_grad=True)
    return lambda n: run(chain, x, y, n, mode, grad)


def torchs(name: str, mode: str) -> Callable[[int], None]:
    import torch

    torch.set_num_threads(1)
    chain = chains(torch, torch.eye(8))[name]
    x = torch.full((8,), 0.1, requires_grad=True)
    y = torch.full((8,), 0.9, requires_grad=True)
    return lambda n: run(chain, x, y, n, mode, torch.autograd.grad)


def run(chain: Callable[[Any, Any, int], Any], x: Any, y: Any, n: int, mode: str, grad: Callable) -> None:
    """The chain, and what `mode` wants of its gradients."""
    out = chain(x, y, n)
    if mode != "forward":
        gx, gy = grad(out, [x, y], create_graph=mode in ("create_graph", "second"))
    if mode == "second" and gx.requires_grad:  # those of a linear chain are constants
        grad((gx * gx).sum() + (gy * gy).sum(), [x, y])


def seconds(run: Callable[[int], None], n: int) -> float:
    start = time.process_time()
    run(n)
    return time.process_time() - start


def measure(peer: str | None, rounds: int, n: int) -> list[dict[str, Any]]:
    """A row for each chain and mode: microseconds per op, and ratios to the peer; and what recording costs, as a ratio."""
    jit.set_threads(1)
    rows = []
    for name in chains(ops, None):
        lanes = {"minigen": ours} | ({"torch": torchs} if peer == "torch" else {})
        runs = {(mode, lane): of(name, mode) for mode in MODES for lane, of in lanes.items()}
        for one in runs.values():
            one(n)  # compiles, and warms the caches
        turns = [[seconds(one, n) for one in runs.values()] for _ in range(rounds)]
        times = dict(zip(runs, np.array(turns).T * 1e6 / (n * OPS_PER_ROUND), strict=True))
        for (mode, lane), taken in times.items():
            row = {"case": f"{name}, {mode}", "lane": lane, "unit": "µs per op", "quartiles": report.spread(taken)}
            rows.append(row if lane == "minigen" else {**row, "ratio": report.spread(times[mode, "minigen"] / taken)})
        for lane in lanes:
            recording = report.spread(times["create_graph", lane] / times["backward", lane])
            rows.append({"case": f"{name}, create_graph / backward", "lane": lane, "unit": "times", "quartiles": recording})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A line for each chain, mode and library."""
    cells = lambda row: [f"{row['quartiles'][1]:.2f}", row["unit"], report.ratio_text(row.get("ratio"))]
    report.table(["chain, mode", "lane", "median", "", "ours / its time"], [[r["case"], r["lane"], *cells(r)] for r in rows])
