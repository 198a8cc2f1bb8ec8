"""For tests of single ops: their value and gradients as plain arrays, on a backend and in a dtype of choice."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, set_backend

EVERYWHERE = [
    pytest.mark.parametrize("backend", ["numpy", "numba"]),
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
]


def everywhere(test: Callable) -> Callable:
    """Decorator: run a test on both backends and in both dtypes."""
    for mark in EVERYWHERE:
        test = mark(test)
    return test


def value_and_gradients(
    function: Callable, *inputs: Any, backend: str = "numba", dtype: type = np.float64, g: Any = None, order: int = 1
) -> list[np.ndarray]:
    """The value at `inputs`, then the gradient of each of them contracted with g (ones if None).

    order 2: the gradients of the sum of the first input's gradient instead.
    """
    with set_backend(backend):
        tensors = [Tensor(np.array(x, dtype), requires_grad=True) for x in inputs]
        y = function(*tensors)
        g = np.ones(y.shape, dtype) if g is None else np.array(g, dtype)
        gradients: Sequence = grad(y, tensors, g, create_graph=order == 2)
        if order == 2:
            gradients = grad(gradients[0].sum(), tensors)
    assert all(d.dtype == dtype for d in gradients)
    return [y.data, *(d.data for d in gradients)]


def values(function: Callable, *inputs: Any, **options: Any) -> list:
    """The same as nested lists, to compare with ==."""
    return [a.tolist() for a in value_and_gradients(function, *inputs, **options)]
