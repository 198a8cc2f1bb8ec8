"""One process that runs one workload with one library. `race.py` starts it, and gives it orders on standard input.

    python -m benchmarks.steps.worker LIBRARY VARIANT WORKLOAD THREADS

    -> {"first": seconds until the first step was done, "version": ...}
    go SECONDS    -> {"wall": seconds a step, "cpu": processor seconds a step, "steps": how many}
    losses N      -> {"losses": of N steps in float64 from the initial parameters, on noise that is the same for every library}
    end           -> {"peak": bytes of memory at the highest, "base": before the workload was there}
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from functools import partial
from typing import Any

import numpy as np

from .given import Given
from .workload import Draw
from .workloads import WORKLOADS

LIBRARIES = {"minigen": "ours", "torch": "torch_peer", "jax": "jax_peer"}


def main() -> None:
    library, variant, name, threads = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    module = importlib.import_module(f".{LIBRARIES[library]}", __package__)
    base = peak()
    start = time.perf_counter()
    lib, data = prepared(module, name, int(threads), variant)
    noise = lib.noise(1)
    step = partial(lib.step, data, noise)
    step()
    tell({"first": time.perf_counter() - start, "version": lib.version})
    for order in sys.stdin:
        word, *arguments = order.split()
        if word == "go":
            tell(timed(step, float(arguments[0])))
        elif word == "losses":
            lib, data = prepared(module, name, int(threads), variant, np.float64)
            given = Given(lib, 2)
            tell({"losses": [lib.step(data, given) for _ in range(int(arguments[0]))]})
        else:
            tell({"peak": peak(), "base": base})
            return


def prepared(module: Any, name: str, threads: int, variant: str, dtype: type = np.float32) -> tuple[Any, dict]:
    """The library with the workload's initial parameters, and its data."""
    workload, draw = WORKLOADS[name], Draw(0)
    workload.weights(draw)
    weights = {key: a.astype(dtype) for key, a in draw.made.items()}
    lib = module.Library(workload, weights, threads, variant)
    return lib, {key: lib.image(a.astype(dtype)) for key, a in workload.data(np.random.default_rng(0)).items()}


def timed(step: Any, seconds: float) -> dict[str, float]:
    """Steps for at least so many seconds."""
    wall, cpu, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        step()
        steps += 1
    return {"wall": (time.perf_counter() - wall) / steps, "cpu": (time.process_time() - cpu) / steps, "steps": steps}


def peak() -> int:
    """Bytes of memory that this process has held at once, so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
