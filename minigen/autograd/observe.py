"""Looking inside: who made the first NaN, what is on the tape, what took the time. Start at `anomaly_mode` and `record`.

All of it hangs on the one choke point that every op passes (tape.Observer). While nobody looks, it costs nothing.

    with anomaly_mode():                 # an AnomalyError names the op, and the line, that made the first NaN or Inf
        loss = model.loss(x); loss.backward()

    with record() as tape:               # a table: op, shapes, dtype, bytes, milliseconds forward and backward
        loss = model.loss(x); loss.backward()
    print(tape)

Drawings of the graph behind a Tensor are in draw.py: `draw_graph` (DOT) and `draw_svg`.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from .draw import draw_graph, draw_svg
from .grad import _gradients, _walk
from .tape import OBSERVERS, Node, Observer, Op, describe

__all__ = ["AnomalyError", "anomaly_mode", "draw_graph", "draw_svg", "printed_tape", "record"]

ENGINE = os.path.dirname(os.path.abspath(__file__)) + os.sep  # minigen/autograd/
PACKAGE = os.path.dirname(os.path.dirname(ENGINE)) + os.sep  # minigen/
NOT_THE_USER = (PACKAGE, contextlib.__file__, "<frozen ")  # @no_grad() calls through contextlib, python -m through runpy


class _Watching(Observer):
    """An observer that watches inside a `with` block."""

    def __enter__(self) -> Any:
        OBSERVERS.append(self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        OBSERVERS.remove(self)


# ---- the first NaN


class AnomalyError(ArithmeticError):
    """An op, or its gradient rule, made a NaN or an Inf out of numbers that had none.

    op: its name.   phase: "forward" or "backward".   made: "NaN" or "Inf".
    where: the line that called the op, as "file:line in function: code"; below it that of minigen's layer or model, if the
        call came through one. For a backward pass the line that called the op in the forward pass; "" if it was recorded
        before anomaly_mode.
    """

    def __init__(self, op: str, phase: str, made: str, where: str, message: str):
        self.op, self.phase, self.made, self.where = op, phase, made, where
        super().__init__(message)


class anomaly_mode(_Watching):
    """`with anomaly_mode():` every op and every gradient rule is checked; the first to make a NaN or Inf is an error.

    Made means: there is a NaN in the result but none in what went in, or an Inf but neither Inf nor NaN in what went in.
    So a mask of -inf may pass through, and what follows from a first NaN is not blamed. It costs a pass over each array.

    >>> with anomaly_mode():
    ...     loss = ops.log(ops.relu(x)).mean()
    AnomalyError: log made 1 Inf of 4 numbers, forward
        in     float32(4,) finite
        line   train.py:12 in loss: loss = ops.log(ops.relu(x)).mean()
    """

    def __init__(self) -> None:
        self.passed = False  # whether an Inf or a NaN came in from outside: then one in a cotangent is no surprise

    def forward(self, op: Op, inputs: list, params: dict, result: Any, seconds: float) -> None:
        made = self._made(result[0] if op.aux else result, [inputs, list(params.values())])
        if not made:
            return
        node = _rule_that_runs()  # ops also run inside gradient rules: then the rule's op is to blame
        if node is None:
            where = _caller()
            message = f"{op.name} made {made[1]}, forward{_shown(inputs)}\n    line   {where}"
            raise AnomalyError(op.name, "forward", made[0], where, message)
        raise _backward_anomaly(node, made, f"\n    in its rule: {op.name}{_shown(inputs)}")

    def recorded(self, node: Node) -> None:
        node.origin = _caller()

    def backward(self, node: Node, g: Any, gradients: Sequence, seconds: float) -> None:
        if not self.passed and not _finite([g]):
            details = "\n    the cotangent it was given is the sum that overflowed, or grad_outputs was not finite"
            raise _backward_anomaly(node, ("Inf", "nothing wrong, but was given an Inf or NaN"), details)
        made = self._made(gradients, [g, node.saved, list(node.params.values())])
        if made:
            raise _backward_anomaly(node, made, _shown([g, *node.saved]))

    def _made(self, results: Any, inputs: list) -> tuple[str, str] | None:
        """("NaN" or "Inf", how many of how many numbers), or None if all is finite or was not before."""
        out = _floats([results])
        if _finite(out):
            return None
        before = _floats(inputs)
        nan, inf, size = (sum(int(f(a)) for a in out) for f in (_nans, _infs, np.size))
        if any(_nans(a) for a in before) or (not nan and any(_infs(a) for a in before)):
            self.passed = True
            return None
        return ("NaN", f"{nan} NaN of {size} numbers") if nan else ("Inf", f"{inf} Inf of {size} numbers")


def _backward_anomaly(node: Node, made: tuple[str, str], details: str) -> AnomalyError:
    where = getattr(node, "origin", None) or ""
    shown = where or "unknown: run the forward pass inside anomaly_mode too"
    message = f"the gradient rule of {node.op.name} made {made[1]}, backward{details}\n    line   {shown}"
    return AnomalyError(node.op.name, "backward", made[0], where, message)


def _finite(values: Iterable) -> bool:
    return all(bool(np.isfinite(a).all()) for a in _floats(values))


def _nans(a: Any) -> int:
    return np.isnan(a).sum()


def _infs(a: Any) -> int:
    return np.isinf(a).sum()


def _floats(values: Iterable) -> list:
    """All floating-point arrays and numbers among the values, also inside Tensors, lists and tuples."""
    found = []
    for value in values:
        value = value.data if hasattr(value, "node") else value
        if isinstance(value, list | tuple):
            found += _floats(value)
        elif isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind in "fc"):
            found.append(value)
    return found


def _shown(values: Iterable) -> str:
    """A line `in     float32(3,) finite; ...` for an error message."""
    parts = []
    for value in values:
        if isinstance(value, tuple | list):
            parts += [_described(v) for v in value if v is not None]
        elif value is not None:
            parts.append(_described(value))
    return "\n    in     " + "; ".join(parts) if parts else ""


def _described(value: Any) -> str:
    value = value.data if hasattr(value, "node") else value
    return describe(value) + ("" if not hasattr(value, "dtype") else " finite" if _finite([value]) else " not finite")


RULES, WALK = _gradients.__code__, _walk.__code__  # the one place that calls rules, and the walk that calls it


def _rule_that_runs() -> Node | None:
    """The node whose gradient rule is running at this moment, if any: the outermost, which the user knows."""
    rules = [frame for frame in _frames() if frame.f_code is RULES]
    return rules[-1].f_locals["node"] if rules else None


def _frames() -> Iterator[FrameType]:
    """The calls that are running, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _caller() -> str:
    """The line outside minigen that is running an op; where that calls a layer or a model of minigen, its line too."""
    inner = next((f for f in _frames() if not f.f_code.co_filename.startswith(ENGINE)), None)
    outer = next((f for f in _frames() if not f.f_code.co_filename.startswith(NOT_THE_USER)), None)
    return _line(inner) if outer in (inner, None) else f"{_line(outer)}\n    inside {_line(inner)}"


