"""What every benchmark writes: rows with their environment, and two of them compared. Start at `Report` and `compare`.

A row says which `case` was run in which `lane` (ours, or a peer's variant), its `quartiles` (lower, median, upper) in `unit`,
and where the peer ran beside it, the quartiles of the `ratio` of our time to the peer's.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

NOISE = 0.05  # medians that differ by less are taken to be equal, however narrow their quartiles


def environment(threads: int) -> dict[str, Any]:
    """With what was measured."""
    from threadpoolctl import threadpool_info

    import minigen

    found = {}
    for package in ("numpy", "numba", "scipy", "torch", "jax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    blas = next((i for i in threadpool_info() if i["user_api"] == "blas"), {})
    return {
        "minigen": minigen.__version__,
        "python": platform.python_version(),
        "packages": found,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "blas": f"{blas.get('internal_api')} {blas.get('version')} {blas.get('architecture')}",
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write(path: Path | None, command: str, threads: int, rows: list[dict], **more: Any) -> None:
    """The rows and their environment, as JSON."""
    if path is None:
        return
    found = {"command": command, "environment": environment(threads), **more, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        left, *right = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join([left, *right]).rstrip())


def ratio_text(ratio: list[float] | None) -> str:
    return "" if ratio is None else f"{ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})"


# ---- two reports


def compare(old: Path, new: Path) -> int:
    """Print what got slower beyond the noise. Returns 1 if anything did.

    A case is compared by its ratio to a peer where both reports have one, for that does not depend on the machine's mood, else
    by its time. It got slower if the new lower quartile is above the old upper one, and the medians differ by more than 5 %.
    Raises SystemExit for files that are no reports, or are of other commands or numbers of threads.
    """
    before, after = _read(old), _read(new)
    for what in ("command", "threads"):
        a, b = (r[what] if what == "command" else r["environment"].get(what) for r in (before, after))
        if a != b:
            raise SystemExit(f"benchmarks compare: {old} is of {what} {a}, {new} of {b}: they cannot be compared")
    olds = _by_key(before)
    slower, seen = [], 0
    for key, row in _by_key(after).items():
        if key not in olds:
            continue
        for metric in ("ratio", "quartiles"):
            a, b = olds[key].get(metric), row.get(metric)
            if a and b:
                seen += 1
                if b[0] > a[2] and b[1] > (1 + NOISE) * a[1]:
                    unit = "of the peer's time" if metric == "ratio" else row["unit"]
                    slower.append(f"{' '.join(map(str, key))}: {a[1]:.3g} -> {b[1]:.3g} {unit} ({b[1] / a[1] - 1:+.0%})")
                break
    if before["environment"].get("processor") != after["environment"].get("processor"):
        print("the processors differ: times say little, ratios more", file=sys.stderr)
    missing = [" ".join(map(str, key)) for key in olds if key not in _by_key(after)]
    if missing:
        print(f"no longer there: {', '.join(missing)}")
    print("\n".join(["slower beyond the noise:", *slower]) if slower else f"nothing got slower, of {seen} cases")
    return 1 if slower else 0


def _by_key(report: dict) -> dict[tuple, dict]:
    return {(row["case"], row["lane"]): row for row in report["rows"] if "quartiles" in row}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["rows"], list) or not isinstance(found["environment"], dict) or "command" not in found:
            raise KeyError("rows")
    except FileNotFoundError:
        raise SystemExit(f"benchmarks compare: there is no file {path}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SystemExit(f"benchmarks compare: {path} is no report of benchmarks ({error!r}): --json writes one") from error
    return found


def spread(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]
