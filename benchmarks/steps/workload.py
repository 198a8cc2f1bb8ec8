"""What a workload is, and how its parameters start. Start at `Workload`; workloads.py has them all."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]
Flat = dict[str, tuple[str, tuple[int, int, int]]]


class Draw:
    """Initial parameters as PyTorch draws them: uniform in ±1/√fan_in, weights and biases alike."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.made: Arrays = {}

    def uniform(self, name: str, shape: tuple[int, ...], fan_in: int) -> None:
        bound = 1 / math.sqrt(fan_in)
        self.made[name] = self.rng.uniform(-bound, bound, shape).astype(np.float32)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.uniform(f"{name}.w", (outputs, inputs), inputs)
        self.uniform(f"{name}.b", (outputs,), inputs)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        fan_in = inputs * kernel * kernel
        self.uniform(f"{name}.w", (outputs, inputs, kernel, kernel), fan_in)
        if bias:
            self.uniform(f"{name}.b", (outputs,), fan_in)

    def transposed(self, name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        fan_in = outputs * kernel * kernel
        self.uniform(f"{name}.t", (inputs, outputs, kernel, kernel), fan_in)
        if bias:
            self.uniform(f"{name}.b", (outputs,), fan_in)

    def norm(self, name: str, channels: int) -> None:
        self.made[f"{name}.w"] = np.ones(channels, np.float32)
        self.made[f"{name}.b"] = np.zeros(channels, np.float32)


class Workload:
    """One network with its training step."""

    name: str
    batch: int
    parameters: int  # numbers in all of its arrays
    gflop: float  # nominal, of one step
    lr = 1e-3
    betas = (0.9, 0.999)
    trained = ""  # prefix of the parameters that the step trains
    clip: float | None = None  # global norm that gradients are scaled down to
    flat: ClassVar[Flat] = {}  # weight beside a flattened image -> (its side, (C, H, W))
    samples = False  # whether the step draws samples, and trains nothing

    def weights(self, draw: Draw) -> None:
        raise TypeError(f"{self.name} defines no weights")

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": rng.random((self.batch, 1, 28, 28), np.float32)}

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        raise TypeError(f"{self.name} defines no loss")

    def step(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        """One step: returns the loss, or what shows that the same was computed."""
        return lib.update("adam", lambda p: self.loss(lib, p, data, noise), p)
