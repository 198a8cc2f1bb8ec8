"""From nothing to the first training step: what a user waits for. Start at `measure`.

Cold: in a folder of compiled kernels that is empty, as after installation. Warm: the same command again. Both are processes of
their own, from the start of Python to the end of one step and its checkpoint; `import` is the time that `import minigen` takes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from minigen.models import MODELS

from . import report

IMPORT = "import time; t = time.perf_counter(); import minigen; print(time.perf_counter() - t)"


def measure(names: Sequence[str], threads: int, smoke: bool) -> list[dict]:
    """Rows: seconds on the wall, and of processors, for the import and each model."""
    for name in names:
        if name not in MODELS:
            raise SystemExit(f"benchmarks compile: there is no model {name!r}; there are {', '.join(MODELS)}")
    chosen = list(names) or (["vae-mlp"] if smoke else list(MODELS))
    took = [float(subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True).stdout) for _ in range(5)]
    rows = [{"case": "import minigen", "lane": "warm", "unit": "s", "quartiles": report.spread(took)}]
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for lane in ("cold", "warm"):
                rows.append(first_step(name, lane, Path(folder), threads))
    report.table(
        ["what", "kernels", "seconds", "CPU seconds"],
        [[r["case"], r["lane"], f"{r['quartiles'][1]:.2f}", f"{r.get('cpu_s', 0):.2f}" if "cpu_s" in r else ""] for r in rows],
    )
    return rows


def first_step(model: str, lane: str, folder: Path, threads: int) -> dict:
    """One step of a model on the data that it takes, with the kernels in `folder`."""
    shape_of = "digits"
    for data in ("digits", "moons"):
        command = [sys.executable, "-m", "minigen.cli", "train", model, "--data", data, "--steps", "1", "--quiet"]
        command += ["--threads", str(threads), "--out", str(folder / f"run-{lane}-{data}")]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels")}, capture_output=True, text=True, check=False
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        shape_of = data
        if done.returncode == 0:
            break
    if done.returncode:
        raise SystemExit(f"benchmarks compile: {' '.join(command)} failed: {done.stderr.strip()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"case": f"{model} on {shape_of}", "lane": lane, "unit": "s", "quartiles": [seconds] * 3, "cpu_s": cpu}
