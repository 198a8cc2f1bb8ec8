"""Do the tests notice a wrong kernel? Small mistakes are planted in the kernels, and each must break a kernel's card.

    python tests/kernels/mutants.py                    a sample of 400 mutants: the score, and every survivor
    python tests/kernels/mutants.py --seed 1           another sample
    python tests/kernels/mutants.py --all softmax      all mutants of one family

A mutant changes one expression of one function of reference.py, cpu.py or a file that they share: a sign, a factor, a term
left out, an integer off by one, a comparison, a constant. It is killed if Numba's code and the reference no longer agree
within the card's budget, on the cases of the card or on those with an infinity, a NaN or a large number planted in them.
Compiled code cannot be changed while it runs, so Numba's code runs as ordinary Python, on the small cases. Start at
`mutations`, then `Harness.survives`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import os
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"  # read when numba is imported, below

import numba
import numpy as np

numba.config.DISABLE_JIT = False  # these stay compiled: their innermost loops are LLVM code, which Python cannot run
importlib.import_module("minigen.autograd.kernels.conv.cpu")
importlib.import_module("minigen.autograd.kernels.linalg.multiply")
numba.config.DISABLE_JIT = True
test_cards = importlib.import_module("test_cards")  # loads all other kernels
numba.config.DISABLE_JIT = False  # for their first calls, which compile
rows = importlib.import_module("minigen.autograd.kernels.softmax.rows")
polynomial = importlib.import_module("minigen.autograd.kernels.elementwise.polynomial")
backend = importlib.import_module("minigen.autograd.backend")

KERNEL_FOLDER = Path(backend.__file__).parent / "kernels"
SMALL, LARGE = 3000, 60_000  # numbers in the arguments: ordinary Python is slow, so large cases are for what survives the small
PATIENCE = 20  # seconds after which a mutant counts as caught in a loop without end

COMPILED = (
    "conv/cpu.py", "conv/direct.py", "conv/few.py", "tile.py", "conv/weight.py",
    "linalg/multiply.py", "linalg/product.py", "linalg/strip.py", "linalg/transpose.py",
)
FILES = [
    path
    for path in sorted(KERNEL_FOLDER.glob("*/*.py"))
    if path.name not in ("__init__.py", "cuda.py", "geometry.py", "blas.py", "formats.py", "loop.py")
    and str(path.relative_to(KERNEL_FOLDER)) not in COMPILED
]


# Why a survivor of a sample, with seeds 0 and 7, is none: (file, part of the line, mutation) -> the reason. Those that another
# test kills were tried by hand with that test.
TIE = "at the very number where the branches meet they give the same"
LONGER = "a buffer or a slice is longer than what is used of it"
TUNING = "chooses between versions that give the same, or cuts the work otherwise"
CHUNKS = "only calls of several chunks notice, which are too slow as ordinary Python: the compiled test_accuracy has one"
BITS = "the difference is in high bits, which the shift into the exponent drops"
RARE = "needs 32 bits of 0: one draw in 2^32"
INFINITE = "only rows of infinities notice: tests/ops/test_normalisation.py and test_reduction.py have them"
SQUARE = "a is square: its last axis but one is as long"
EXPLAINED = {
    ("elementwise/cpu.py", "if x[i] < -far", "Lt -> LtE"): TIE,
    ("elementwise/cpu.py", "v = far if v > far", "Gt -> GtE"): TIE,
    ("elementwise/cpu.py", "zero = g.dtype.type(0)", "off by one"): "only a cotangent of 0: tests/ops/test_elementwise.py",
    ("elementwise/polynomial.py", "_split(x * DENORMAL_SCALE", "Mult -> Div"): "only subnormals: tests/ops/test_elementwise.py",
    ("elementwise/polynomial.py", "if n < i32(30)", "Lt -> LtE"): TIE,
    ("elementwise/polynomial.py", "else mantissa - ONE", "drop a term"): "only from 2^30 on: tests/ops/test_elementwise.py",
    ("elementwise/polynomial.py", "value if x < INF else x + x", "drop a term"): "an infinity and NaN are their own double",
    ("elementwise/polynomial.py", "if abs(x) < f32(0.55)", "another"): TUNING,
    ("elementwise/polynomial.py", "(e if x < 0.0", "Lt -> LtE"): TIE,
    ("elementwise/polynomial.py", "- ROUNDER_BITS", "Sub -> Add"): BITS,
    ("elementwise/reference.py", "special.erf(x * math.sqrt(0.5))", ""): "complex numbers only: test_properties.py",
    ("elementwise/reference.py", "x.real > FAR", "Gt -> GtE"): TIE,
    ("elementwise/reference.py", "positive = z.real > 0", "Gt -> GtE"): TIE,
    ("fused/cpu.py", "(shape[0] + rows - 1)", ""): "a chunk too many is an empty one",
    ("fused/cpu.py", "activation_vjp(activation, slope, g[j", "drop a factor"): CHUNKS,
    ("fused/cpu.py", "a = x[2 * r * channels", "off by one"): LONGER,
    ("fused/cpu.py", "at = slice(r * n", "off by one"): LONGER,
    ("fused/cpu.py", "z[i] += bias[i]", "Add -> Sub"): "only in place, as linear does it: tests/nn/test_layers.py",
    ("fused/cpu.py", "left, right = slice", "off by one"): LONGER,
    ("fused/cpu.py", "chunk, d = kept[", "off by one"): LONGER,
    ("fused/reference.py", "stretch = np.where(moved == 0, 0", "off by one"): "tests/ops/test_fused.py has a moved of 0",
    ("fused/reference.py", "# not 0 · -inf", ""): "a slope of 0 is what leaky_relu of tests/ops/test_fused.py has",
    ("indexing/reference.py", "wrong = rows[", ""): "only which of several wrong indices the message names",
    ("linalg/cpu.py", "n = a.shape[-1]", "off by one"): SQUARE,
    ("linalg/cpu.py", "if n <= BLOCK", ""): TUNING,
    ("linalg/cpu.py", "half = n // 2", "off by one"): TUNING,
    ("linalg/reference.py", "n = a.shape[-1]", "off by one"): SQUARE,
    ("loss/reference.py", "np.where(total == 0, 1, total)", "off by one"): "only rows of -Inf, whose loss is Inf with either",
    ("loss/cpu.py", "if x > 0 else", "Gt -> GtE"): TIE,
    ("normalisation/cpu.py", "chunk, result = x[", ""): CHUNKS,
    ("normalisation/cpu.py", "parts = np.empty((2, chunks", "off by one"): LONGER,
    ("normalisation/cpu.py", "CHUNK // channels", "off by one"): TUNING,
    ("optim/reference.py", "return lr / (1 - beta1**step)", ""): "both versions share it: tests/test_optim.py tells what it is",
    ("philox/cpu.py", "np.empty(", ""): LONGER,
    ("philox/cpu.py", "per_block = 16 // ", "off by one"): "17 // 4 is 16 // 4, and 17 // 8 is 16 // 8",
    ("philox/cpu.py", "if span == 0", "off by one"): "only all 2^64 integers notice: test_philox.py draws from them",
    ("philox/cpu.py", "n >= PARALLEL", "GtE -> Gt"): TUNING,
    ("philox/cpu.py", "radius = -radius if v < 0", ""): RARE,
    ("philox/cpu.py", "if uints[j] < threshold", "Lt -> LtE"): RARE,
    ("philox/cpu.py", "if value > below", "Gt -> GtE"): TIE,
    ("philox/reference.py", "v.view(integer) < 0", "Lt -> LtE"): RARE,
    ("philox/reference.py", "z.reshape(-1)[:n]", "off by one"): "NumPy takes any negative number for -1",
    ("philox/reference.py", "if span == 1 << 64", "off by one"): "what follows gives the same, more slowly",
    ("philox/reference.py", "n + n % 2", "off by one"): "only an odd number of draws notices: test_philox.py has one",
    ("philox/reference.py", "+ np.int64(low)", "Add -> Sub"): "low is -2^63 there, which is its own negative",
    ("reduction/cpu.py", "fours = stop", "drop a term"): LONGER,
    ("reduction/cpu.py", "highest[r] = shift(", "off by one"): LONGER,
    ("reduction/cpu.py", "zero, one, infinity", "off by one"): INFINITE,
    ("reduction/cpu.py", "share[r] /= infinite", "Div -> Mult"): INFINITE,
    ("reduction/cpu.py", "while fold * n < WIDTH", "Lt -> LtE"): TUNING,
    ("reduction/cpu.py", "rows > 0:", "Gt -> GtE"): "no rows give 0, folded or not",
    ("reduction/cpu.py", "rows > 0:", "off by one"): TUNING,
    ("softmax/reference.py", "np.where(total == 0, 1, total)", "off by one"): INFINITE,
    ("softmax/rows.py", "if x[i + ", ""): "any number near the maximum serves as the one to subtract",
}


# ---- what can go wrong


def mutations(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """(what, change) for every way to break an expression or a loop; `change()` does it, to the tree that holds the node."""
    swap = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
    nearby = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in swap:
        other = swap[type(node.op)]
        yield f"{type(node.op).__name__} -> {other.__name__}", lambda: setattr(node, "op", other())
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        what = "factor" if isinstance(node.op, ast.Mult) else "term"
        yield f"drop a {what}", lambda: _become(node, node.left)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "drop a sign", lambda: _become(node, node.operand)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in nearby:
        other = nearby[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {other.__name__}", lambda: node.ops.__setitem__(0, other())
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", lambda: setattr(node, "value", node.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is float:
        yield "another constant", lambda: setattr(node, "value", node.value * 1.01 + 1e-3)


def _become(node: Any, other: ast.AST) -> None:
    """Put `other` in the place of a node: the one has to be taken for the other wherever it stands."""
    node.__class__ = other.__class__
    node.__dict__ = copy.deepcopy(other).__dict__


def bodies(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node in the body of a function, docstrings and decorators left out."""
    for function in [n for n in tree.body if isinstance(n, ast.FunctionDef)]:
        for statement in function.body:
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                yield from ast.walk(statement)


