"""Optimisers over one flat buffer. Start at `FlatParameters`, then `Adam.step`.

All parameters of an optimiser lie one after another in one array, and all gradients in another: the Tensors are views. So
a step is one call of one kernel, clipping one pass, a moving average one more, and a checkpoint three arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .autograd import Tensor
from .autograd.kernels import optim as kernels

Schedule = Callable[[int], float]  # step (0, 1, 2, ...) -> learning rate


class FlatParameters:
    """Parameters moved into one buffer.

    parameters: leaf Tensors that require a gradient, of one dtype. Their `.data` and `.grad` become views of `data` and `grad`.
    Raises ValueError for none, for mixed dtypes, for a Tensor that is no such leaf, or one given twice.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("no parameters to optimise: are the layers attributes of the model?")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError("the same parameter was given twice")
        for i, p in enumerate(self.parameters):
            if not (p.requires_grad and p.is_leaf):
                raise ValueError(f"parameter {i} of shape {p.shape} is not a leaf that requires a gradient")
        dtypes = {p.dtype for p in self.parameters}
        if len(dtypes) > 1:
            raise ValueError(f"parameters of different dtypes {sorted(map(str, dtypes))} cannot share an optimiser")
        self.data = np.concatenate([p.data.reshape(-1) for p in self.parameters])
        self.grad = np.zeros_like(self.data)
        self.views = self.split(self.data)
        for p, view, grad in zip(self.parameters, self.views, self.split(self.grad), strict=True):
            p.data = view
            p.grad = Tensor(grad)

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """Views of a flat array, one in the shape of each parameter."""
        ends = np.cumsum([p.size for p in self.parameters])
        return [flat[end - p.size : end].reshape(p.shape) for p, end in zip(self.parameters, ends, strict=True)]

    def gather(self, gradients: Sequence[Tensor]) -> None:
        """Copy gradients, as `minigen.grad` returns them, into the flat one."""
        for p, g in zip(self.parameters, gradients, strict=True):
            p.grad.data[...] = g.data  # type: ignore[union-attr]

    def written(self) -> None:
        """Note that `data` was changed in place. Raises RuntimeError if a parameter has since left the buffer."""
        for p, view in zip(self.parameters, self.views, strict=True):
            if p.data is not view:
                raise RuntimeError(
                    f"a parameter of shape {p.shape} no longer lies in this optimiser's buffer: its .data was replaced, or "
                    "another optimiser took it; write into p.data[...] instead, and give each parameter one optimiser"
                )
            p.mark_written()


class Optimizer:
    """What all optimisers share: the flat buffers, the learning rate, clipping, state."""

    buffers: tuple[str, ...] = ()  # names of the flat arrays that a subclass keeps

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule):
        if not callable(lr):
            _require("lr", lr, 0 <= lr < math.inf, "a finite number >= 0")
        self.flat = FlatParameters(parameters)
        self.lr = lr
        self.steps = 0
        for name in self.buffers:
            setattr(self, name, np.zeros_like(self.flat.data))

    @property
    def current_lr(self) -> float:
        """The learning rate of the next step."""
        return self.lr(self.steps) if callable(self.lr) else self.lr

    def zero_grad(self) -> None:
        """Set all gradients to zero; `backward` adds to them."""
        self.flat.grad.fill(0)

    def step(self, gradients: Sequence[Tensor] | None = None) -> None:
        """Update the parameters from their `.grad`, or from `gradients` in the order of the parameters."""
        if gradients is not None:
            self.flat.gather(gradients)
        lr = self.current_lr
        self.steps += 1
        self.update(lr)
        self.flat.written()

    def update(self, lr: float) -> None:
        raise TypeError(f"{type(self).__name__} defines no update()")

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale all gradients so that their global norm is at most max_norm. Returns the norm before."""
        _require("max_norm", max_norm, max_norm > 0, "a number > 0")
        norm = math.sqrt(kernels.global_norm_sq(self.flat.grad))
        if norm > max_norm:
            self.flat.grad *= max_norm / norm
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps} | {name: getattr(self, name).copy() for name in self.buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises ValueError if names or sizes differ."""
        if set(state) != {"steps", *self.buffers}:
            raise ValueError(f"state of {type(self).__name__} needs steps, {', '.join(self.buffers)}; got {sorted(state)}")
        for name in self.buffers:
            own = getattr(self, name)
            if state[name].shape != own.shape or state[name].dtype != own.dtype:
                raise ValueError(
                    f"state of {type(self).__name__}: {name} is {own.dtype}{own.shape}, "
                    f"given {state[name].dtype}{state[name].shape}"
                )
        self.steps = int(state["steps"])
        for name in self.buffers:
            getattr(self, name)[...] = state[name]


