"""Training on a GPU against the CPU: the same bits of randomness, the same step to rounding, no hidden synchronisation.

Start at `test_one_step_is_that_of_the_cpu`. Needs a GPU: python -m pytest tests/gpu -m gpu
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

import numpy as np
import pytest

from minigen.autograd import Tensor, backend, ops
from minigen.autograd.backend import move, on_gpu
from minigen.models import MODELS
from minigen.random import Generator

DEVICES = ("cpu", "cuda")


def allow_synchronize(allow: bool) -> AbstractContextManager[None]:
    """Inside this block, waiting for the device is an error, or is not."""
    return (backend.cupy() if backend.emulated() else importlib.import_module("cupyx")).allow_synchronize(allow)


SHAPE = (8, 8, 1)
VAES = ("vae", "vae-mlp")  # what has been trained on a GPU


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    assert on_gpu(b)
    b = move(b, "cpu")
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("seed", [0, 1, 2**64 + 3, 2**128 - 1])
def test_draws_are_the_same_bits(seed: int) -> None:
    here, there = (Generator(seed, device) for device in DEVICES)
    p = np.linspace(0, 1, 77)
    for shape in (0, 1, (3, 5), 4099):
        for dtype in (np.float32, np.float64):
            assert same_bits(here.uniform(shape, -3, 1e3, dtype), there.uniform(shape, -3, 1e3, dtype))
            assert same_bits(here.normal(shape, 0.3, 1.7, dtype), there.normal(shape, 0.3, 1.7, dtype))
            assert same_bits(here.bernoulli(0.3, shape, dtype), there.bernoulli(0.3, shape, dtype))
            assert same_bits(here.bernoulli(p.astype(dtype)), there.bernoulli(move(p.astype(dtype), "cuda")))
        assert same_bits(here.integers(-7, 2**62 + 2**61, shape), there.integers(-7, 2**62 + 2**61, shape))
        assert same_bits(here.integers(-(2**63), 2**63, shape), there.integers(-(2**63), 2**63, shape))
    assert same_bits(here.permutation(1000), there.permutation(1000))
    assert same_bits(here.bits(9), there.bits(9))
    assert here.state == there.state
    assert same_bits(here.split(2)[1].normal(5), there.split(2)[1].normal(5))


def model_on(name: str, device: str):
    """A model with a small seed, its optimisers and the generator of its noise."""
    entry = MODELS[name]
    model = entry.build(SHAPE, entry.config(), Generator(5)).to(device)
    return model, model.optimizers(), Generator(6, device)


def batch(device: str, seed: int = 7, n: int = 16) -> np.ndarray:
    return move(Generator(seed).uniform((n, *SHAPE)), device)


@pytest.mark.parametrize("name", VAES)
def test_one_step_is_that_of_the_cpu(name: str) -> None:
    """Terms and gradients agree to rounding, and parameters wherever the gradient is not mere rounding."""
    terms, gradients, parameters = [], [], []
    for device in DEVICES:
        model, optimizers, rng = model_on(name, device)
        terms.append(model.train_step(batch(device), rng, optimizers))
        flats = [o.flat for o in optimizers.values()]
        assert all(on_gpu(f.data) == on_gpu(f.grad) == (device == "cuda") for f in flats)
        gradients.append(np.concatenate([move(f.grad, "cpu") for f in flats]))
        parameters.append(np.concatenate([move(f.data, "cpu") for f in flats]))
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    largest = np.abs(gradients[0]).max()
    assert np.abs(gradients[0] - gradients[1]).max() <= 1e-5 * largest
    clear = np.abs(gradients[0]) > 1e-3 * largest
    assert clear.mean() > 0.05
    np.testing.assert_allclose(parameters[0][clear], parameters[1][clear], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", VAES)
def test_loss_curve_of_fifty_steps(name: str) -> None:
    curves = []
    for device in DEVICES:
        model, optimizers, rng = model_on(name, device)
        curves.append([model.train_step(batch(device, seed), rng, optimizers)["loss"] for seed in range(50)])
    np.testing.assert_allclose(*curves, rtol=2e-3)
    assert curves[0][-1] < curves[0][0]


@pytest.mark.parametrize("name", VAES)
def test_a_step_waits_for_the_device_only_to_report(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With synchronisation forbidden, except where a term of the loss is read as a number."""
    model, optimizers, rng = model_on(name, "cuda")
    x = batch("cuda")
    model.train_step(x, rng, optimizers)  # compiles
    read = Tensor.item

    def item(self: Tensor) -> float:
        with allow_synchronize(True):
            return read(self)

    monkeypatch.setattr(Tensor, "item", item)
    with allow_synchronize(False):
        model.train_step(x, rng, optimizers)


def test_state_moves_between_devices() -> None:
    """A state is on the CPU whatever the device, and can be loaded on either."""
    model, optimizers, rng = model_on("vae-mlp", "cuda")
    model.train_step(batch("cuda"), rng, optimizers)
    state, adam = model.state_dict(), optimizers["adam"].state_dict()
    assert all(isinstance(a, np.ndarray) for a in (*state.values(), adam["m"]))
    other, others, _ = model_on("vae-mlp", "cpu")
    other.load_state_dict(state)
    others["adam"].load_state_dict(adam)
    assert all(np.array_equal(a, other.state_dict()[name]) for name, a in state.items())
    model.load_state_dict(other.state_dict())
    optimizers["adam"].load_state_dict(others["adam"].state_dict())
    assert on_gpu(optimizers["adam"].state["m"])


def test_mixed_devices_are_refused() -> None:
    x, y = Tensor(np.ones(3, np.float32)), Tensor(move(np.ones(3, np.float32), "cuda"))
    for op in (ops.add, ops.matmul, ops.maximum):
        with pytest.raises(TypeError, match="different devices"):
            op(x, y)
        with pytest.raises(TypeError, match="different devices"):
            op(y, x)