@dataclass
class Mutant:
    path: Path
    index: int  # of the mutation, in the order of `sites`
    what: str
    line: int

    def __str__(self) -> str:
        text = self.path.read_text(encoding="utf-8").splitlines()[self.line - 1].strip()
        return f"{self.path.relative_to(KERNEL_FOLDER)}:{self.line}: {self.what}: {text}"

    @property
    def reason(self) -> str:
        """Why it may survive; empty for one that should not."""
        text = str(self)
        return next((why for (path, *parts), why in EXPLAINED.items() if path in text and all(p in text for p in parts)), "")

    def code(self) -> types.CodeType:
        """The file, compiled with the mutation in it."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        changes = [change for node in bodies(tree) for _, change in mutations(node)]
        changes[self.index]()
        return compile(ast.fix_missing_locations(tree), str(self.path), "exec")


def mutants_of(path: Path) -> list[Mutant]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [(what, node.lineno) for node in bodies(tree) for what, _ in mutations(node)]
    return [Mutant(path, i, what, line) for i, (what, line) in enumerate(found)]


# ---- the cases


@dataclass
class Case:
    """One call that Numba's code and the reference answer alike, as long as neither is broken."""

    kernel: Any
    args: tuple
    kwargs: dict
    dtype: type

    def agrees(self) -> bool:
        """test_cards.test_accuracy, for this case."""
        card = self.kernel.card
        wide = test_cards.in_float64(self.args), test_cards.in_float64(self.kwargs)
        actual = test_cards.results(self.kernel, "numba", self.args, self.kwargs)
        exact = test_cards.results(self.kernel, "numpy", *(wide if card.ulp else (self.args, self.kwargs)))
        scale = exact if card.scale is None else test_cards.as_list(card.scale(*wide[0], **wide[1]))
        for a, e, s in zip(actual, exact, scale, strict=True):
            if a.shape != e.shape:
                return False
            if e.dtype.kind != "f":
                if not np.array_equal(a, e):
                    return False
                continue
            finite = np.isfinite(e)
            if not np.array_equal(a[~finite].astype(float), e[~finite], equal_nan=True):
                return False
            budget = card.ulp * np.finfo(self.dtype).eps * np.broadcast_to(np.abs(s), e.shape)[finite]
            if not (np.abs(a.astype(np.float64) - e)[finite] <= budget).all():
                return False
        return True


