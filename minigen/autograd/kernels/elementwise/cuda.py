"""Elementwise kernels on the GPU: launches of cuda.cu. Start at `_kernel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cuda import THREADS, Source, contiguous, grid, result

source = Source(__file__)


def _kernel(name: str, arrays: int = 1) -> Callable[..., Any]:
    """The function `name(*arrays, *scalars, out=None)`: arrays of one shape and dtype, the result like them."""

    def run(*args: Any, out: Any = None) -> Any:
        first = args[0]
        for other in args[1:arrays]:
            if other.shape != first.shape or other.dtype != first.dtype:
                raise ValueError(f"{name}: {other.dtype}{other.shape} is not like {first.dtype}{first.shape}")
        out = result(out, first.shape, first.dtype)
        scalars = (float(s) for s in args[arrays:])
        source.launch(
            f"{name}_kernel", first.dtype, grid(out.size), THREADS, out.size, *contiguous(*args[:arrays]), *scalars, out
        )
        return out

    run.__name__ = run.__qualname__ = name
    return run


exp = _kernel("exp")
expm1 = _kernel("expm1")
log = _kernel("log")
log1p = _kernel("log1p")
tanh = _kernel("tanh")
sigmoid = _kernel("sigmoid")
erf = _kernel("erf")
relu = _kernel("relu")
silu = _kernel("silu")
gelu = _kernel("gelu")
gelu_tanh = _kernel("gelu_tanh")
softplus = _kernel("softplus")  # x, beta
leaky_relu = _kernel("leaky_relu")  # x, slope
elu = _kernel("elu")  # x, alpha

chain = _kernel("chain", arrays=2)  # g, d
chain_divide = _kernel("chain_divide", arrays=2)
tanh_vjp = _kernel("tanh_vjp", arrays=2)  # g, y
sigmoid_vjp = _kernel("sigmoid_vjp", arrays=2)
relu_vjp = _kernel("relu_vjp", arrays=2)
leaky_relu_vjp = _kernel("leaky_relu_vjp", arrays=2)  # g, y, slope
elu_vjp = _kernel("elu_vjp", arrays=2)  # g, y, alpha
erf_vjp = _kernel("erf_vjp", arrays=2)  # g, x
silu_vjp = _kernel("silu_vjp", arrays=2)
gelu_vjp = _kernel("gelu_vjp", arrays=2)
gelu_tanh_vjp = _kernel("gelu_tanh_vjp", arrays=2)
softplus_vjp = _kernel("softplus_vjp", arrays=2)  # g, x, beta
