"""Optimisers over one flat buffer. Start at `FlatParameters`, then `Adam`.

All parameters of an optimiser lie one after another in one array, and all gradients in another: the Tensors are views. So
a step is one call of one kernel, clipping one pass, a moving average one more, and a checkpoint a few arrays.

    optimizer = Adam(model.parameters(), lr=1e-3)
    optimizer.zero_grad(); loss.backward(); optimizer.step()        gradients that `backward` has added up
    optimizer.step(grad(loss, model.parameters()))                  or those that `grad` returns
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .autograd import Tensor
from .autograd.backend import assign, move
from .autograd.dials import again
from .autograd.kernels import optim as kernels

Schedule = Callable[[int], float]  # step (0, 1, 2, ...) -> learning rate


class FlatParameters:
    """Parameters moved into one buffer.

    parameters: leaf Tensors that require a gradient, of one dtype. Their `.data` and `.grad` become views of `data` and `grad`,
    with the values that they had.
    Raises ValueError for none, for mixed dtypes, for a Tensor that is no such leaf, or one given twice.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        _check_parameters(self.parameters)
        self.data = np.concatenate([p.data.reshape(-1) for p in self.parameters])
        self.grad = np.zeros_like(self.data)
        self.views = self.split(self.data)
        self.grads = [Tensor(grad) for grad in self.split(self.grad)]
        for p, view, grad in zip(self.parameters, self.views, self.grads, strict=True):
            if p.grad is not None:
                grad.data[...] = p.grad.data
            p.data, p.grad = view, grad

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        """Views of a flat array, one in the shape of each parameter."""
        ends = np.cumsum([p.size for p in self.parameters])
        return [flat[end - p.size : end].reshape(p.shape) for p, end in zip(self.parameters, ends, strict=True)]

    def gather(self, gradients: Sequence[Tensor]) -> None:
        """Copy gradients, as `minigen.grad` returns them, into `grad`. Raises ValueError if they do not fit the parameters."""
        unused = [i for i, g in enumerate(gradients) if g is None]
        if unused:
            raise ValueError(f"there is no gradient for parameter {unused[0]}: leave parameters out that the loss does not use")
        shapes, own = [g.shape for g in gradients], [p.shape for p in self.parameters]
        if shapes != own:
            raise ValueError(f"gradients of shapes {shapes} do not fit parameters of shapes {own}, in this order")
        for mine, g in zip(self.grads, gradients, strict=True):
            mine.data[...] = g.data

    def check(self) -> None:
        """Raise RuntimeError, naming the parameter, if one no longer lies in this buffer, or its gradient does not."""
        for i, (p, view, grad) in enumerate(zip(self.parameters, self.views, self.grads, strict=True)):
            if p.data is not view:
                raise RuntimeError(
                    f"parameter {i} of shape {p.shape} has left this optimiser's buffer: another optimiser took it, or its "
                    ".data was replaced; give each parameter one optimiser, and write into p.data[...] instead"
                )
            if p.grad is not grad:
                raise RuntimeError(
                    f"the .grad of parameter {i} of shape {p.shape} was replaced, so this optimiser would not see it: set "
                    "gradients to zero with zero_grad(), and pass others to step(gradients)"
                )

    def written(self) -> None:
        """Note that `data` was changed in place, also by a replay."""
        again(self._mark_written)

    def _mark_written(self) -> None:
        for p in self.parameters:
            p.mark_written()


def _check_parameters(parameters: list[Tensor]) -> None:
    if not parameters:
        raise ValueError("no parameters to optimise: are the layers attributes of the model?")
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError("the same parameter was given twice")
    for i, p in enumerate(parameters):
        if not (p.requires_grad and p.is_leaf):
            raise ValueError(f"parameter {i} of shape {p.shape} is not a leaf that requires a gradient")
    dtypes = {str(p.dtype) for p in parameters}
    if len(dtypes) > 1:
        raise ValueError(f"parameters of different dtypes, {' and '.join(sorted(dtypes))}: use Module.astype first")


