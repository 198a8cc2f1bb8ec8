"""minigen: deep generative models on a from-scratch engine.

    Tensor, grad, no_grad      the engine                    minigen.autograd
    ops                        every differentiable op       minigen.autograd.ops
    gradcheck                  proof that a gradient is right, to second order
    record, anomaly_mode, draw_svg, draw_graph               what is on the tape; who made the first NaN
    set_backend                "numba", or "numpy" to step through every kernel in a debugger
    nn, optim, random, models, data                          layers, optimisers, random numbers, models, data sets
"""

from . import data, models, nn, optim, random
from .autograd import Tensor, enable_grad, get_backend, grad, no_grad, ops, set_backend
from .autograd.gradcheck import gradcheck
from .autograd.observe import anomaly_mode, draw_graph, draw_svg, record

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "anomaly_mode",
    "data",
    "draw_graph",
    "draw_svg",
    "enable_grad",
    "get_backend",
    "grad",
    "gradcheck",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "random",
    "record",
    "set_backend",
]