def planted(args: tuple, value: float) -> Iterator[tuple]:
    """The arguments with `value` in the middle of one array of floats, for each array of a few numbers."""
    for i, a in enumerate(args):
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.size > 2:
            changed = a.copy()
            changed.flat[a.size // 2] = value
            yield (*args[:i], changed, *args[i + 1 :])


def cases(least: int, most: int) -> Iterator[Case]:
    """The cases of all cards with at least and at most so many numbers, and some with a special number in them."""
    for kernel in backend.KERNELS.values():
        for dtype in (np.float32, np.float64):
            small = [call for call in test_cards.cases(kernel, dtype) if least <= numbers(call[0]) <= most]
            for args, kwargs in small:
                yield Case(kernel, args, kwargs, dtype)
            for value in (np.inf, -np.inf, np.nan, 200.0, -200.0, 0.0, -1.0) if most == SMALL else ():
                for args, kwargs in sorted(small, key=lambda call: numbers(call[0]))[-3:]:
                    yield from (Case(kernel, changed, kwargs, dtype) for changed in planted(args, value))


def numbers(args: tuple) -> int:
    return sum(a.size for a in args if isinstance(a, np.ndarray))


# ---- running them


class Harness:
    def __init__(self) -> None:
        self._dispatch_by_hand()
        self.functions = {
            (f.__code__.co_filename, f.__code__.co_qualname, f.__code__.co_firstlineno): f
            for f in gc.get_objects()
            if isinstance(f, types.FunctionType) and f.__code__.co_filename.startswith(str(KERNEL_FOLDER))
        }
        self.users: dict[types.FunctionType, list[Case]] = {}
        self.left_out = 0
        for case in [*cases(0, SMALL), *cases(SMALL + 1, LARGE)]:  # in this order: `all` stops at the first that notices
            self._add(case)

    def _dispatch_by_hand(self) -> None:
        """exp and the like choose by the type of their argument, which in compiled code Numba does. LLVM code sums rows."""
        rows._sums = lambda x, y, centre, n: x.sum(dtype=np.float64)
        rows._products = lambda x, y, centre, n: (x.astype(np.float64) * y).sum()
        rows._squares = lambda x, y, centre, n: ((x.astype(np.float64) - centre) ** 2).sum()
        doubles = {"exp": "np.exp", "expm1": "np.expm1", "log": "np.log", "log1p": "np.log1p", "tanh": "np.tanh"}
        doubles |= {"decay": "decay64", "sigmoid": "sigmoid64", "erf": "math.erf", "normal_tail": "normal_tail64"}
        for name, double in doubles.items():
            single = next(s for s in (f"{name}32", f"{name}_32") if hasattr(polynomial, s))
            source = f"def {name}(x):\n    return {single}(x) if isinstance(x, np.float32) else {double}(x)"
            scope: dict[str, Any] = {}
            exec(source, scope)
            getattr(polynomial, name).__code__ = scope[name].__code__

    def _add(self, case: Case) -> None:
        """Keep a case that holds, for each function that it calls."""
        called = set()
        sys.setprofile(lambda frame, event, _: called.add(frame.f_code) if event == "call" else None)
        try:
            good = case.agrees()
        except ZeroDivisionError:  # which compiled code lets pass
            good = False
        finally:
            sys.setprofile(None)
        self.left_out += not good
        if good:
            for f in self.functions.values():
                if f.__code__ in called:
                    self.users.setdefault(f, []).append(case)

    def survives(self, mutant: Mutant) -> bool | None:
        """Whether no case notices the mutant; None if no case runs the function at all."""
        changed = [
            (f, code)
            for code in _all_code(mutant.code())
            if (f := self.functions.get((code.co_filename, code.co_qualname, code.co_firstlineno))) is not None
            and _differ(f.__code__, code)
        ]
        users = list(dict.fromkeys(id(c) for f, _ in changed for c in self.users.get(f, [])))
        by_id = {id(c): c for f, _ in changed for c in self.users.get(f, [])}
        if not users:
            return None
        originals = [(f, f.__code__) for f, _ in changed]
        try:
            for f, code in changed:
                f.__code__ = code
            return all(_holds(by_id[i]) for i in users)
        finally:
            for f, code in originals:
                f.__code__ = code


def _holds(case: Case) -> bool:
    def too_long(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        return case.agrees()
    except Exception:  # whatever the mutant raises, it is noticed
        return False
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _all_code(constant)


def _differ(a: types.CodeType, b: types.CodeType) -> bool:
    return a.co_code != b.co_code or a.co_consts != b.co_consts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="folders below minigen/autograd/kernels; all of them by default")
    parser.add_argument("--all", action="store_true", help="every mutant instead of a sample")
    parser.add_argument("--sample", type=int, default=400, help="how many (400)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    options = parser.parse_args()
    everything = [m for path in FILES if path.parent.name in (options.families or path.parent.name) for m in mutants_of(path)]
    chosen = everything if options.all else random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        harness = Harness()
        outcomes = [(m, harness.survives(m)) for m in chosen]
    reached = [(m, alive) for m, alive in outcomes if alive is not None]
    survivors = [m for m, alive in reached if alive]
    for m in sorted(survivors, key=str):
        print(f"survived: {m}\n          {m.reason or 'UNEXPLAINED'}")
    killed = len(reached) - len(survivors)
    counted = killed + sum(not m.reason for m in survivors)
    print(f"{len(everything)} mutants, {len(chosen)} tried, {len(chosen) - len(reached)} in functions that no small case calls")
    print(f"{harness.left_out} cases were left out: ordinary Python does not reproduce them")
    print(f"{killed} of {len(reached)} killed by the cards alone, {len(reached) - counted} survivors explained")
    print(f"mutation score {100 * killed / max(counted, 1):.1f} %: {killed} of {counted} that change something a card can see")
    return 0 if killed >= 0.95 * counted else 1


if __name__ == "__main__":
    raise SystemExit(main())
