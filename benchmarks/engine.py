"""What the engine itself costs: microseconds per op on tiny arrays, where the arithmetic is nothing. Start at `measure`.

    python -m benchmarks engine                 ours: forward, forward + backward, with create_graph
    python -m benchmarks engine --peers torch   the same chains in PyTorch, A B A B in one process on one thread

A chain is a few hundred ops on 8 numbers, none of which vanishes or overflows on the way. Times are medians over rounds;
ratios are medians of the ratios of neighbouring rounds, with their quartiles, since the absolute times of a shared machine
mean little.
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

    def run(n: int) -> None:
        out = chain(x, y, n)
        if mode != "forward":
            grad(out, [x, y], create_graph=mode == "create_graph")

    return run


def torchs(name: str, mode: str) -> Callable[[int], None]:
    import torch

    torch.set_num_threads(1)
    chain = chains(torch, torch.eye(8))[name]
    x = torch.full((8,), 0.1, requires_grad=True)
    y = torch.full((8,), 0.9, requires_grad=True)

    def run(n: int) -> None:
        out = chain(x, y, n)
        if mode != "forward":
            torch.autograd.grad(out, [x, y], create_graph=mode == "create_graph")

    return run


def seconds(run: Callable[[int], None], n: int) -> float:
    start = time.perf_counter()
    run(n)
    return time.perf_counter() - start


def measure(peer: str | None, rounds: int, n: int) -> list[dict[str, Any]]:
    """A row for each chain and mode: microseconds per op, and ratios to the peer."""
    jit.set_threads(1)
    rows = []
    for name in chains(ops, None):
        for mode in ("forward", "backward", "create_graph"):
            mine = ours(name, mode)
            theirs = torchs(name, mode) if peer == "torch" else None
            for run in filter(None, (mine, theirs)):
                run(n)  # compiles, and warms the caches
            pairs = [(seconds(mine, n), seconds(theirs, n) if theirs else np.nan) for _ in range(rounds)]
            a, b = np.array(pairs).T
            scale = 1e6 / (n * OPS_PER_ROUND)
            case, unit = f"{name}, {mode}", "µs per op"
            rows.append({"case": case, "lane": "minigen", "unit": unit, "quartiles": report.spread(a * scale)})
            if theirs:
                row = {"case": case, "lane": peer, "unit": unit, "quartiles": report.spread(b * scale)}
                rows.append({**row, "ratio": report.spread(a / b)})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A line for each chain, mode and library."""
    cells = lambda row: [f"{row['quartiles'][1]:.2f}", report.ratio_text(row.get("ratio"))]
    report.table(["chain, mode", "lane", "µs per op", "ours / its time"], [[r["case"], r["lane"], *cells(r)] for r in rows])
