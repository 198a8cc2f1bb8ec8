"""Softmax on the GPU: launches of cuda.cu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cuda import Source, contiguous, result, team

Array = Any

source = Source(__file__)


def _kernel(name: str) -> Callable[..., Array]:
    """The function `name(*arrays, out=None)` of arrays (rows, n), with a result like them."""

    def run(*arrays: Array, out: Array | None = None) -> Array:
        first = arrays[0]
        out = result(out, first.shape, first.dtype)
        source.launch(f"{name}_kernel", first.dtype, *team(*first.shape), *first.shape, *contiguous(*arrays), out)
        return out

    run.__name__ = run.__qualname__ = name
    return run


softmax = _kernel("softmax")  # x
softmax_vjp = _kernel("softmax_vjp")  # g, p
log_softmax = _kernel("log_softmax")  # x
log_softmax_vjp = _kernel("log_softmax_vjp")  # g, log_p
