"""Every kernel's CUDA version against the reference, from the kernels' cards. Needs a GPU: python -m pytest tests/gpu -m gpu

Start at `test_accuracy`.
"""

from __future__ import annotations

import copy
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.autograd import backend
from minigen.autograd.backend import KERNELS, Kernel, move
from minigen.emulator import SCHEDULES, running

sys.path.insert(0, str(Path(__file__).parent.parent / "kernels"))

from test_cards import DTYPES, NAMES, as_list, cases, describe, in_float64, results


def on_device(value: Any) -> Any:
    """Arrays moved to the GPU."""
    if isinstance(value, tuple | list):
        return type(value)(map(on_device, value))
    return move(value, "cuda") if isinstance(value, np.ndarray) else value


def on_cpu(value: Any) -> np.ndarray:
    return move(value, "cpu") if backend.on_gpu(value) else np.asarray(value)


def call(kernel: Kernel, args: tuple, kwargs: dict, device_args: tuple | None = None) -> list[np.ndarray]:
    """What the CUDA version returns, or has written into its arguments, as NumPy arrays."""
    device_args = on_device(args) if device_args is None else device_args
    returned = kernel.on("cuda")(*device_args, **kwargs)
    fresh = [] if returned is None else [returned] if not isinstance(returned, tuple | list) else list(returned)
    return [on_cpu(r) for r in fresh] + [on_cpu(device_args[i]) for i in kernel.card.writes]


def assert_close(actual: list, plain: list, exact: list, scale: list, ulp: float, dtype: type, what: str) -> None:
    assert len(actual) == len(exact) == len(scale), what
    for a, p, e, s in zip(actual, plain, exact, scale, strict=True):
        assert (a.shape, a.dtype) == (e.shape, p.dtype), f"{what}: {a.dtype}{a.shape}, not {p.dtype}{e.shape}"
        if e.dtype.kind != "f":
            assert np.array_equal(a, e), what
            continue
        finite = np.isfinite(e)
        assert np.array_equal(a[~finite].astype(float), e[~finite], equal_nan=True), what
        budget = ulp * np.finfo(dtype).eps * np.broadcast_to(np.abs(s), e.shape)[finite]
        error = np.abs(a[finite].astype(np.float64) - e[finite])
        assert (error <= budget).all(), (
            f"{what}: {(error / np.maximum(budget, 1e-300)).max():.3g} times the budget of {ulp} ulp"
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name: str, dtype: type) -> None:
    """Within the card's ulp of the reference in float64; a budget of 0 means the same bits as the reference.

    For float64 the reference itself is rounded, with other functions of mathematics: both may be off by the budget.
    """
    kernel = KERNELS[name]
    ulp = kernel.card.ulp * (2 if dtype is np.float64 else 1)
    for args, kwargs in cases(kernel, dtype):
        wide = in_float64(args), in_float64(kwargs)
        plain = results(kernel, "numpy", args, kwargs)
        exact = results(kernel, "numpy", *wide) if kernel.card.ulp else plain
        scale = exact if kernel.card.scale is None else as_list(kernel.card.scale(*wide[0], **wide[1]))
        what = describe(kernel, args, kwargs)
        with running(check=dtype is np.float32):  # the same text for both
            actual = call(kernel, args, kwargs)
        assert_close(actual, plain, exact, scale, ulp, dtype, what)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_no_alarm_in_any_schedule(name: str, dtype: type, schedule: str) -> None:
    """The checker finds nothing, and results are those of the plain run, bit for bit."""
    kernel = KERNELS[name]
    for args, kwargs in cases(kernel, dtype):
        plain = call(kernel, args, kwargs)
        with running(check=True, schedule=schedule):
            checked = call(kernel, args, kwargs)
        assert [a.tobytes() for a in plain] == [a.tobytes() for a in checked], describe(kernel, args, kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_kept_and_results_repeat(name: str) -> None:
    """Only card.writes change; a second call gives the same bits."""
    kernel = KERNELS[name]
    for args, kwargs in cases(kernel, np.float32):
        what = describe(kernel, args, kwargs)
        used = on_device(args)
        first = call(kernel, args, kwargs, used)
        for i, (before, after) in enumerate(zip(args, used, strict=True)):
            if isinstance(before, np.ndarray) and i not in kernel.card.writes:
                assert before.tobytes() == on_cpu(after).tobytes(), f"{what}: argument {i} was changed"
        for schedule in SCHEDULES[1:]:  # of the emulator; a device has its own
            with running(schedule=schedule):
                again = call(kernel, args, kwargs)
            assert [a.tobytes() for a in first] == [a.tobytes() for a in again], f"{what}: another result the second time"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments(name: str) -> None:
    """A CUDA version takes what the reference takes, `out` among it, and fills the whole of `out`."""
    kernel = KERNELS[name]
    function, reference = kernel.implementation("cuda"), kernel.implementation("numpy")
    both = ["out" in inspect.signature(f).parameters for f in (function, reference)]
    assert both[0] == both[1], f"out= is taken by {['reference.py', 'cuda.py'][both[0]]} only"
    if not both[0]:
        return
    for args, kwargs in cases(kernel, np.float32):
        if "out" in kwargs or len(args) >= len(inspect.signature(reference).parameters):
            continue
        expected = call(kernel, args, kwargs)
        single = not isinstance(reference(*copy.deepcopy(args), **kwargs), tuple | list)
        out = [move(np.full_like(e, np.nan if e.dtype.kind == "f" else 77), "cuda") for e in expected]
        function(*on_device(args), **kwargs, out=out[0] if single else tuple(out))
        for o, e in zip(out, expected, strict=True):
            assert on_cpu(o).tobytes() == e.tobytes(), f"{describe(kernel, args, kwargs)}: out holds another result"


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3e38, -3e38]
POINTWISE = [
    name
    for name in NAMES
    if KERNELS[name].family.rsplit(".", 1)[1] in ("elementwise", "fused", "softmax", "loss", "reduction", "pool")
]


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values(name: str) -> None:
    """Where infinities, NaN and zeros go in, the same infinities and NaN come out as from the reference."""
    kernel = KERNELS[name]
    rng = np.random.default_rng(3)
    for args, kwargs in cases(kernel, np.float32):
        for i in [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.size]:
            changed = [np.array(a) if isinstance(a, np.ndarray) else a for a in args]
            flat = changed[i].reshape(-1)
            places = rng.permutation(flat.size)[: len(SPECIAL)]
            flat[places] = rng.permutation(SPECIAL)[: len(places)]
            expected, actual = results(kernel, "numpy", tuple(changed), kwargs), call(kernel, tuple(changed), kwargs)
            for a, e in zip(actual, expected, strict=True):
                odd = ~np.isfinite(e) | (np.abs(e) > 1e37)  # near the largest number, either may have become infinite
                what = f"{describe(kernel, args, kwargs)}, special values in argument {i}"
                assert np.isfinite(a[~odd]).all(), f"{what}: {a[~odd][~np.isfinite(a[~odd])][:3]} where the reference is finite"
                sure = ~np.isfinite(e)
                assert np.array_equal(a[sure], e[sure], equal_nan=True), f"{what}: {a[sure][:5]} instead of {e[sure][:5]}"
