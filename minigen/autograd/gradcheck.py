"""Gradient checks: is a gradient, and the gradient of that gradient, what the function says? Start at `gradcheck`.

A gradient is compared with a numerical derivative along a direction v, contracted with a random cotangent g:

    <vjp(g), v>  =  <g, J v>          in float64, with J v by one of two methods:

* the complex step, J v = Im f(x + i h v) / h with h = 1e-100 (Squire & Trapp 1998): nothing is subtracted, so it is
  exact to rounding. It needs a function that is analytic, and computed so on complex arrays: elementary functions,
  linear algebra, convolution; not max, abs or a comparison. It runs on the "numpy" backend.
* central differences with steps h, h/2, h/4, extrapolated to h = 0 (Richardson 1911): good to about 1e-10.

The second order is the same check of another function: (x, g) -> vjp(g) at x, whose own gradient comes from
differentiating a recorded backward pass. So it covers the second derivatives with respect to the inputs and to the
cotangent, and so on to any order. The symmetry of the Hessian is a third, independent test.

Errors are measured against the size of what is summed, never against an absolute tolerance: a wrong sign of a small
gradient is as wrong as that of a large one. A relative error of 1e-5 is found; common checkers let 1e-3 pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import set_backend
from .grad import grad
from .tape import Leaf, wrap
from .tensor import Tensor

Function = Callable[[list[Tensor]], list[Tensor]]

COMPLEX_STEP = 1e-100  # its square vanishes beside 1, and its product with a gradient does not underflow
DIFFERENCE_STEP = 2.0**-8  # directions have entries of at most 1, and cards keep 1e-2 away from kinks
RTOL = {True: 1e-10, False: 1e-8}  # analytic or not
EPS = float(np.finfo(np.float64).eps)


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    *,
    order: int = 2,
    analytic: bool = False,
    seed: int = 0,
    rtol: float | None = None,
) -> Report:
    """Compare the gradients of `function`, up to `order`, with numerical derivatives; GradcheckError if they differ.

    function: takes Tensors, one per input, and returns one or several; deterministic, and smooth near the inputs.
    inputs: an array or Tensor, or a sequence of them. Those of float64 are differentiated, integers and booleans are
        passed on as they are, float32 is a TypeError: its rounding would hide what is looked for.
    order: 1 checks the gradient; 2 also the gradient of the gradient, and the symmetry of the Hessian; 3 goes on.
    analytic: use the complex step (see the top of this file); `function` then receives complex Tensors too.
    rtol: the largest relative error that passes; None takes 1e-10 where analytic, 1e-8 elsewhere.

    Each input is checked along two directions: a random one, in which nothing is forgotten, and one with the signs of
    the claimed gradient, in which nothing cancels. A NaN or an Inf anywhere is an error.

    >>> gradcheck(lambda x: minigen.ops.tanh(x) * x, np.array([0.3, -1.2]), analytic=True)
    Report(order 1: 1.9e-16, order 2: 2.8e-16, symmetry: 0.0e+00; 6 entries)
    """
    given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    raw = [a.data if isinstance(a, Tensor) else np.asarray(a) for a in given]
    for i, a in enumerate(raw):
        if a.dtype.kind == "f" and a.dtype != np.float64:
            raise TypeError(f"gradcheck: input {i} is {a.dtype}; use float64, whose rounding does not hide errors")
    active = [i for i, a in enumerate(raw) if a.dtype == np.float64]
    if not active:
        raise TypeError(f"gradcheck: no input of float64 to differentiate by, only {[str(a.dtype) for a in raw]}")

    def checked(tensors: list[Tensor]) -> list[Tensor]:
        arguments: list[Any] = list(raw)
        for i, t in zip(active, tensors, strict=True):
            arguments[i] = t
        return _outputs(function(*arguments))

    current: Function = checked
    points = [raw[i].copy() for i in active]
    names = [f"input {i}" for i in active]
    run = _Run(np.random.default_rng(seed), analytic, RTOL[analytic] if rtol is None else rtol)
    for k in range(1, order + 1):
        cotangents = run.compare(k, current, points, names)
        names = names + [f"the cotangent of output {j} of order {k - 1}" for j in range(len(cotangents))]
        current, points = _gradient_of(current, len(points)), points + cotangents
    return Report(run.errors, run.entries, tuple(run.live[: len(active)]))


@dataclass(frozen=True, repr=False)
class Report:
    """What a check that passed has seen.

    errors: the worst relative error of each part: "order 1", "order 2", "symmetry".
    entries: gradient entries that were compared; 0 if all inputs or all outputs were empty, which proves nothing.
    live: for each differentiated input, whether any entry of its gradient was not zero.
    """

    errors: dict[str, float]
    entries: int
    live: tuple[bool, ...]

    def __repr__(self) -> str:
        parts = ", ".join(f"{part}: {error:.1e}" for part, error in self.errors.items())
        return f"Report({parts}; {self.entries} entries)"


class GradcheckError(AssertionError):
    """A gradient is wrong. The message says which order and input, the relative error, and what should be equal.

    order, input: where.
    error: relative.   claimed, numerical: the two directional derivatives. NaN where there are no such numbers.
    """

    def __init__(self, order: int, name: str, what: str, numbers: Sequence[float] = (np.nan, np.nan, np.nan)):
        self.order, self.input = order, name
        self.error, self.claimed, self.numerical = numbers
        super().__init__(f"order {order}, {name}: {what}")


class _Run:
    """One run of the checker: the random numbers, the tolerance, and what was found so far."""

    def __init__(self, rng: np.random.Generator, analytic: bool, rtol: float):
        self.rng, self.analytic, self.rtol = rng, analytic, rtol
        self.errors: dict[str, float] = {}
        self.entries = 0
        self.live: list[bool] = []

    def compare(
        self, order: int, function: Function, points: list[np.ndarray], names: list[str]
    ) -> list[np.ndarray]:
        """Check the gradient of `function` at `points`, input by input. Returns the cotangents that it used."""
        leaves = [_leaf(p) for p in points]
        outputs = function(leaves)
        values = [o.data for o in outputs]
        _same_in_both_worlds(order, values, _evaluate(function, points))
        cotangents = [self._random(v.shape, 1.5) for v in values]
        gradients = _vjp(outputs, leaves, cotangents)
        for i, (claimed, p) in enumerate(zip(gradients, points, strict=True)):
            if claimed.shape != p.shape or claimed.dtype != p.dtype:
                what = f"the gradient is {claimed.dtype}{claimed.shape}, the input {p.dtype}{p.shape}"
                raise GradcheckError(order, names[i], what)
            _finite(claimed, "the gradient", order, names[i])
            self.entries += claimed.size if any(v.size for v in values) else 0
            self.live.append(bool(claimed.any()))
            signs = np.where(claimed < 0, -1.0, 1.0)
            for v in (self._random(p.shape), np.abs(self._random(p.shape)) * signs):
                jv = self._derivative(function, points, i, v)
                for j in jv:
                    _finite(j, "the numerical derivative", order, names[i])
                error, *pair = self._relative_error(claimed, v, cotangents, jv, values)
                if not error <= self.rtol:
                    what = (
                        f"relative error {error:.1e} (allowed {self.rtol:.0e}): along a direction the gradient is "
                        f"{pair[0]:.12g}, the numerical derivative {pair[1]:.12g}"
                    )
                    worst = self._worst_entry(function, points, i, claimed, cotangents)
                    raise GradcheckError(order, names[i], what + worst, (error, *pair))
                self._note(f"order {order}", error)
        if order > 1:
            self._symmetry(order, outputs, leaves, gradients, cotangents)
        return cotangents

    def _symmetry(self, order: int, gradients: list[Tensor], leaves: list[Tensor], hw: list, w: list) -> None:
        """<v, H w> = <w, H v>, where `gradients` are those of a scalar by the first leaves, and H w is known."""
        n = len(gradients)
        v = [self._random(a.shape) for a in w]
        hv = _vjp(gradients, leaves[:n], v)
        left = [a * b for a, b in zip(v, hw[:n], strict=True)]  # hw goes on with the derivatives by the cotangents
        right = [a * b for a, b in zip(w, hv, strict=True)]
        a, b = _total(left), _total(right)
        largest = max((float(np.abs(g.data).max(initial=0)) for g in gradients), default=0.0)
        noise = 64 * EPS * largest * (1 + _total(left, np.size))
        scale = max(_total(left, np.abs), _total(right, np.abs))
        error = _ratio(abs(a - b), scale + noise / self.rtol)
        if not error <= self.rtol:
            what = f"<v, H w> = {a:.12g} but <w, H v> = {b:.12g}, relative error {error:.1e}"
            raise GradcheckError(order, "symmetry of the Hessian", what, (error, a, b))
        self._note("symmetry", error)

    def _relative_error(
        self, claimed: np.ndarray, v: np.ndarray, g: list, jv: list, values: list
    ) -> tuple[float, float, float]:
        """|<claimed, v> - <g, jv>| relative to the sum of the magnitudes on either side; then the two numbers.

        The scale is enlarged by what rounding of the values amounts to, for a gradient that cancels to nothing. And of
        two sums that are both below the rounding of a gradient of 1, nothing can be said.
        """
        left = claimed * v
        right = [a * b for a, b in zip(g, jv, strict=True)]
        a, b = float(left.sum()), _total(right)
        scale = max(float(np.abs(left).sum()), _total(right, np.abs))
        amplified = 64.0 if self.analytic else 32.0 / DIFFERENCE_STEP  # rounding errors over the smallest step
        noise = EPS * amplified * _total([c * y for c, y in zip(g, values, strict=True)], np.abs)
        if scale <= 8 * EPS * _total(g, np.abs) * float(np.abs(v).sum()):
            return 0.0, a, b
        return _ratio(abs(a - b), scale + noise / self.rtol), a, b

    def _derivative(
        self, function: Function, points: list[np.ndarray], i: int, v: np.ndarray
    ) -> list[np.ndarray]:
        """J v for input i: the derivative of every output along v."""

        def along(t: complex) -> list[np.ndarray]:
            return _evaluate(function, [p + t * v if j == i else p.astype(type(t)) for j, p in enumerate(points)])

        if self.analytic:
            with set_backend("numpy"):
                return [o.imag / COMPLEX_STEP for o in along(1j * COMPLEX_STEP)]
        steps = [DIFFERENCE_STEP, DIFFERENCE_STEP / 2, DIFFERENCE_STEP / 4]
        d1, d2, d4 = ([(a - b) / (2 * h) for a, b in zip(along(h), along(-h), strict=True)] for h in steps)
        coarse = [(4 * b - a) / 3 for a, b in zip(d1, d2, strict=True)]  # the error of order h² cancels
        fine = [(4 * b - a) / 3 for a, b in zip(d2, d4, strict=True)]
        return [(16 * b - a) / 15 for a, b in zip(coarse, fine, strict=True)]  # and that of order h⁴

    def _worst_entry(self, function: Function, points: list, i: int, claimed: np.ndarray, g: list) -> str:
        """After a failure: which entry of the gradient is off most, in words."""
        if claimed.ndim == 0 or claimed.size > 2000:
            return ""
        numerical = np.empty_like(claimed)
        for index in np.ndindex(claimed.shape):
            unit = np.zeros_like(claimed)
            unit[index] = 1.0
            jv = self._derivative(function, points, i, unit)
            numerical[index] = _total([a * b for a, b in zip(g, jv, strict=True)])
        worst = np.unravel_index(np.argmax(np.abs(claimed - numerical)), claimed.shape)
        at = ", ".join(str(int(n)) for n in worst)
        return f"; the worst entry is [{at}], {claimed[worst]:.12g} instead of {numerical[worst]:.12g}"

    def _note(self, part: str, error: float) -> None:
        self.errors[part] = max(self.errors.get(part, 0.0), error)

    def _random(self, shape: tuple[int, ...], high: float = 1.0) -> np.ndarray:
        """Entries of random sign and of a magnitude between `high` / 4 and `high`: none is negligible."""
        return self.rng.uniform(high / 4, high, shape) * np.where(self.rng.random(shape) < 0.5, -1.0, 1.0)


def _same_in_both_worlds(order: int, recorded: list[np.ndarray], raw: list[np.ndarray]) -> None:
    """A gradient computed while recording (by specs) must be the one that is computed without (by kernels)."""
    for j, (a, b) in enumerate(zip(recorded, raw, strict=True)):
        name = f"output {j}" if order == 1 else f"gradient {j}"
        _finite(a, "the value", order, name)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise GradcheckError(order, name, f"{a.dtype}{a.shape} when recorded, {b.dtype}{b.shape} when not")
        difference = float(np.abs(a - b).max(initial=0))
        if not difference <= 1e-10 * np.abs(b).max(initial=0):
            raise GradcheckError(order, name, f"recorded and not recorded differ by {difference:.2e}")


def _finite(a: np.ndarray, what: str, order: int, name: str) -> None:
    if not np.isfinite(a).all():
        raise GradcheckError(order, name, f"{what} has {np.isnan(a).sum()} NaN and {np.isinf(a).sum()} Inf")


def _gradient_of(function: Function, count: int) -> Function:
    """The function (x, g) -> vjp of `function` at x with cotangent g, recorded if it is given recorded Tensors."""

    def gradient(tensors: list[Tensor]) -> list[Tensor]:
        xs, gs = tensors[:count], tensors[count:]
        recorded = any(t.node is not None for t in tensors)
        if not recorded:
            xs = [_leaf(t.data) for t in xs]
        return _gradients(function(xs), xs, gs, recorded)

    return gradient


def _gradients(outputs: list[Tensor], xs: list[Tensor], gs: Sequence[Any], create_graph: bool) -> list[Tensor]:
    """grad(), with zeros where outputs do not depend on inputs."""
    pairs = [(o, g) for o, g in zip(outputs, gs, strict=True) if o.node is not None]
    found: Iterable[Tensor | None] = [None] * len(xs)
    if pairs:
        found = grad([o for o, _ in pairs], xs, [g for _, g in pairs], create_graph=create_graph, allow_unused=True)
    return [_constant(np.zeros_like(x.data)) if f is None else f for f, x in zip(found, xs, strict=True)]


def _vjp(outputs: list[Tensor], xs: list[Tensor], gs: list[np.ndarray]) -> list[np.ndarray]:
    return [g.data for g in _gradients(outputs, xs, gs, create_graph=False)]


def _evaluate(function: Function, points: list[np.ndarray]) -> list[np.ndarray]:
    """The values at plain arrays, real or complex."""
    return [o.data for o in function([_constant(p) for p in points])]


def _outputs(result: Any) -> list[Tensor]:
    """The floating-point results of a function, as a list."""
    results = [result] if isinstance(result, Tensor) else list(result)
    for r in results:
        if not isinstance(r, Tensor):
            raise TypeError(f"gradcheck: the function must return Tensors, not {type(r).__name__}")
    return [r for r in results if r.dtype.kind in "fc"]


def _leaf(array: np.ndarray) -> Tensor:
    """A Tensor to differentiate by. (Tensor(..., requires_grad=True) rightly refuses complex arrays.)"""
    return wrap(array, Leaf(array.shape, array.dtype), [0])


def _constant(array: np.ndarray) -> Tensor:
    return wrap(array, None, [0])


def _total(arrays: Sequence[np.ndarray], of: Callable = np.asarray) -> float:
    return float(sum(np.sum(of(a)) for a in arrays))


def _ratio(error: float, scale: float) -> float:
    return error if error == 0 or scale == 0 else error / scale


# ---- all ops, from their cards


def check_op(name: str, draw: Any, *, order: int = 2, seed: int = 0) -> Report:
    """Check the op called `name` on one example that its card draws (see cards/card.py).

    draw: a `cards.Draw`.   The Report is empty for an op without gradient. Raises ValueError for an unknown name.
    """
    card = _card(name)
    args, kwargs = card.sample(draw)
    return check_card(card, args, kwargs, order=order, seed=seed)


def check_card(card: Any, args: tuple, kwargs: dict, *, order: int = 2, seed: int = 0) -> Report:
    """Check a card's function at the given arguments."""
    if not card.wrt:
        return Report({}, 0, ())

    def function(*tensors: Tensor) -> Any:
        full = list(args)
        for i, t in zip(card.wrt, tensors, strict=True):
            full[i] = t
        return card.function(*full, **kwargs)

    return gradcheck(function, [args[i] for i in card.wrt], order=order, analytic=card.analytic, seed=seed)