def _line(frame: FrameType | None) -> str:
    if frame is None:
        return "(no Python line)"
    code, number = frame.f_code, frame.f_lineno
    text = linecache.getline(code.co_filename, number).strip()
    return f"{code.co_filename}:{number} in {code.co_name}: {text}"


# ---- the printed tape


@dataclass
class Row:
    """One op that ran. Times in seconds; `backward` is None until its rule has run.

    inputs, output: descriptions such as "float32(128, 784)".   bytes: size of the result.
    kept: bytes that the node holds for its rule until the graph is dropped.
    during: "" for an op of the forward pass; "walk" or "rule" for one that ran in a backward pass, to sum a gradient
        over broadcast axes, or inside a gradient rule.   recorded: whether it made a node.
    """

    op: str
    inputs: list[str]
    output: str
    bytes: int
    forward: float
    during: str
    recorded: bool = False
    kept: int = 0
    backward: float | None = None


class record(_Watching):
    """`with record() as tape:` remember every op that runs. `print(tape)` is a table, `tape.rows` the data.

    `print(tape.by_op())` sums over calls of the same op, the slowest first: where the time goes. Times are wall-clock:
    of the kernel alone (forward), and of the rule with all that it calls (backward). Of the ops that run in a backward
    pass the tables show those that were recorded themselves (create_graph); all are in `tape.rows`.

    >>> with record() as tape:
    ...     (ops.tanh(x) * x).sum().backward()
    >>> print(tape)
    #  op        inputs                  result      bytes  kept  forward ms  backward ms
    1  tanh      float32(3,)             float32(3,)    12    12       0.004        0.006
    ...
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._row_of: dict[int, Row] = {}  # id of a node -> its row

    def forward(self, op: Op, inputs: list, params: dict, result: Any, seconds: float) -> None:
        main = result[0] if op.aux else result
        arrays = [a for a in (main if isinstance(main, tuple | list) else [main]) if hasattr(a, "nbytes")]
        running = {frame.f_code for frame in _frames()}
        row = Row(
            op=op.name,
            inputs=[_brief(v) for v in inputs if v is not None],
            output="  ".join(_brief(a) for a in arrays),
            bytes=sum(a.nbytes for a in arrays),
            forward=seconds,
            during="rule" if RULES in running else "walk" if WALK in running else "",
        )
        self.rows.append(row)

    def recorded(self, node: Node) -> None:
        row = self.rows[-1]  # its forward function has just run
        row.recorded = True
        row.kept = sum({id(a): a.nbytes for a in node.saved if hasattr(a, "nbytes")}.values())
        self._row_of[id(node)] = row

    def backward(self, node: Node, g: Any, gradients: Sequence, seconds: float) -> None:
        if id(node) in self._row_of:
            row = self._row_of[id(node)]
            row.backward = (row.backward or 0.0) + seconds

    def __str__(self) -> str:
        rows = self._shown()
        lines = [("#", "op", "inputs", "result", "bytes", "kept", "forward ms", "backward ms")]
        for i, r in enumerate(rows, 1):
            lines.append((str(i), r.op, "  ".join(r.inputs), r.output, *_totals([r])))
        summing = [r for r in self.rows if r.during == "walk" and not r.recorded]
        if summing:
            lines.append(("", "summing over broadcast axes", "", "", "", "", "", _ms(sum(r.forward for r in summing))))
        return _table([*lines, ("", "total", "", "", *_totals(rows))], left=(1, 2, 3))

    def by_op(self) -> str:
        """A table with one line per op: how often it ran, bytes, time; the slowest first."""
        groups: dict[str, list[Row]] = {}
        for row in self._shown():
            groups.setdefault(row.op, []).append(row)
        by_time = sorted(groups.items(), key=lambda item: -sum(r.forward + (r.backward or 0.0) for r in item[1]))
        lines = [("op", "calls", "bytes", "kept", "forward ms", "backward ms")]
        lines += [(name, str(len(rows)), *_totals(rows)) for name, rows in by_time]
        return _table(lines, left=(0,))

    def _shown(self) -> list[Row]:
        return [row for row in self.rows if row.recorded or not row.during]


class printed_tape(record):
    """`with printed_tape():` the same as `record()`, printed at the end of the block.

    >>> with printed_tape():
    ...     model.loss(x).backward()
    """

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        print(self)


def _brief(value: Any) -> str:
    return describe(value) if hasattr(value, "dtype") or isinstance(value, int | float) else type(value).__name__


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3f}"


def _totals(rows: list[Row]) -> tuple[str, str, str, str]:
    backward = [r.backward for r in rows if r.backward is not None]
    times = _ms(sum(r.forward for r in rows)), _ms(sum(backward) if backward else None)
    return f"{sum(r.bytes for r in rows):,}", f"{sum(r.kept for r in rows):,}", *times


def _table(lines: Sequence[tuple[str, ...]], left: tuple[int, ...]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))
