"""Updates of flat buffers, in place and in one pass: Adam(W), SGD with momentum, EMA; a Langevin step, a gradient norm.

    adam(param, grad, m, v, step, lr, beta1, beta2, eps, weight_decay)             writes param, m, v
    sgd_momentum(param, grad, velocity, lr, momentum, weight_decay, nesterov)      writes param, velocity
    ema(average, param, decay)                                                     writes average
    langevin_step(x, grad, noise, step, temperature, out=None)                     returns the next x
    global_norm_sq(grad)                                                           returns a float

All parameters of a model are views of one flat buffer, so one call updates them all. Arrays are 1-D, of one shape and
dtype, float32 or float64 (those of `langevin_step` of any shape). `reference.py` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd.backend import Card, Kernel

__all__ = ["adam", "ema", "global_norm_sq", "langevin_step", "sgd_momentum"]

SIZES = (0, 1, 2, 3, 7, 33, 1025)


def _elementwise(flops: int, moves: int, scale: Any, arguments: Any, writes: tuple[int, ...], ulp: float) -> Card:
    """A card of an elementwise update whose first argument has the common shape.

    flops, moves: operations, and arrays read or written, per element.
    arguments(draw, positive) -> the arguments, made by two functions that return arrays of the case's size and dtype.
    """

    def cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
        def calls(n: int) -> list[tuple]:
            return arguments(lambda: rng.standard_normal(n, dtype), lambda: rng.random(n, dtype))

        return [(args, {}) for n in SIZES for args in calls(n)]

    return Card(
        cases=cases,
        flops=lambda *args, **kwargs: flops * args[0].size,
        bytes=lambda *args, **kwargs: moves * args[0].nbytes,
        ulp=ulp,
        scale=scale,
        writes=writes,
        note="Elementwise, no contraction: the same bits as the reference in the same dtype.",
    )


def _adam_scale(param: Any, grad: Any, m: Any, v: Any, *scalars: Any) -> Any:
    """Magnitudes of the terms whose sums are param, m and v."""
    step, lr, beta1, beta2, eps, _ = scalars
    new_m = beta1 * abs(m) + (1 - beta1) * abs(grad)
    new_v = beta2 * v + (1 - beta2) * grad**2
    denominator = np.sqrt(new_v / (1 - beta2**step)) + eps
    return abs(param) + lr / (1 - beta1**step) * new_m / denominator, new_m, new_v


def _sgd_scale(param: Any, grad: Any, velocity: Any, lr: Any, momentum: Any, decay: Any, nesterov: Any) -> Any:
    g = abs(grad) + decay * abs(param)
    new_velocity = momentum * abs(velocity) + g
    return abs(param) + lr * (new_velocity + g), new_velocity


adam = Kernel(
    "adam",
    __name__,
    _elementwise(
        flops=15,
        moves=7,
        scale=_adam_scale,
        arguments=lambda draw, positive: [
            (draw(), draw(), draw(), positive(), 1, 1e-3, 0.9, 0.999, 1e-8, 0.0),
            (draw(), draw(), draw(), positive(), 1000, 2e-4, 0.5, 0.999, 1e-8, 0.01),
        ],
        writes=(0, 2, 3),
        ulp=3,
    ),
)

sgd_momentum = Kernel(
    "sgd_momentum",
    __name__,
    _elementwise(
        flops=6,
        moves=5,
        scale=_sgd_scale,
        arguments=lambda draw, positive: [
            (draw(), draw(), draw(), 0.1, 0.9, 1e-2, False),
            (draw(), draw(), draw(), 0.1, 0.9, 0.0, True),
        ],
        writes=(0, 2),
        ulp=2,
    ),
)

ema = Kernel(
    "ema",
    __name__,
    _elementwise(
        flops=3,
        moves=3,
        scale=lambda average, param, decay: abs(average) + abs(param),
        arguments=lambda draw, positive: [(draw(), draw(), 0.999), (draw(), draw(), 0.0)],
        writes=(0,),
        ulp=2,
    ),
)

langevin_step = Kernel(
    "langevin_step",
    __name__,
    _elementwise(
        flops=4,
        moves=4,
        scale=lambda x, grad, noise, step, temperature, out=None: (
            abs(x) + step * abs(grad) + (2 * step * temperature) ** 0.5 * abs(noise)
        ),
        arguments=lambda draw, positive: [(draw(), draw(), draw(), 0.01, 1.0), (draw(), draw(), draw(), 0.5, 0.0)],
        writes=(),
        ulp=2,
    ),
)

global_norm_sq = Kernel(
    "global_norm_sq",
    __name__,
    Card(
        cases=lambda rng, dtype: [
            ((rng.standard_normal(n).astype(dtype),), {}) for n in (*SIZES, 4095, 4096, 4097, 3 * 4096 + 5)
        ],
        flops=lambda grad: 2 * grad.size,
        bytes=lambda grad: grad.nbytes,
        ulp=1,
        note="Returns a float: squares and sums are float64, in chunks of 4096 folded in halves, in fixed order.",
    ),
)
