"""Every kernel keeps its card: accuracy, side effects, `out=`, costs, and the same bits on any number of threads.

Generated from `backend.KERNELS`; a new kernel family is found by itself. Start at `test_accuracy`.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from minigen.autograd import kernels
from minigen.autograd.backend import KERNELS, Kernel


def load_all_kernels() -> list[str]:
    """Import every module below minigen/autograd/kernels, which fills KERNELS. Returns their names."""
    names = [m.name for m in pkgutil.walk_packages(kernels.__path__, kernels.__name__ + ".")]
    for name in names:
        importlib.import_module(name)
    return names


load_all_kernels()
NAMES = sorted(KERNELS)
DTYPES = [np.float32, np.float64]


def cases(kernel: Kernel, dtype: type) -> list[tuple[tuple, dict]]:
    return kernel.card.cases(np.random.default_rng(7), dtype)


def in_float64(value: Any) -> Any:
    """The same call in float64."""
    if isinstance(value, dict):
        return {k: in_float64(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(*map(in_float64, value)) if hasattr(value, "_fields") else type(value)(map(in_float64, value))
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float32:
        return value.astype(np.float64)
    return value


def as_list(result: Any) -> list[np.ndarray]:
    return [np.asarray(r) for r in (result if isinstance(result, tuple | list) else [result]) if r is not None]


def results(kernel: Kernel, backend: str, args: tuple, kwargs: dict) -> list[np.ndarray]:
    """What a kernel returns, or else what it has written into copies of its arguments."""
    args = copy.deepcopy(args)
    returned = kernel.implementation(backend)(*args, **kwargs)
    written = [args[i] for i in kernel.card.writes]
    fresh = [r for r in as_list(returned) if not any(np.shares_memory(r, w) for w in written)]
    return fresh + written


def describe(kernel: Kernel, args: tuple, kwargs: dict) -> str:
    shown = [f"{a.dtype}{a.shape}" if isinstance(a, np.ndarray) else repr(a) for a in args]
    return f"{kernel.name}({', '.join(shown)}, {kwargs})"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name: str, dtype: type) -> None:
    """Numba's result is within the card's ulp of the reference in float64, finite where that is, and of the right dtype."""
    kernel = KERNELS[name]
    for args, kwargs in cases(kernel, dtype):
        what = describe(kernel, args, kwargs)
        wide = in_float64(args), in_float64(kwargs)
        actual, plain = results(kernel, "numba", args, kwargs), results(kernel, "numpy", args, kwargs)
        exact = results(kernel, "numpy", *wide) if kernel.card.ulp else plain  # a budget of 0 means the same bits
        scale = exact if kernel.card.scale is None else as_list(kernel.card.scale(*wide[0], **wide[1]))
        assert len(actual) == len(exact) == len(scale), what
        for a, p, e, s in zip(actual, plain, exact, scale, strict=True):
            assert (a.shape, a.dtype) == (e.shape, p.dtype), f"{what}: {a.dtype}{a.shape}, not {p.dtype}{e.shape}"
            if e.dtype.kind != "f":
                assert np.array_equal(a, e), what
                continue
            finite = np.isfinite(e)
            assert np.array_equal(a[~finite].astype(float), e[~finite], equal_nan=True), what
            budget = kernel.card.ulp * np.finfo(dtype).eps * np.broadcast_to(np.abs(s), e.shape)[finite]
            error = np.abs(a.astype(np.float64) - e)[finite]
            wrong = ~(error <= budget)
            assert not wrong.any(), (
                f"{what}: {(error / np.maximum(budget, 1e-300)).max():.3g} times the budget of {kernel.card.ulp} ulp; "
                f"{a[finite][wrong][:3]} instead of {e[finite][wrong][:3]}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_side_effects_costs_and_repetition(name: str) -> None:
    """Only card.writes change, on both backends; the same bits twice; flops and bytes are whole numbers."""
    kernel = KERNELS[name]
    sizes = 0
    for args, kwargs in cases(kernel, np.float32):
        what = describe(kernel, args, kwargs)
        flops, nbytes = kernel.card.flops(*args, **kwargs), kernel.card.bytes(*args, **kwargs)
        assert isinstance(flops, int), f"{what}: flops is {flops!r}"
        assert isinstance(nbytes, int), f"{what}: bytes is {nbytes!r}"
        assert flops >= 0
        assert nbytes >= 0
        bits = []
        for backend in ("numpy", "numba", "numba"):
            used, used_kwargs = copy.deepcopy((args, kwargs))
            returned = kernel.implementation(backend)(*used, **used_kwargs)
            for i, (before, after) in enumerate(zip(args, used, strict=True)):
                if i not in kernel.card.writes and isinstance(before, np.ndarray):
                    assert before.tobytes() == after.tobytes(), f"{what}: {backend} changed argument {i}"
            bits.append([r.tobytes() for r in [*as_list(returned), *(used[i] for i in kernel.card.writes)]])
        assert bits[1] == bits[2], f"{what}: another result the second time"
        size = sum(r.nbytes for r in (returned if isinstance(returned, tuple) else [returned]) if hasattr(r, "strides"))
        assert nbytes >= size, f"{what}: {size} bytes come out, and the card says that {nbytes} move"
        sizes += max(a.size for a in [*args, *as_list(returned)] if isinstance(a, np.ndarray)) > 1
    assert sizes >= 1, "the card has hardly any case with more than one number in it"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_out_is_honoured(name: str, backend: str) -> None:
    """Where a kernel takes `out=`, it writes there, all of it, and returns it."""
    kernel = KERNELS[name]
    function = kernel.implementation(backend)
    if "out" not in inspect.signature(function).parameters:
        pytest.skip("has no out")
    for args, kwargs in cases(kernel, np.float32):
        if "out" in kwargs or len(args) >= len(inspect.signature(function).parameters):
            continue  # the case gives out itself
        expected = function(*args, **kwargs)
        single = not isinstance(expected, tuple | list)
        out = [np.full_like(e, np.nan if e.dtype.kind == "f" else 77) for e in as_list(expected)]
        returned = function(*args, **kwargs, out=out[0] if single else tuple(out))
        for o, r, e in zip(out, as_list(returned), as_list(expected), strict=True):
            assert r.shape == o.shape, f"{describe(kernel, args, kwargs)}: returned another shape than out"
            assert np.shares_memory(r, o) or not o.size, f"{describe(kernel, args, kwargs)}: returned another array"
            assert o.tobytes() == e.tobytes(), f"{describe(kernel, args, kwargs)}: out holds another result"


@pytest.mark.parametrize("name", NAMES)
def test_implementations_are_interchangeable(name: str) -> None:
    """One takes `out` if the other does; and the reference, being the definition, says what it computes."""
    both = [KERNELS[name].implementation(backend) for backend in ("numpy", "numba")]
    takes_out = ["out" in inspect.signature(function).parameters for function in both]
    assert takes_out[0] == takes_out[1], f"out= is taken by {['reference.py', 'cpu.py'][takes_out[1]]} only"
    assert both[0].__doc__, "the reference is the readable definition: say what it computes"


# ---- the same bits on any number of threads


def digests() -> dict[str, str]:
    """A digest of every kernel's results; all parallel versions run, also on the small cases of the cards."""
    for module_name in load_all_kernels():
        module = importlib.import_module(module_name)
        for constant in [c for c in vars(module) if c.startswith("PARALLEL")]:
            setattr(module, constant, 0)  # the size from which on a kernel goes parallel
    found = {}
    for name, kernel in sorted(KERNELS.items()):
        digest = hashlib.sha256()
        for args, kwargs in cases(kernel, np.float32):
            for r in results(kernel, "numba", args, kwargs):
                digest.update(r.tobytes())
        found[name] = digest.hexdigest()
    return found


def test_the_same_bits_on_any_number_of_threads() -> None:
    """In one process that may use eight, set to 1, 2, 3, 4 and 8 threads."""
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import test_cards\n"
        "from minigen.autograd.kernels.jit import set_threads\n"
        "for threads in (1, 2, 3, 4, 8):\n"
        "    set_threads(threads)\n"
        "    print(*(f'{name}={digest}' for name, digest in test_cards.digests().items()))\n"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    one, *more = [set(line.split()) for line in done.stdout.splitlines()]
    assert len(one) == len(KERNELS)
    assert len(more) == 4
    for threads, digest in zip((2, 3, 4, 8), more, strict=True):
        assert digest == one, f"with {threads} threads other bits: {sorted(d.split('=')[0] for d in digest - one)}"
