"""What must hold for every op, as functions of a card and one example: check_* raises AssertionError if it does not.

test_properties.py runs them under hypothesis, mutants.py on broken rules. Gradients against numerical derivatives, to
order 2, are minigen.autograd.gradcheck; here is everything else. Start at `check_value`.

How exact is exact: two computations of the same thing may differ by 256 roundings of the largest number in the result, and
by 256 times what one rounding of the inputs changes (an ill-conditioned example is not held against the op). A gradient may
also be off by one rounding of its cotangent: it may have cancelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import Tensor, grad, set_backend
from minigen.autograd.cards import OpCard

ROUNDINGS = 256


# ---- running a card's function


def as_list(result: Any) -> list:
    return list(result) if isinstance(result, tuple | list) else [result]


def run(card: OpCard, args: tuple, kwargs: dict) -> list[np.ndarray]:
    """The results as raw arrays."""
    return [np.asarray(r) for r in as_list(card.function(*args, **kwargs))]


def vjp(card: OpCard, args: tuple, kwargs: dict, g: list[np.ndarray] | None = None) -> tuple[list, list, list]:
    """Values, cotangents (random, unless given) and gradients by card.wrt: raw arrays. Results of integers are left out."""
    full = list(args)
    inputs = []
    for i in card.wrt:
        full[i] = Tensor(args[i], requires_grad=True)
        inputs.append(full[i])
    outputs = [o for o in as_list(card.function(*full, **kwargs)) if isinstance(o, Tensor) and o.dtype.kind == "f"]
    if g is None:
        rng = np.random.default_rng(0)
        g = [rng.uniform(0.5, 1.5, o.shape).astype(o.dtype) * rng.choice([-1, 1], o.shape).astype(o.dtype) for o in outputs]
    pairs = [(o, c) for o, c in zip(outputs, g, strict=True) if o.node is not None]
    if not pairs:
        return [o.data for o in outputs], g, [np.zeros_like(t.data) for t in inputs]
    found = grad([o for o, _ in pairs], inputs, [c for _, c in pairs], allow_unused=True)
    gradients = [np.zeros_like(t.data) if f is None else f.data for f, t in zip(found, inputs, strict=True)]
    return [o.data for o in outputs], g, gradients


def values_and_gradients(card: OpCard, args: tuple, kwargs: dict, g: list[np.ndarray]) -> list[np.ndarray]:
    if not card.wrt:
        return run(card, args, kwargs)
    values, _, gradients = vjp(card, args, kwargs, g)
    return values + gradients


def second_order(card: OpCard, args: tuple, kwargs: dict) -> list[np.ndarray]:
    """The gradients under create_graph, and the gradient of their sum, by card.wrt; those that are not constant."""
    full = list(args)
    inputs = []
    for i in card.wrt:
        full[i] = Tensor(args[i], requires_grad=True)
        inputs.append(full[i])
    outputs = [o for o in as_list(card.function(*full, **kwargs)) if isinstance(o, Tensor) and o.node is not None]
    g = [np.ones_like(o.data) for o in outputs]
    first = [d for d in grad(outputs, inputs, g, create_graph=True, allow_unused=True) if d is not None]
    depends = [d for d in first if d.node is not None]
    second = grad(depends, inputs, [np.ones_like(d.data) for d in depends], allow_unused=True) if depends else []
    return [d.data for d in [*first, *second] if d is not None]


def over_arrays(function: Callable[[np.ndarray], Any], value: Any) -> Any:
    """`function` of every floating-point array in arguments, also inside lists and dicts; everything else as it is."""
    if isinstance(value, dict):
        return {name: over_arrays(function, v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(over_arrays(function, v) for v in value)
    return function(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def cast(arguments: Any, dtype: type) -> Any:
    return over_arrays(lambda a: a.astype(dtype), arguments)


NUDGE = 16  # roundings


def nudged(args: tuple, dtype: type) -> list[tuple]:
    """The arguments, each number moved by some roundings of `dtype`: a few variants."""
    eps = NUDGE * float(np.finfo(dtype).eps)

    def variant(rng: np.random.Generator) -> tuple:
        return over_arrays(lambda a: a * (1 + eps * rng.uniform(-1, 1, a.shape)), args)

    return [variant(np.random.default_rng(seed)) for seed in (1, 2, 3)]


# ---- comparing


def assert_close(actual: list, expected: list, nearby: list[list], dtype: type, what: str, floor: float = 0.0) -> None:
    """Equal up to rounding in `dtype` (see the top).

    nearby: the expected values at each of the nudged arguments.   floor: magnitude of terms that may have cancelled.
    """
    assert len(actual) == len(expected), f"{what}: {len(actual)} results instead of {len(expected)}"
    for i, (a, e, *near) in enumerate(zip(actual, expected, *nearby, strict=True)):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape, f"{what}, result {i}: shape {a.shape} instead of {e.shape}"
        if e.dtype.kind != "f":
            assert np.array_equal(a, e), f"{what}, result {i}: {a} instead of {e}"
            continue
        a, e = a.astype(np.float64), e.astype(np.float64)
        finite = np.isfinite(e)
        assert np.array_equal(a[~finite], e[~finite], equal_nan=True), f"{what}, result {i}: {a} instead of {e}"
        eps = float(np.finfo(dtype).eps)
        largest = np.abs(e[finite]).max(initial=0)
        sensitivity = np.max([np.abs(e - n) for n in near], axis=0)[finite]
        allowed = ROUNDINGS * (eps * largest + sensitivity / NUDGE) + eps * floor
        wrong = ~(np.abs(a - e)[finite] <= allowed)
        assert not wrong.any(), (
            f"{what}, result {i}: {a[finite][wrong][:3]} instead of {e[finite][wrong][:3]}, "
            f"{np.abs(a - e)[finite].max() / (eps * largest or 1):.0f} roundings off"
        )


def same_bits(a: list, b: list) -> bool:
    return len(a) == len(b) and all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


# ---- what must hold


def check_value(card: OpCard, args: tuple, kwargs: dict) -> None:
    """The card's reference, in float64; the same bits twice; the same bits for arrays and for Tensors; inputs unchanged."""
    before = [a.copy() for a in _arrays((args, kwargs))]
    values = run(card, args, kwargs)
    expected = as_list(card.reference(*args, **kwargs))
    nearby = [as_list(card.reference(*near, **kwargs)) for near in nudged(args, np.float64)]
    assert_close(values, expected, nearby, np.float64, "value")
    for v, e in zip(values, expected, strict=True):
        if np.asarray(e).dtype.kind == "f":
            assert v.dtype == np.float64, f"{v.dtype} from float64"
    recorded, g, gradients = vjp(card, args, kwargs)
    floats = [v for v in values if v.dtype.kind == "f"]
    assert not card.wrt or same_bits(recorded, floats), "a Tensor's value is not that of the array"
    again, _, gradients_again = vjp(card, args, kwargs, g)
    assert same_bits(recorded, again), "another value the second time"
    assert same_bits(gradients, gradients_again), "another gradient the second time"
    after = _arrays((args, kwargs))
    assert same_bits(before, after), "the op, or its rule, changed its input"