def check_all(
    names: Sequence[str] = (), examples: int = 20, seed: int = 0, print: Callable[[str], Any] = print
) -> dict[str, GradcheckError]:
    """Check the named ops, or all, on `examples` random examples each; print a line per op (`minigen gradcheck`).

    Returns the failures by name: empty if all is well. Raises ValueError for an unknown name. An op whose examples
    were all empty, or whose gradient was never anything but zero, counts as failed: such a check proves nothing.
    """
    from .cards import CARDS, Draw

    cards = [_card(name) for name in names or sorted(CARDS)]
    failures: dict[str, GradcheckError] = {}
    print(f"{'op':36s} {'method':12s} {'order 1':>8s} {'order 2':>8s} {'symmetry':>8s} {'entries':>8s}")
    for card in cards:
        draw = Draw(_integers(seed))
        try:
            reports = [check_op(card.name, draw, seed=seed + i) for i in range(examples)]
            print(f"{card.name:36s} {_summary(card, reports)}")
        except GradcheckError as error:
            failures[card.name] = error
            print(f"{card.name:36s} WRONG: {error}")
    print(f"{len(cards) - len(failures)} of {len(cards)} ops have the right gradients")
    return failures


def _integers(seed: int) -> Callable[[int, int], int]:
    rng = np.random.default_rng(seed)
    return lambda low, high: int(rng.integers(low, high, endpoint=True))


def _summary(card: Any, reports: list[Report]) -> str:
    """One op's line in the table, if its examples prove something."""
    if not card.wrt:
        return "no gradient"
    entries = sum(r.entries for r in reports)
    live = np.any([r.live for r in reports], axis=0)
    if not entries or not live.all():
        dead = [card.wrt[i] for i in np.flatnonzero(~live)]
        raise GradcheckError(1, f"arguments {dead}", f"in all {len(reports)} examples empty, or of gradient zero")
    worst = [max(r.errors.get(part, 0.0) for r in reports) for part in ("order 1", "order 2", "symmetry")]
    method = "complex step" if card.analytic else "differences"
    return f"{method:12s} {' '.join(f'{error:8.1e}' for error in worst)} {entries:8d}"


def _card(name: str) -> Any:
    from .cards import CARDS  # not at the top: cards hold references, and those import SciPy

    if name not in CARDS:
        close = difflib.get_close_matches(name, CARDS)
        hint = f"did you mean {' or '.join(close)}?" if close else f"choose among {', '.join(sorted(CARDS))}"
        raise ValueError(f"gradcheck: there is no op called {name!r}; {hint}")
    return CARDS[name]
