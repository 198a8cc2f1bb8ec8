"""minigen: deep generative models on a from-scratch engine."""

from .autograd import Tensor, enable_grad, get_backend, grad, no_grad, ops, set_backend

__version__ = "0.1.0"

__all__ = ["Tensor", "__version__", "enable_grad", "get_backend", "grad", "no_grad", "ops", "set_backend"]
