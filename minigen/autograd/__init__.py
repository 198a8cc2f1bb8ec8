"""The engine: Tensor, the tape, gradients of any order, ops, kernels. Start at tape.py, then grad.py."""

from . import ops
from .backend import get_backend, set_backend
from .grad import grad
from .tape import enable_grad, no_grad
from .tensor import Tensor

__all__ = ["Tensor", "enable_grad", "get_backend", "grad", "no_grad", "ops", "set_backend"]