def check_dtype(card: OpCard, args: tuple, kwargs: dict) -> None:
    """float32 in, float32 out, also the gradients of both orders; and near to what float64 gives for the same numbers."""
    if not any(a.dtype.kind == "f" for a in _arrays(args)):
        return  # nothing that could be float32
    small, kwargs = cast((args, kwargs), np.float32)
    exact = cast(small, np.float64)
    nearby = nudged(exact, np.float32)
    values = run(card, small, kwargs)
    for v in values:
        assert v.dtype.kind != "f" or v.dtype == np.float32, f"{v.dtype} from float32"
    wide = cast(kwargs, np.float64)
    assert_close(
        values, run(card, exact, wide), [run(card, n, wide) for n in nearby], np.float32, "value in float32"
    )  # fmt: skip
    if not card.wrt:
        return
    _, g, gradients = vjp(card, small, kwargs)
    for i, d in zip(card.wrt, gradients, strict=True):
        assert d.dtype == np.float32, f"{d.dtype} gradient for float32"
        assert d.shape == small[i].shape, f"gradient of shape {d.shape} for an input of shape {small[i].shape}"
    g = [c.astype(np.float64) for c in g]
    expected, close = vjp(card, exact, wide, g)[2], [vjp(card, n, wide, g)[2] for n in nearby]
    assert_close(gradients, expected, close, np.float32, "gradient in float32", floor=_largest(g))
    for d in second_order(card, small, kwargs):
        assert d.dtype == np.float32, f"{d.dtype} second derivative for float32"


def check_backends(card: OpCard, args: tuple, kwargs: dict, dtype: type) -> None:
    """Numba gives what NumPy gives, forward and backward."""
    args, kwargs = cast((args, kwargs), dtype)
    results = {}
    for backend in ("numpy", "numba"):
        with set_backend(backend):
            g = vjp(card, args, kwargs)[1]
            results[backend] = values_and_gradients(card, args, kwargs, g)
    with set_backend("numpy"):
        nearby = [values_and_gradients(card, cast(near, dtype), kwargs, g) for near in nudged(args, dtype)]
    what = f"value or gradient by Numba in {np.dtype(dtype)}"
    assert_close(results["numba"], results["numpy"], nearby, dtype, what, floor=_largest(g))


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran order": lambda a: np.array(a, order="F"),
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "every other element": lambda a: _every_other(a),
    "reversed axes": lambda a: np.array(a.T, order="C").T,
}


