"""All ops. Array functions have the names and arguments of the Python array API standard, network functions those of
torch.nn.functional, except that images are channels-last. Each file is one theme; start at elementwise.py.
"""

from .device import to_device
from .elementwise import add, astype, multiply, negative, subtract, tanh
from .reduction import sum
from .shape import broadcast_to, reshape

__all__ = ["add", "astype", "broadcast_to", "multiply", "negative", "reshape", "subtract", "sum", "tanh", "to_device"]
