"""Whole training steps against the peers, as a table and a figure. Start at `measure`; the workloads are in steps/."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np

from . import report
from .steps.race import Lane, race
from .steps.workloads import WORKLOADS


def measure(
    names: Sequence[str],
    racers: Sequence[Lane],
    threads: int,
    rounds: int,
    seconds: float,
    show: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Rows of each workload and lane, printed by `show` as they come."""
    rows: list[dict] = []
    for name in names:
        new = race(name, racers, threads, rounds, seconds)
        for row in new:
            if "failed" not in row:
                row["gflops"] = WORKLOADS[name].gflop / row["quartiles"][1] * 1e3
        (show or times)(new)
        rows += new
    return rows


def times(rows: list[dict]) -> None:
    """A line for each lane of one workload."""
    header = ["workload", "lane", "ms a step", "CPU ms", "ours / its time", "the same of CPU time", "nominal GFLOP/s"]
    header += ["first step s", "peak MB"]
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append([row["case"], row["lane"], f"failed: {row['failed']}", *[""] * 6])
            continue
        cells = [f"{row['quartiles'][1]:.1f}", f"{row['cpu_ms']:.1f}", report.ratio_text(row["ratio"])]
        cells += [report.ratio_text(row["cpu_ratio"]), f"{row['gflops']:.0f}"]
        lines.append([row["case"], row["lane"], *cells, f"{row['first_s']:.1f}", f"{row['peak_mb']:.0f}"])
    report.table(header, lines)
    print(flush=True)


def memory(rows: list[dict]) -> None:
    """The highest memory of each process, and how much of that came with the workload."""
    cells = lambda row: [f"{row['peak_mb']:.0f}", f"{row['peak_mb'] - row['base_mb']:.0f}"]
    lines = [[r["case"], r["lane"], *(["failed: " + r["failed"], ""] if "failed" in r else cells(r))] for r in rows]
    report.table(["workload", "lane", "peak MB", "above the imports, MB"], lines)
    print(flush=True)


def figure(rows: list[dict]) -> bytes:
    """Bars: the time of each lane relative to ours, for each workload. Below the line is faster than we are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    good = [row for row in rows if "failed" not in row]
    lanes = list(dict.fromkeys(row["lane"] for row in good))
    names = list(dict.fromkeys(row["case"] for row in good))
    mine = {row["case"]: row["quartiles"][1] for row in good if row["lane"] == "minigen"}
    fig, ax = plt.subplots(figsize=(10, 4.5), layout="constrained")
    width = 0.8 / max(1, len(lanes) - 1)
    others = [lane for lane in lanes if lane != "minigen"] or ["minigen"]
    for i, lane in enumerate(others):
        by_case = {row["case"]: row for row in good if row["lane"] == lane}
        values = [
            np.nan if name not in by_case
            else 1 / by_case[name]["ratio"][1] if by_case[name].get("ratio")
            else by_case[name]["quartiles"][1] / mine[name]
            for name in names
        ]  # fmt: skip
        places = np.arange(len(names)) + (i - (len(others) - 1) / 2) * width
        bars = ax.bar(places, np.subtract(values, 1), width, bottom=1, label=lane)  # from the line on, which is ours
        ax.bar_label(bars, [f"{value:.3g}" for value in values], fontsize=7)
    ax.set_yscale("log")  # a cached sampler is hundreds of times faster than one that caches nothing
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.axhline(1, color="#1f2430", linewidth=1)
    ax.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
    ax.set_ylabel(f"{good[0]['unit']}, relative to minigen" if good else "")
    ax.legend(frameon=False, fontsize=8)
    target = io.BytesIO()
    fig.savefig(target, format="png", dpi=120)
    plt.close(fig)
    return target.getvalue()