class SGD(Optimizer):
    """Gradient descent with momentum.     v ← μ v + g,  θ ← θ - lr v   (with nesterov: θ ← θ - lr (g + μ v))"""

    buffers = ("velocity",)

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: float | Schedule,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        _require("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "a finite number >= 0")
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov

    def update(self, lr: float) -> None:
        flat = self.flat
        kernels.sgd_momentum(
            flat.data, flat.grad, self.velocity, lr, self.momentum, self.weight_decay, self.nesterov  # type: ignore[attr-defined]
        )


class Adam(Optimizer):
    """Adam   (Kingma & Ba 2015, alg. 1).     θ ← θ - lr m̂ / (√v̂ + eps)

    weight_decay > 0 is decoupled, θ ← θ - lr λ θ, which makes it AdamW   (Loshchilov & Hutter 2019, alg. 2).
    """

    buffers = ("m", "v")

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        for i, beta in enumerate(betas):
            _require(f"betas[{i}]", beta, 0 <= beta < 1, "in [0, 1)")
        _require("eps", eps, 0 < eps < math.inf, "a finite number > 0")
        _require("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "a finite number >= 0")
        super().__init__(parameters, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, lr: float) -> None:
        flat, (beta1, beta2) = self.flat, self.betas
        kernels.adam(
            flat.data, flat.grad, self.m, self.v, self.steps, lr, beta1, beta2, self.eps, self.weight_decay  # type: ignore[attr-defined]
        )


def AdamW(
    parameters: Sequence[Tensor], lr: float | Schedule = 1e-3, weight_decay: float = 1e-2, **options: Any
) -> Adam:
    """Adam with decoupled weight decay, at the usual default."""
    return Adam(parameters, lr, weight_decay=weight_decay, **options)


class EMA:
    """An exponential moving average of parameters, with warm-up.

        d_t = min(decay, (1 + t) / (10 + t)),  average ← d_t average + (1 - d_t) θ     t = 0, 1, 2, ...

    The warm-up keeps the random start from lingering: the first averages follow the parameters closely.
    """

    def __init__(self, flat: FlatParameters, decay: float = 0.999):
        _require("decay", decay, 0 <= decay < 1, "in [0, 1)")
        self.flat, self.decay, self.steps = flat, decay, 0
        self.average = flat.data.copy()

    def update(self) -> None:
        """Take in the parameters as they are now: call it after each optimiser step."""
        kernels.ema(self.average, self.flat.data, min(self.decay, (1 + self.steps) / (10 + self.steps)))
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """`with ema.applied():` the model has the averaged parameters; afterwards its own again, bit for bit."""
        own = self.flat.data.copy()
        self.flat.data[...] = self.average
        self.flat.written()
        try:
            yield
        finally:
            self.flat.data[...] = own
            self.flat.written()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self.average.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises ValueError if the size differs."""
        if state["average"].shape != self.average.shape:
            raise ValueError(f"EMA state has {state['average'].size} numbers, the model has {self.average.size}")
        self.steps = int(state["steps"])
        self.average[...] = state["average"]


# ---- schedules: functions from the step to the learning rate, to pass as `lr`


def constant_with_warmup(lr: float, warmup: int) -> Schedule:
    """Linear from lr/warmup at step 0 to lr at step warmup - 1, then constant."""
    return lambda step: lr * min(1.0, (step + 1) / max(warmup, 1))


def cosine(lr: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """After the warm-up, half a cosine from lr down to floor·lr at `steps`   (Loshchilov & Hutter 2017, eq. 5)."""
    _require("steps", steps, steps > warmup, f"more than warmup={warmup}")

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (steps - warmup))
        return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    return schedule


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds:  # a NaN never holds
        raise ValueError(f"{name} must be {what}, not {value}")
