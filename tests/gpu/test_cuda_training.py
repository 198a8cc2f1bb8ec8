"""Training on a GPU against the CPU: the same bits of randomness, the same step to rounding, no hidden synchronisation.

Start at `test_one_step_is_that_of_the_cpu`. Needs a GPU: python -m pytest tests/gpu -m gpu
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import pytest

from minigen.autograd import Tensor, backend, capture, ops
from minigen.autograd.backend import move, on_gpu
from minigen.models import MODELS, langevin
from minigen.optim import Optimizer
from minigen.random import Generator
from minigen.training.captured import CapturedSteps

DEVICES = ("cpu", "cuda")


def allow_synchronize(allow: bool) -> AbstractContextManager[None]:
    """Inside this block, waiting for the device is an error, or is not."""
    if backend.emulated():
        return backend.cupy().allow_synchronize(allow)
    with warnings.catch_warnings():  # deprecated, for CuPy cannot see a library wait; it has nothing better yet
        warnings.simplefilter("ignore", UserWarning)
        forbidden = importlib.import_module("cupyx").allow_synchronize(allow)
        stack = ExitStack()
        stack.enter_context(forbidden)  # here it warns
    return stack


SHAPES = {True: (2,), False: (8, 8, 1)}  # of points, and of images
ALL = sorted(MODELS)
CURVES = ("vae-mlp", "realnvp")  # trained for fifty steps; any other with -m slow
CHOOSING = ("vqvae",)  # between vectors that start out equal: rounding decides, and one choice changes what follows
READERS = {"ebm2d": ((langevin, "mala"),)}  # reads the share of proposals that were accepted, once
CLASSES = 3
NOT_CAPTURED = [name for name in ALL if MODELS[name].cls.not_captured]
RISING = ("ddpm", "ddpm2d", "ncsn")  # their learning rate starts at a hundredth: layers that start at zero would stay near it
WARM = 2  # steps until everything is compiled, and layers that start from data have started


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


def shape_of(name: str) -> tuple[int, ...]:
    """Of data that a model takes."""
    for shape in SHAPES.values():
        try:
            MODELS[name].build(shape, small(name), Generator(0))
        except ValueError:
            continue
        return shape
    raise AssertionError(f"{name} takes neither points nor small images")


def small(name: str, **options: Any) -> Any:
    """A configuration with what can be made small made small."""
    kind = MODELS[name].config
    known = kind.__dataclass_fields__
    wanted = {"levels": 17, "classes": CLASSES, "hidden": 16, "base": 8, "channels": 4}
    wanted |= {"couplings": 2, "layers": 2, "flow_steps": 1, "timesteps": 50}
    return kind(**{field: value for field, value in wanted.items() if field in known and known[field].type != "str"} | options)


class Training:
    """A model in training on a device: a small seed, its optimisers, and the generator of its noise."""

    def __init__(self, name: str, device: str, **options: Any):
        self.name, self.device = name, device
        self.model = MODELS[name].build(shape_of(name), small(name, **options), Generator(5)).to(device)
        self.optimizers, self.rng = self.model.optimizers(), Generator(6, device)

    def batch(self, seed: int = 7, n: int = 16) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Points, or images of 17 grey levels; and labels, if the model wants them."""
        shape, rng = shape_of(self.name), Generator(seed)
        points, images = rng.normal((n, *shape)), rng.integers(0, 17, (n, *shape)).astype(np.float32) / np.float32(16)
        labels = {"y": move(rng.integers(0, CLASSES, (n,)), self.device)} if self.model.classes else {}
        return move(points if len(shape) == 1 else images, self.device), labels

    def step(self, seed: int = 7) -> dict[str, float]:
        x, labels = self.batch(seed)
        return self.model.train_step(x, self.rng, self.optimizers, **labels)

    def take_over(self, other: Training) -> None:
        self.model.load_state_dict(other.model.state_dict())
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(other.optimizers[name].state_dict())
        self.rng.state = other.rng.state

    def flat(self, part: str) -> np.ndarray:
        """All parameters ("data"), or gradients ("grad"), on the CPU."""
        flats = [getattr(o.flat, part) for o in self.optimizers.values()]
        assert all(on_gpu(f) == (self.device == "cuda") for f in flats)
        return np.concatenate([move(f, "cpu") for f in flats])


@pytest.mark.parametrize("name", ALL)
def test_one_step_is_that_of_the_cpu(name: str) -> None:
    """From the same state, terms and gradients agree to rounding, and parameters wherever a gradient is not mere rounding."""
    here, there = (Training(name, device, **({"lr": 0.15} if name in RISING else {})) for device in DEVICES)
    for seed in range(WARM):  # layers that start from data have started, and those that start at zero have left it
        here.step(seed)
    there.take_over(here)
    assert there.step() == pytest.approx(here.step(), rel=1e-5)
    gradients, parameters = ([run.flat(part) for run in (here, there)] for part in ("grad", "data"))
    largest = np.abs(gradients[0]).max()
    assert np.abs(gradients[0] - gradients[1]).max() <= 1e-5 * largest
    clear = np.abs(gradients[0]) > 1e-3 * largest
    assert clear.mean() > 0.05
    np.testing.assert_allclose(parameters[0][clear], parameters[1][clear], rtol=0, atol=2e-6)