def _every_other(a: np.ndarray) -> np.ndarray:
    """The same numbers, with gaps of garbage between them along every axis."""
    wide = np.full([2 * n for n in a.shape], 1e30, a.dtype)
    gaps = tuple(slice(1, None, 2) for _ in a.shape)
    wide[gaps] = a
    return wide[gaps] if a.ndim else a


def check_layouts(card: OpCard, args: tuple, kwargs: dict, layout: str) -> None:
    """How the numbers lie in memory does not matter, for inputs and for cotangents."""
    g = vjp(card, args, kwargs)[1]
    plain = values_and_gradients(card, args, kwargs, g)
    nearby = [values_and_gradients(card, near, kwargs, g) for near in nudged(args, np.float64)]
    change = LAYOUTS[layout]
    moved, moved_kwargs = over_arrays(change, (args, kwargs))
    actual = values_and_gradients(card, moved, moved_kwargs, [change(c) for c in g])
    assert_close(actual, plain, nearby, np.float64, f"with {layout}", floor=_largest(g))


def check_constant_cotangent(card: OpCard, args: tuple, kwargs: dict) -> None:
    """A cotangent that a sum has broadcast (one number, all strides 0, not writable) is as good as a full array."""
    values = vjp(card, args, kwargs)[0]
    full = [np.full(v.shape, 0.75) for v in values]
    expected = vjp(card, args, kwargs, full)[2]
    nearby = [vjp(card, near, kwargs, full)[2] for near in nudged(args, np.float64)]
    actual = vjp(card, args, kwargs, [np.broadcast_to(np.float64(0.75), v.shape) for v in values])[2]
    assert_close(actual, expected, nearby, np.float64, "gradient for a broadcast cotangent", floor=1.0)


def check_linear_in_cotangent(card: OpCard, args: tuple, kwargs: dict) -> None:
    """vjp(a g + b h) = a vjp(g) + b vjp(h), and vjp(0) = 0."""
    _, g, of_g = vjp(card, args, kwargs)
    h = [np.roll(c[::-1], 1) if c.ndim else c * 0.3 for c in g]
    of_h = vjp(card, args, kwargs, h)[2]
    both = vjp(card, args, kwargs, [1.5 * a - 0.25 * b for a, b in zip(g, h, strict=True)])[2]
    expected = [1.5 * a - 0.25 * b for a, b in zip(of_g, of_h, strict=True)]
    scale = [np.abs(a).max(initial=0) + np.abs(b).max(initial=0) for a, b in zip(of_g, of_h, strict=True)]
    for a, e, s in zip(both, expected, scale, strict=True):
        assert (np.abs(a - e) <= 1e-12 * s).all(), f"not linear in the cotangent: {a} instead of {e}"
    for d in vjp(card, args, kwargs, [np.zeros_like(c) for c in g])[2]:
        assert not d.any(), "a cotangent of zeros gives a gradient that is not zero"


def check_linear_input(card: OpCard, args: tuple, kwargs: dict, position: int) -> None:
    """f is linear in args[position], and the gradient is its adjoint: <g, f(x)> = <vjp(g), x>, to rounding."""

    def f(x: np.ndarray) -> np.ndarray:
        return run(card, (*args[:position], x, *args[position + 1 :]), kwargs)[0]

    x = args[position]
    y = np.roll(x[::-1], 1, axis=-1) * 0.5 if x.ndim else x * 0.5 + 1
    fx, fy, both = f(x), f(y), f(2 * x - 0.5 * y)
    scale = 2 * np.abs(fx).max(initial=0) + np.abs(fy).max(initial=0) + np.abs(both).max(initial=0)
    assert (np.abs(both - (2 * fx - 0.5 * fy)) <= 1e-12 * scale).all(), f"not linear in argument {position}"
    (value,), (g,), gradients = vjp(card, args, kwargs)
    d = gradients[card.wrt.index(position)]
    left, right = float((g * value).sum()), float((d * x).sum())
    scale = float(np.abs(g * value).sum() + np.abs(d * x).sum())
    assert abs(left - right) <= 1e-12 * scale, f"not the adjoint in argument {position}: {left} and {right}"


def check_views(card: OpCard, args: tuple, kwargs: dict) -> None:
    """A result that shares memory with an input shares its version: a write to one is known to the other."""
    for i in card.wrt:
        full = list(args)
        full[i] = Tensor(args[i])
        for out in as_list(card.function(*full, **kwargs)):
            if isinstance(out, Tensor) and out.size and np.shares_memory(out.data, args[i]):
                assert out.version is full[i].version, (
                    f"the result shares the memory of argument {i}, but not its version: declare @op(view=True), or copy"
                )


