"""The benchmarks: `python -m benchmarks COMMAND`. Start at `main`; each command is a function below it.

    kernels   every kernel, NumPy against Numba, against the roof of the machine, and against PyTorch
    engine    what the engine itself costs for a tiny op
    models    whole training steps of eleven workloads against the peers, each in a process of its own, in turns
    memory    the highest memory of those processes
    compile   from nothing to the first step: cold, and with compiled kernels on disk
    profile   where the time of one workload goes, op by op
    compare   what got slower between two reports

`--json FILE` writes what was measured with its environment, `--plot FILE` a figure. GPU: `python -m benchmarks.gpu`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import engine, kernels, report
from .steps import race
from .steps.workloads import WORKLOADS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the engine, and compare it with peers.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(run, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__.removesuffix("_command"), help=summary, description=summary)
        sub.set_defaults(run=run)
        sub.add_argument("--json", type=Path, metavar="FILE", help="write the rows and their environment")
        sub.add_argument("--threads", type=int, default=1, metavar="N", help="threads, the same for every library (1)")
        sub.add_argument("--smoke", action="store_true", help="as little as shows that everything works, in seconds")
        return sub

    def peers(sub: argparse.ArgumentParser, known: list[str]) -> None:
        sub.add_argument("--peers", nargs="+", choices=known, default=[], help="compare with these, if they are installed")

    of_kernels = command(kernels_command, "every kernel: NumPy, Numba, and PyTorch")
    peers(of_kernels, ["torch"])
    of_kernels.add_argument("--only", nargs="+", default=[], metavar="KERNEL", help="these alone")
    of_kernels.add_argument("--rounds", type=int, default=15, metavar="N", help="turns of each (15)")
    of_kernels.add_argument("--plot", type=Path, metavar="FILE", help="draw the roofline")

    of_engine = command(engine_command, "overhead per op on tiny arrays")
    peers(of_engine, ["torch"])
    of_engine.add_argument("--rounds", type=int, default=40, metavar="N", help="turns of each (40)")

    for run in (models_command, memory_command):
        sub = command(run, "whole training steps" if run is models_command else "peak memory of whole training steps")
        peers(sub, ["torch", "jax"])
        known = list(WORKLOADS)
        sub.add_argument("--only", nargs="+", default=[], choices=known, metavar="WORKLOAD", help=", ".join(known))
        sub.add_argument("--eager", action="store_true", help="only the first variant of each peer")
        sub.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios")
        if run is models_command:
            sub.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each process (7)")
            sub.add_argument("--seconds", type=float, default=0.3, metavar="S", help="length of a turn (0.3)")

    of_compile = command(compile_command, "time to the first training step, cold and warm")
    of_compile.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="these models alone")

    summary = "where the time of one workload goes, op by op"
    profiled = commands.add_parser("profile", help=summary, description=summary)
    profiled.set_defaults(run=profile_command)
    profiled.add_argument("--threads", type=int, default=1, metavar="N", help="threads (1)")
    profiled.add_argument("workload", choices=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    profiled.add_argument("--rounds", type=int, default=15, metavar="N", help="of create_graph against plain gradients (15)")

    comparison = commands.add_parser("compare", help="what got slower between two reports")
    comparison.add_argument("old", type=Path)
    comparison.add_argument("new", type=Path)
    comparison.set_defaults(run=lambda args: report.compare(args.old, args.new))

    args = parser.parse_args(arguments)
    return args.run(args) or 0


def kernels_command(args: argparse.Namespace) -> int:
    sizes = dict(list(kernels.SIZES.items())[:1]) if args.smoke else kernels.SIZES
    known = kernels.cases.every_kernel()
    for name in args.only:
        if name not in known:
            raise SystemExit(f"benchmarks kernels: there is no kernel {name!r}; there are {', '.join(known)}")
    race.lanes(args.peers)
    rows, roof = kernels.measure(args.only, args.peers, args.threads, 2 if args.smoke else args.rounds, sizes)
    print(f"copy {roof['copy'] / 1e9:.1f} GB/s, float32 product {roof['product'] / 1e9:.0f} GFLOP/s, {args.threads} thread(s)")
    kernels.show(rows, args.peers)
    if args.plot:
        args.plot.write_bytes(kernels.figure(rows, roof))
    report.write(args.json, "kernels", args.threads, rows, roof=roof)
    return 0


def engine_command(args: argparse.Namespace) -> int:
    race.lanes(args.peers)
    rows = engine.measure(args.peers[0] if args.peers else None, 2 if args.smoke else args.rounds, 10 if args.smoke else 100)
    engine.show(rows)
    report.write(args.json, "engine", 1, rows)
    return 0


def models_command(args: argparse.Namespace) -> int:
    from . import models, rates

    rounds, seconds = (1, 0.01) if args.smoke else (args.rounds, args.seconds)
    racers = race.lanes(args.peers, every_variant=not args.eager)
    rows = models.measure(args.only or list(WORKLOADS), racers, args.threads, rounds, seconds)
    roof = rates.measured() if not args.smoke else None
    if args.plot:
        args.plot.write_bytes(models.figure(rows))
    report.write(args.json, "models", args.threads, rows, roof=roof)
    return int(any("failed" in row for row in rows))


def memory_command(args: argparse.Namespace) -> int:
    from . import models

    racers = race.lanes(args.peers, every_variant=not args.eager)
    names, seconds = args.only or list(WORKLOADS), 0.01 if args.smoke else 1.0
    rows = models.measure(names, racers, args.threads, 1, seconds, show=models.memory)
    for row in rows:
        if "failed" not in row:
            row |= {"unit": "MB at most", "quartiles": [row["peak_mb"]] * 3, "ratio": None}
    if args.plot:
        args.plot.write_bytes(models.figure(rows))
    report.write(args.json, "memory", args.threads, rows)
    return int(any("failed" in row for row in rows))


def compile_command(args: argparse.Namespace) -> int:
    from . import start

    rows = start.measure(args.only, args.threads, args.smoke)
    report.write(args.json, "compile", args.threads, rows)
    return 0


def profile_command(args: argparse.Namespace) -> int:
    from . import profile

    profile.show(args.workload, args.threads, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