DRAWN = [pytest.param(n, marks=() if n in CURVES else pytest.mark.slow) for n in ALL if n not in CHOOSING]


@pytest.mark.parametrize("name", DRAWN)
def test_curves_of_fifty_steps(name: str) -> None:
    """All that a model reports, on one batch, so that a loss has to fall."""
    curves: list[dict[str, np.ndarray]] = []
    for device in DEVICES:
        run = Training(name, device)
        steps = [run.step() for _ in range(50)]
        curves.append({term: np.array([s[term] for s in steps]) for term in steps[0]})
    here, there = curves
    for term, values in here.items():
        np.testing.assert_allclose(there[term], values, rtol=2e-3, atol=2e-3 * np.abs(values).max(), err_msg=term)
    if "loss" in here and name != "rbm":  # the rbm's is a difference of energies
        assert here["loss"][-10:].mean() < here["loss"][:10].mean()


@pytest.mark.parametrize("name", ALL)
def test_a_step_does_not_wait_for_the_device(name: str, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With synchronisation forbidden, except where a guard reads a number before it lets go on; nothing is copied there."""
    run = Training(name, "cuda")
    for _ in range(WARM):  # compiles, and brings constants over
        run.step()
    x, labels = run.batch()
    step = run.model.update
    if name in NOT_CAPTURED:
        step = run.model.train_step
        for owner, reader in ((Tensor, "item"), (Optimizer, "clip_grad_norm"), *READERS.get(name, ())):
            monkeypatch.setattr(owner, reader, _allowed(getattr(owner, reader)))
    if gpu == "emulator":
        backend.cupy().counts.clear()
    with allow_synchronize(False):
        terms = step(x, run.rng, run.optimizers, **labels)
    if gpu == "emulator":
        counts = backend.cupy().counts
        assert "to device" not in counts
        assert counts["to host"] <= (len(terms) + 1 if name in NOT_CAPTURED else 0)
        counts.clear()
        run.step()
        assert name in NOT_CAPTURED or counts["to host"] == 1  # all terms at once


def _allowed(reader: Callable) -> Callable:
    """The function, which may wait for the device."""

    def read(*args: Any, **kwargs: Any) -> Any:
        with allow_synchronize(True):
            return reader(*args, **kwargs)

    return read


def test_state_moves_between_devices() -> None:
    """A state is on the CPU whatever the device, and can be loaded on either."""
    there, here = Training("vae-mlp", "cuda"), Training("vae-mlp", "cpu")
    there.step()
    state, adam = there.model.state_dict(), there.optimizers["adam"].state_dict()
    assert all(isinstance(a, np.ndarray) for a in (*state.values(), adam["m"]))
    here.take_over(there)
    assert all(np.array_equal(a, here.model.state_dict()[name]) for name, a in state.items())
    there.take_over(here)
    assert on_gpu(there.optimizers["adam"].state["m"])


def test_mixed_devices_are_refused() -> None:
    x, y = Tensor(np.ones(3, np.float32)), Tensor(move(np.ones(3, np.float32), "cuda"))
    for op in (ops.add, ops.matmul, ops.maximum):
        with pytest.raises(TypeError, match="different devices"):
            op(x, y)
        with pytest.raises(TypeError, match="different devices"):
            op(y, x)


CAPTURED = [name for name in ALL if MODELS[name].cls.not_captured is None]
SMALL = ("vae-mlp", "vae", "realnvp", "maf", "gan2d", "made2d", "made", "rbm", "ddpm2d", "ncsn2d", "glow")


class Steps:
    """A model in training by captured steps."""

    def __init__(self, name: str, rehearsals: int, **options: Any):
        self.run = Training(name, "cuda", **options)
        self.steps = CapturedSteps(self.run.model, self.run.rng, self.run.optimizers, None)
        self.rehearsals = rehearsals

    def __call__(self, seed: int) -> dict[str, float]:
        x, labels = self.run.batch(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(capture, "REHEARSALS", self.rehearsals)
            return self.steps(x, labels)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in CAPTURED])
def test_captured_steps_are_those_that_are_not(name: str) -> None:
    """Terms, parameters, gradients and the generator's place after eight steps, four of them replayed: bit for bit."""
    replayed, launched = Steps(name, capture.REHEARSALS), Steps(name, 100)
    for seed in range(8):
        assert replayed(seed) == launched(seed)
    assert all(len(step.graphs) == 2 for step, _ in replayed.steps.kinds.values())
    for part in ("data", "grad"):
        assert replayed.run.flat(part).tobytes() == launched.run.flat(part).tobytes()
    assert replayed.run.rng.state == launched.run.rng.state
    states = [s.run.model.state_dict() for s in (replayed, launched)]
    assert all(array.tobytes() == states[1][key].tobytes() for key, array in states[0].items())


def test_a_step_of_several_kinds_has_a_graph_of_each() -> None:
    replayed, launched = (Steps("gan2d", n, discriminator_steps=2) for n in (capture.REHEARSALS, 100))
    for seed in range(11):
        assert replayed(seed) == launched(seed)
    assert [len(step.graphs) for step, _ in replayed.steps.kinds.values()] == [2, 2]
    assert replayed.run.optimizers["generator"].steps == 5
    for part in ("data", "grad"):
        assert replayed.run.flat(part).tobytes() == launched.run.flat(part).tobytes()
