"""Steps recorded as graphs: what a replay does is what the step would have done, and what cannot be replayed is refused.

Start at `test_a_replay_is_the_step`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minigen.autograd import Tensor, dials, no_grad, ops
from minigen.autograd.backend import KERNELS, move
from minigen.autograd.capture import Captured, CaptureError
from minigen.emulator import cupy, running
from minigen.optim import EMA, SGD, Adam, linear
from minigen.random import Generator


class Fit:
    """A small regression: a product, dropout, an optimiser whose learning rate falls, an average."""

    def __init__(self, adam: bool = True):
        rng = Generator(1)
        self.w = Tensor(move(rng.normal((5, 3)), "cuda"), requires_grad=True)
        kind = Adam if adam else SGD
        self.optimizer = kind([self.w], linear(0.1, 20), weight_decay=0.1)
        self.ema = EMA(self.optimizer.flat, 0.9)
        self.rng = Generator(2, "cuda")

    def step(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        z = ops.dropout(x @ self.w + 0.1 * self.rng.normal((8, 3)), 0.2, self.rng)
        loss = ops.square(z - y).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ema.update()
        return loss.data

    def state(self) -> list[bytes]:
        arrays = (self.w.data, self.ema.average, *self.optimizer.state.values())
        return [move(a, "cpu").tobytes() for a in arrays]


def batches(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = Generator(3)
    return [(move(rng.normal((8, 5)), "cuda"), move(rng.normal((8, 3)), "cuda")) for _ in range(n)]


@pytest.mark.parametrize("adam", [True, False])
def test_a_replay_is_the_step(adam: bool) -> None:
    """Losses, parameters, averages and the positions of host and device after ten steps, six of them replayed, bit for bit."""
    plain, captured = Fit(adam), Fit(adam)
    run = Captured(captured.step)
    never = Captured(plain.step, rehearsals=100)  # the same kernels, launched one by one
    for x, y in batches(10):
        assert float(run(x, y)) == float(never(x, y))
    assert len(run.graphs) == 2
    assert not never.graphs
    assert captured.state() == plain.state()
    assert captured.rng.state == plain.rng.state
    assert (captured.optimizer.steps, captured.ema.steps) == (10, 10)


def test_the_example_of_the_guide() -> None:
    guide = Path(__file__).parents[2].joinpath("docs", "gpu.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*Captured(?:(?!```).)*)```", guide, re.DOTALL)
    x, y = batches(1)[0]
    names = {"step": lambda x, y: x.sum() + y.sum(), "x": x, "y": y}
    exec(code, names)
    assert float(names["step"](x, y)) == float(x.sum() + y.sum())


def test_a_replay_launches_once(gpu: str) -> None:
    if gpu != "emulator":
        pytest.skip("counts launches of the emulator")
    run, data = Captured(Fit().step), batches(6)
    for x, y in data[:5]:
        run(x, y)
    before, nodes = cupy.counts.copy(), len(run.graphs[-1].nodes)
    x, y = data[5]
    with running() as mode:
        run(x, y)
    outside = [launch.name for launch in mode.launches].index("set_words_kernel")
    assert outside == 0
    assert nodes > 20
    assert cupy.counts["to device"] == before["to device"]
    assert cupy.counts["wait"] == before["wait"]


def test_a_replay_counts_as_a_write() -> None:
    """A graph of ops that was made before cannot be differentiated with the parameters of after."""
    fit = Fit()
    run = Captured(fit.step)
    for x, y in batches(4):
        run(x, y)
    loss = ops.square(fit.w).sum()
    run(*batches(1)[0])
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def hidden_float(x: np.ndarray) -> np.ndarray:
    return x * float(x.sum())


def hidden_op(x: np.ndarray) -> np.ndarray:
    return ops.slogdet(x[:3, :3])[1]


def hidden_copy(x: np.ndarray) -> np.ndarray:
    return x + move(np.ones(5, np.float32), "cuda")


def hidden_index(x: np.ndarray) -> np.ndarray:
    return x[[0, 1]] * 2


def hidden_mask(x: np.ndarray) -> np.ndarray:
    return x[x > 0]


def hidden_split(x: np.ndarray) -> np.ndarray:
    return x + Generator(1, "cuda").split(1)[0].normal((8, 5))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (hidden_float, r"hidden_float, .*test_capture:\d+, cannot be part of a captured step: .*copied to the host"),
        (hidden_op, r"op slogdet cannot be part of a captured step"),
        (hidden_copy, r"cannot be part of a captured step: an array is copied to the GPU while a step is recorded"),
        (hidden_index, r"hidden_index, .* cannot be part of a captured step: .*copied from the host"),
        (hidden_mask, r"hidden_mask, .* cannot be part of a captured step: .*device is waited for"),
        (hidden_split, r"split, minigen.random:\d+, cannot be .*: split: in a recorded step the children"),
    ],
)
def test_what_cannot_be_recorded_is_named(step: object, message: str, gpu: str) -> None:
    if gpu != "emulator":
        if step is hidden_index:
            pytest.skip("CuPy records the copy: only the emulator sees that the index would be read again at each replay")
        message = "cannot be part of a captured step"  # for reasons that CUDA words in its own way
    run, (x, _) = Captured(step), batches(1)[0]  # type: ignore[arg-type]
    run(x)
    run(x)
    with pytest.raises(CaptureError, match=message):
        run(x)
    assert dials.recording is None
    assert not dials.own_kernels
    assert float((x - x).sum()) == 0  # work goes on


def test_numbers_that_change_are_not_frozen() -> None:
    count = [0]

    def step(x: np.ndarray) -> np.ndarray:
        count[0] += 1
        return ops.leaky_relu(Tensor(x), 0.01 * count[0]).data

    run, (x, _) = Captured(step), batches(1)[0]
    for _ in range(3):
        run(x)
    with pytest.raises(CaptureError, match=r"kernel \w+ was launched with .*0\.03.*, then with .*0\.04.*: the step has"):
        run(x)


def test_branches_that_change_are_not_frozen() -> None:
    count = [0]

    def step(x: np.ndarray) -> np.ndarray:
        count[0] += 1
        return ops.silu(Tensor(x)).data if count[0] % 2 else ops.silu(ops.silu(Tensor(x))).data

    run, (x, _) = Captured(step), batches(1)[0]
    for _ in range(3):
        run(x)
    with pytest.raises(CaptureError, match="launched 1 kernels, then 2"):
        run(x)


def test_inputs_of_another_shape_are_refused() -> None:
    run, (x, y) = Captured(lambda x: x * 2), batches(1)[0]
    run(x)
    with pytest.raises(ValueError, match=r"a captured step of float32\(8, 5\) was given float32\(8, 3\)"):
        run(y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_a_captured_step(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that stands in for cuBLAS there, on the cases of the product's card, transposed too, under the checker."""
    kernel, rng = KERNELS["matmul"], np.random.default_rng(2)
    monkeypatch.setattr(dials, "own_kernels", True)
    for (a, b), _ in kernel.card.cases(rng, dtype):
        exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
        budget = kernel.card.ulp * np.finfo(dtype).eps * np.matmul(abs(a), abs(b))
        small = a.size * b.size < 10_000  # which the checker takes seconds for otherwise
        for across in (False, True) if a.ndim > 1 and b.ndim > 1 else (False,):
            there = [move(np.ascontiguousarray(x.mT), "cuda").mT if across else move(x, "cuda") for x in (a, b)]
            with running(check=small and dtype is np.float32), no_grad():
                product = move(ops.matmul(*there), "cpu")
            assert (product.shape, product.dtype) == (exact.shape, dtype)
            assert (np.abs(product - exact) <= budget).all(), (a.shape, b.shape)


@pytest.mark.parametrize("name", ["scatter_add"])
def test_kernels_of_a_captured_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library sorts otherwise, which would wait: the same bits."""
    kernel = KERNELS[name]
    for args, kwargs in kernel.card.cases(np.random.default_rng(2), np.float32):
        there = [move(a, "cuda") if isinstance(a, np.ndarray) else a for a in args]
        monkeypatch.setattr(dials, "own_kernels", False)
        expected = move(kernel.on("cuda")(*there, **kwargs), "cpu")
        monkeypatch.setattr(dials, "own_kernels", True)
        with running(check=True):
            assert move(kernel.on("cuda")(*there, **kwargs), "cpu").tobytes() == expected.tobytes()


def test_products_keep_infinities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dials, "own_kernels", True)
    a, b = np.ones((3, 2), np.float32), np.ones((2, 4), np.float32)
    a[0, 1], b[1, 2] = np.inf, np.nan
    product = move(ops.matmul(move(a, "cuda"), move(b, "cuda")), "cpu")
    assert np.array_equal(product, np.matmul(a, b), equal_nan=True)