class Optimizer:
    """What all optimisers share: the flat buffers, the learning rate, clipping, state.

    lr: a number, or a schedule from the step (0, 1, 2, ...) to one. `steps` counts those taken; a state holds it, so a
    schedule goes on where it was. Gradients are used as they are: see `clip_grad_norm` for a check that they are finite.
    """

    keeps: tuple[str, ...] = ()  # names of the flat arrays in the state of a subclass, which start at 0

    def __init__(self, parameters: Sequence[Tensor], lr: float | Schedule):
        self.lr, self.steps = lr, 0
        _ = self.current_lr  # refuses a wrong one
        self.flat = FlatParameters(parameters)
        self.state = {name: np.zeros_like(self.flat.data) for name in self.keeps}

    @property
    def current_lr(self) -> float:
        """The learning rate of the next step. Raises ValueError if it is negative or not finite."""
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        _require(f"lr at step {self.steps}" if callable(self.lr) else "lr", lr, 0 <= lr < math.inf, "a finite number >= 0")
        return lr

    def zero_grad(self) -> None:
        """Set all gradients to zero; `backward` adds to them."""
        self.flat.grad.fill(0)

    def step(self, gradients: Sequence[Tensor] | None = None) -> None:
        """Update the parameters from their `.grad`, or from `gradients` in the order of the parameters.

        Raises RuntimeError, before anything is changed, if a parameter has left the buffer: see `FlatParameters.check`.
        """
        self.flat.check()
        if gradients is not None:
            self.flat.gather(gradients)
        self.update(again(self._move_on))
        self.flat.written()

    def _move_on(self) -> float:
        """Count one step more. Returns its learning rate."""
        lr = self.current_lr
        self.steps += 1
        return lr

    def update(self, lr: float) -> None:
        """Change `flat.data` and `state` by one step: subclasses say how. Raises TypeError for one that does not."""
        raise TypeError(f"{type(self).__name__} defines no update()")

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale all gradients together so that their global norm is at most max_norm   (Pascanu 2013, alg. 1).

        Returns the norm before. Raises FloatingPointError for a NaN or an infinity among the gradients, and changes
        nothing then: scaled by 1/∞ they would be 0 and NaN, and the parameters NaN from then on.
        """
        _require("max_norm", max_norm, 0 < max_norm < math.inf, "a finite number > 0")
        norm = math.sqrt(kernels.global_norm_sq(self.flat.grad))
        if not math.isfinite(norm):
            bad = next((i for i, g in enumerate(self.flat.grads) if not np.isfinite(g.data).all()), None)
            what = "their squares overflow" if bad is None else f"see parameter {bad} of shape {self.flat.grads[bad].shape}"
            raise FloatingPointError(f"gradients are not finite: {what}; minigen.autograd.observe.anomaly_mode finds the op")
        if norm > max_norm:
            self.flat.grad *= max_norm / norm
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on, apart from the parameters: arrays (flat, like the parameters) and numbers by name."""
        return {"steps": self.steps} | {name: move(array.copy(), "cpu") for name, array in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises ValueError, before anything is changed, if names, sizes or dtypes differ."""
        self.steps = _restore(type(self).__name__, state, self.state)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum μ and weight decay λ   (Sutskever 2013; the form is PyTorch's).

        g ← g + λ θ,   v ← μ v + g,   θ ← θ - lr v          nesterov:  θ ← θ - lr (g + μ v)

    Raises ValueError for a value out of range, and for nesterov without momentum.
    """

    keeps = ("velocity",)

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
        if nesterov and momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0: without it there is nothing to look ahead with")
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov

    def update(self, lr: float) -> None:
        data, g, v = self.flat.data, self.flat.grad, self.state["velocity"]
        kernels.sgd_momentum(data, g, v, lr, self.momentum, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam   (Kingma & Ba 2015, alg. 1), with decoupled weight decay λ   (AdamW: Loshchilov & Hutter 2019, alg. 2).

        m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)
        θ ← θ - lr λ θ - lr m̂ / (√v̂ + eps)                                                            t = 1, 2, ...

    Raises ValueError for a value out of range.
    """

    keeps = ("m", "v")

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
        data, g, m, v = self.flat.data, self.flat.grad, self.state["m"], self.state["v"]
        kernels.adam(data, g, m, v, again(lambda: self.steps), lr, *self.betas, self.eps, self.weight_decay)


def AdamW(parameters: Sequence[Tensor], lr: float | Schedule = 1e-3, weight_decay: float = 1e-2, **options: Any) -> Adam:
    """Adam with decoupled weight decay, at the usual default."""
    return Adam(parameters, lr, weight_decay=weight_decay, **options)


class EMA:
    """An exponential moving average of parameters, with warm-up.

        d_t = min(decay, (1 + t) / (10 + t)),  average ← d_t average + (1 - d_t) θ     t = 0, 1, 2, ...      truth: ema

    The warm-up keeps the random start from lingering: the first averages follow the parameters closely.
    """

    def __init__(self, flat: FlatParameters, decay: float = 0.999):
        _require("decay", decay, 0 <= decay < 1, "in [0, 1)")
        self.flat, self.decay, self.steps = flat, decay, 0
        self.average = flat.data.copy()

    def update(self) -> None:
        """Take in the parameters as they are now: call it after each optimiser step."""
        kernels.ema(self.average, self.flat.data, again(self._move_on))

    def _move_on(self) -> float:
        """Count one update more. Returns its decay."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        return decay

    @contextmanager
    def applied(self) -> Iterator[None]:
        """`with ema.applied():` the model has the averaged parameters; afterwards its own again, bit for bit."""
        own = self.flat.data.copy()
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, data: np.ndarray) -> None:
        self.flat.check()
        self.flat.data[...] = data
        self.flat.written()

    def state_dict(self) -> dict[str, Any]:
        """The average, flat like the parameters, and the number of updates so far."""
        return {"steps": self.steps, "average": move(self.average.copy(), "cpu")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises ValueError, before anything is changed, if names, sizes or dtypes differ."""
        self.steps = _restore("EMA", state, {"average": self.average})


def _restore(owner: str, state: Mapping[str, Any], own: dict[str, np.ndarray]) -> int:
    """Copy the arrays of a state into one's own. Returns its steps."""
    if set(state) != {"steps", *own}:
        raise ValueError(f"state of {owner} needs {', '.join(['steps', *own])}; got {', '.join(sorted(state)) or 'nothing'}")
    for name, array in own.items():
        given = state[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise ValueError(f"state of {owner}: {name} is {array.dtype}{array.shape}, given {given.dtype}{given.shape}")
    for name, array in own.items():
        assign(array, state[name])
    return int(state["steps"])


# ---- schedules: functions from the step to the learning rate, to pass as `lr`


def constant(lr: float, warmup: int = 0) -> Schedule:
    """Linear from lr/warmup at step 0 to lr at step warmup - 1, then constant."""
    return _schedule(lr, warmup, lambda step: 1.0)


def inverse_sqrt(lr: float, warmup: int) -> Schedule:
    """After the warm-up, lr √(warmup / (step + 1)): falls for ever, and need not know for how long   (Vaswani 2017, eq. 3)."""
    _require("warmup", warmup, warmup >= 1, "a whole number >= 1")
    return _schedule(lr, warmup, lambda step: math.sqrt(warmup / (step + 1)))


def linear(lr: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """After the warm-up, a straight line from lr down to floor·lr at `steps`."""
    progress = _progress(steps, warmup, floor)
    return _schedule(lr, warmup, lambda step: 1 - (1 - floor) * progress(step))


def cosine(lr: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """After the warm-up, half a cosine from lr down to floor·lr at `steps`   (Loshchilov & Hutter 2017, eq. 5)."""
    progress = _progress(steps, warmup, floor)
    return _schedule(lr, warmup, lambda step: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress(step))))


def _schedule(lr: float, warmup: int, decay: Callable[[int], float]) -> Schedule:
    """lr times a linear warm-up, then times `decay` of the step."""
    _require("lr", lr, 0 <= lr < math.inf, "a finite number >= 0")
    _require("warmup", warmup, warmup >= 0, "a whole number >= 0")
    return lambda step: lr * ((step + 1) / warmup if step < warmup else decay(step))


def _progress(steps: int, warmup: int, floor: float) -> Callable[[int], float]:
    """How much of the way from the end of the warm-up to `steps` is done: 0 to 1, and 1 from then on."""
    _require("steps", steps, steps > warmup, f"more than warmup={warmup}")
    _require("floor", floor, 0 <= floor <= 1, "in [0, 1]")
    return lambda step: min(1.0, (step - warmup) / (steps - warmup))


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds:  # a NaN never holds
        raise ValueError(f"{name} must be {what}, not {value}")