def check_nan(card: OpCard, args: tuple, kwargs: dict, position: int, entry: int) -> None:
    """NaN in, NaN out: in every result that depends on an entry, and in every gradient that depends on a cotangent."""
    x = args[position]
    if not x.size:
        return
    index = np.unravel_index(entry % x.size, x.shape)

    def with_entry(value: float) -> tuple:
        changed = x.copy()
        changed[index] = value
        return (*args[:position], changed, *args[position + 1 :])

    plain, planted = run(card, args, kwargs), run(card, with_entry(np.nan), kwargs)
    moved = []
    for step in (1e3, -1e3, 1e-3):  # far and near: a small change of a maximum's losers has no effect
        with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # outside the domain
            moved.append(run(card, with_entry(x[index] + step), kwargs))
    for j, (p, n) in enumerate(zip(plain, planted, strict=True)):
        if p.dtype.kind == "f":
            depends = np.any([m[j] != p for m in moved], axis=0)
            assert np.isnan(n[depends]).all(), f"the NaN in argument {position}{index} was lost: {n[depends]}"
    values, g, _ = vjp(card, args, kwargs)
    for j, v in enumerate(values):
        if v.size:
            g = [np.zeros_like(c) for c in g]
            k = np.unravel_index(entry % v.size, v.shape)
            g[j][k] = 1.0
            one = vjp(card, args, kwargs, g)[2]
            g[j][k] = np.nan
            for d, n in zip(one, vjp(card, args, kwargs, g)[2], strict=True):
                assert np.isnan(n[d != 0]).all(), f"the NaN in the cotangent of result {j}{k} was lost: {n}"


LARGEST = float(np.finfo(np.float32).max)
EXTREME = [s * v for v in (np.inf, LARGEST, 1e30, 104.0, 89.0, 88.0, 20.0, 1e-8, 0.0) for s in (1.0, -1.0)]


def check_extreme(card: OpCard, args: tuple, kwargs: dict, position: int, entry: int, value: float) -> None:
    """An extreme number in float32 gives what it gives in float64, where its square is an ordinary number.

    For values and first gradients. The second derivative must at least be a number where it is one in float64.
    """
    small, kwargs = cast((args, kwargs), np.float32)
    if not small[position].size:
        return
    small[position].flat[entry % small[position].size] = value
    exact, wide = cast((small, kwargs), np.float64)
    with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # (outside the domain)
        _, g, _ = vjp(card, exact, wide)
        expected = values_and_gradients(card, exact, wide, g)
        actual = values_and_gradients(card, small, kwargs, [c.astype(np.float32) for c in g])
        assert_no_overflow(actual, expected, f"{value} at argument {position}")
        pairs = zip(second_order(card, small, kwargs), second_order(card, exact, wide), strict=True)
        for a, e in pairs:
            assert not (np.isnan(a) & (np.abs(e) <= LARGEST)).any(), f"{value} at argument {position}, order 2: {a}, not {e}"


def assert_no_overflow(actual: list, expected: list, what: str) -> None:
    """Results in float32 are numbers where those in float64 are, and the same ones."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        seen = f"{what}, result {i}: {a} instead of {e}"
        assert not (np.isnan(a) & ~np.isnan(e)).any(), seen
        large = np.abs(e) > LARGEST * 1e-6  # the last step may overflow
        assert not (np.isinf(a) & ~large & ~np.isnan(e)).any(), seen
        compared = np.isfinite(a) & np.isfinite(e) & ~large
        usual = min(float(np.abs(e[compared]).max(initial=0)), 1e3)
        assert (np.abs(a - e)[compared] <= 1e-3 * (np.abs(e[compared]) + usual) + 1e-6).all(), seen


def check_kinks(card: OpCard, dtype: type) -> None:
    """Where there is no derivative, the gradient is what was agreed on."""
    for kink in card.kinks:
        args = tuple(a if isinstance(a, int | str | None) else np.asarray(a) for a in kink.args)
        args = cast(args, dtype)
        g = [np.asarray(c, dtype) for c in (kink.g if isinstance(kink.g, tuple) else (kink.g,))]
        actual = vjp(card, args, kink.kwargs, g)[2]
        for i, a, e in zip(card.wrt, actual, kink.expected, strict=True):
            assert np.array_equal(a, np.asarray(e, dtype), equal_nan=True), (
                f"at {kink.args} {kink.kwargs}, g = {kink.g}: the gradient of argument {i} is {a}, agreed is {e}"
            )


def _largest(arrays: list[np.ndarray]) -> float:
    return max((float(np.abs(a).max(initial=0)) for a in arrays), default=0.0)


def _arrays(value: Any) -> list[np.ndarray]:
    """Copies are compared with these: every array anywhere in the arguments."""
    if isinstance(value, dict):
        return _arrays(list(value.values()))
    if isinstance(value, list | tuple):
        return [a for v in value for a in _arrays(v)]
    return [value] if isinstance(value, np.ndarray) else []
