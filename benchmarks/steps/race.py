"""Workers side by side: each works for a moment while the others sleep, A B C A B C, so that all see the same machine.

Start at `race`. Times are medians over the rounds. A ratio is the median of the ratios within a round, with its quartiles:
a neighbour who slows the machine down slows both halves of a ratio.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

# What the C library is told when a lane is "kept": to keep freed memory, instead of giving it back and asking for it again.
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(1 << 33), "MALLOC_MMAP_THRESHOLD_": str(1 << 33)}


@dataclass(frozen=True)
class Lane:
    """One way to run a workload."""

    library: str
    variant: str = "eager"
    kept: bool = False

    def __str__(self) -> str:
        name = self.library if self.library in ("minigen", "jax") else f"{self.library} {self.variant}"
        return f"{name} kept" if self.kept else name


OURS = Lane("minigen")
PEERS = {
    "torch": tuple(Lane("torch", variant, kept) for variant in ("eager", "tuned", "compile") for kept in (False, True)),
    "jax": (Lane("jax"), Lane("jax", kept=True)),
}


def lanes(peers: Sequence[str], every_variant: bool = True) -> list[Lane]:
    """Ours, and those of the peers. Raises SystemExit with the way out for a peer that is not installed."""
    for peer in peers:
        if importlib.util.find_spec(peer) is None:
            raise SystemExit(f"benchmarks: {peer} is not installed: pip install '.[peers]', or leave it out of --peers")
    return [OURS, *(lane for peer in peers for lane in PEERS[peer][: None if every_variant else 1])]


def race(workload: str, racers: Sequence[Lane], threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each lane: milliseconds a step, ratio of our time to its own, first step, memory.

    A lane whose process fails has a row that says why, with its last line of standard error.
    """
    times: dict[Lane, list[dict]] = {lane: [] for lane in racers}
    with _workers(workload, racers, threads) as workers:
        for _ in range(rounds):
            for lane, worker in workers.items():
                if worker.failed is None:
                    times[lane].append(worker.ask(f"go {seconds}"))
        rows = []
        for lane, worker in workers.items():
            last = worker.ask("end") if worker.failed is None else {}
            row: dict[str, Any] = {"case": workload, "lane": str(lane), "threads": threads}
            if worker.failed is not None:
                rows.append({**row, "failed": worker.failed})
                continue
            wall = np.array([t["wall"] for t in times[lane]])
            mine = np.array([t["wall"] for t in times[OURS]])
            cpu, my_cpu = (np.array([t["cpu"] for t in times[one]]) for one in (lane, OURS))
            judged = lane != OURS and len(mine) == len(wall)
            rows.append({
                **row,
                "unit": "ms a step",
                "quartiles": quartiles(1e3 * wall),
                "cpu_ms": float(np.median(cpu) * 1e3),
                "ratio": quartiles(mine / wall) if judged else None,
                "cpu_ratio": quartiles(my_cpu / cpu) if judged else None,
                "first_s": worker.begun["first"],
                "peak_mb": last["peak"] / 1e6,
                "base_mb": last["base"] / 1e6,
                "version": worker.begun["version"],
            })  # fmt: skip
    return rows


def losses(workload: str, racers: Sequence[Lane], steps: int) -> dict[str, list[float]]:
    """The losses of each lane's first steps, from equal parameters, on equal data and noise: equal work, if they are equal."""
    with _workers(workload, racers, threads=1) as workers:
        return {str(lane): worker.ask(f"losses {steps}")["losses"] for lane, worker in workers.items() if worker.failed is None}


def quartiles(values: Any) -> list[float]:
    return [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]


class _Worker:
    """A process that runs one lane.     failed: why it cannot, or None."""

    def __init__(self, workload: str, lane: Lane, threads: int):
        counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        pinned = {name: str(threads) for name in counts}
        if lane.library == "jax":
            pinned["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
            pinned["JAX_PLATFORMS"] = "cpu"
        command = [sys.executable, "-m", f"{__package__}.worker", lane.library, lane.variant, workload, str(threads)]
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by _workers; a pipe would block a compiler that says much
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            env={**os.environ, **pinned, **(KEPT if lane.kept else {})},
        )
        self.failed: str | None = None
        self.begun = self._answer()

    def ask(self, order: str) -> dict[str, Any]:
        if self.process.stdin is not None:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """Its next line that is an answer; others, such as a compiler's chatter, are passed over."""
        for line in self.process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        self.complaints.seek(0)
        lines = [line for line in self.complaints.read().splitlines() if line.strip()]
        self.failed = lines[-1] if lines else f"ended with status {self.process.wait()}"
        return {}


@contextmanager
def _workers(workload: str, racers: Sequence[Lane], threads: int) -> Iterator[dict[Lane, _Worker]]:
    """A process for each lane, started one after another, ended at last."""
    workers: dict[Lane, _Worker] = {}
    try:
        for lane in racers:
            workers[lane] = _Worker(workload, lane, threads)
        yield workers
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.communicate()
            worker.complaints.close()
