"""Where the time of a training step goes, op by op, and what recording its gradients costs. Start at `show`."""

from __future__ import annotations

import time
from typing import Any

from minigen import grad
from minigen.autograd.observe import record

from .report import ratio_text, spread
from .steps import ours, worker
from .steps.workload import Workload


def show(name: str, threads: int, rounds: int) -> None:
    """Print the third step of a workload by op, and the time of its loss's gradients recorded over that of plain ones."""
    lib, data = worker.prepared(ours, name, threads, "eager")
    noise = lib.noise(1)
    for _ in range(2):
        lib.step(data, noise)
    with record() as tape:
        lib.step(data, noise)
    print(f"{name}, {threads} thread(s)\n{tape.by_op()}")
    if type(lib.workload).loss is not Workload.loss and not lib.workload.samples:
        print(f"create_graph / plain, forward and backward: {ratio_text(recording_costs(lib, data, noise, rounds))}")


def recording_costs(lib: Any, data: dict, noise: Any, rounds: int) -> list[float]:
    """Quartiles of the ratios of neighbouring rounds."""
    trained = [t for name, t in lib.p.items() if name.startswith(lib.workload.trained)]

    def seconds(create_graph: bool) -> float:
        start = time.perf_counter()
        grad(lib.workload.loss(lib, lib.p, data, noise), trained, create_graph=create_graph)
        return time.perf_counter() - start

    seconds(True)
    return spread([seconds(True) / seconds(False) for _ in range(rounds)])
