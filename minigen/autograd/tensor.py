"""Tensor: an array, the node that made it, and a version. Its operators and methods each name an op, nothing else.

data      the raw array (NumPy, or CuPy on a GPU)
node      how it was computed (tape.Node), a tape.Leaf if the user asked for its gradient, or None
version   a one-element list with the number of the last in-place write, shared by all views of the same memory
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import tape
from .tape import OPS, Leaf, Node, device_of

Axis = int | tuple[int, ...] | None


class Tensor:
    """An array that remembers how it was computed.

    data: a number, a nested list or an array. Python floats become float32, arrays keep their dtype.
    requires_grad: make it a leaf, whose gradient `grad` and `backward` give. TypeError unless the dtype is float32 or float64.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.], dtype=float32)
    """

    __slots__ = ("data", "node", "version")

    __array_ufunc__ = None  # numpy_array * tensor comes to Tensor.__rmul__ instead of being taken apart by NumPy

    data: Any
    node: Node | None
    version: list[int]

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None):
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data): data is a Tensor already; use .detach() for one without history")
        if dtype is None and not hasattr(data, "dtype"):
            data = np.asarray(data)
            dtype = np.float32 if data.dtype == np.float64 else data.dtype
        self.data = data if device_of(data) != "cpu" else np.asarray(data, dtype)
        if self.data.dtype == object:
            raise TypeError(f"Tensor(data): cannot make an array of numbers from {type(data).__name__}")
        self.node = None
        self.version = [0]
        if requires_grad:
            self.requires_grad = True

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The size along each axis: () for a single number."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers: float32 or float64 where it has a gradient."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.data.size

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return device_of(self.data)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a Tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Its parts along the first axis. Raises TypeError without dimensions."""
        if not self.shape:
            raise TypeError("iteration over a Tensor without dimensions; its value is .item()")
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = repr(self.data).replace("array(", "Tensor(").replace("\n      ", "\n       ")
        return text if self.node is None else f"{text[:-1]}, {'leaf' if self.is_leaf else 'from ' + self.node.op.name})"

    # ---- gradients

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it. Setting it to True makes a leaf; only leaves can be set."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None and self.node.op is not None:
            raise ValueError(f"requires_grad of the result of {self.node.op.name} cannot be set; use .detach()")
        if value and self.data.dtype.char not in "fd":
            raise TypeError(f"only float32 and float64 Tensors have gradients, this one is {self.dtype}: convert with .astype")
        if value and self.node is None:
            self.node = Leaf(self.data.shape, self.data.dtype)
        elif not value:
            self.node = None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, and not by an op that was recorded."""
        return self.node is None or self.node.op is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has added up, for a leaf; None before. Never part of a graph."""
        return self.node.grad if type(self.node) is Leaf else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if type(self.node) is not Leaf:
            raise ValueError("only leaves that require a gradient have .grad; for others use grad(outputs, inputs)")
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise ValueError(f".grad must be {self.dtype}{self.shape} like the Tensor, not {value.dtype}{value.shape}")
        self.node.grad = value if value is None or value.node is None else value.detach()

    def backward(self, grad_output: Any = None) -> None:
        """Add the gradient of this Tensor with respect to every leaf into the leaf's `.grad`. See `minigen.grad`."""
        tape.run_backward(self, grad_output)

    def detach(self) -> Tensor:
        """The same memory without history. An in-place write to one is known to the other."""
        return tape.wrap(self.data, None, self.version)

    # ---- in and out

    def item(self) -> float | int | bool:
        """The value of a one-element Tensor as a Python number."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The raw array, for a Tensor without history on the CPU. Raises for others, with the way out."""
        if self.node is not None:
            raise TypeError("numpy() would lose the gradient: say so with .detach().numpy()")
        if self.device != "cpu":
            raise TypeError("numpy() of a Tensor on the GPU: copy it to the CPU with .to('cpu') first")
        return self.data

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("NumPy was given a Tensor and would lose its gradient; use minigen.ops, or .detach().numpy()")

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write in place. Under no_grad for leaves; what backward still needs will then be an error, naming the op."""
        if self.node is not None and tape.is_recording():
            what = "a leaf that requires a gradient" if self.is_leaf else f"the result of {self.node.op.name}"
            raise ValueError(f"cannot write in place into {what} while recording; use `with no_grad():`, or where()")
        if isinstance(value, Tensor) and value.node is not None and tape.is_recording():
            raise ValueError("writing in place would lose the gradient of what is written: .detach() it, or use where()")
        self.data[_raw(index)] = value.data if isinstance(value, Tensor) else value
        self.mark_written()

    def mark_written(self) -> None:
        """Note that `.data` was changed in place, by an optimiser for instance."""
        self.version[0] = tape.last_write = tape.next_number()

    # ---- operators

    def __neg__(self) -> Tensor:
        return OPS["negative"].of_one(self)

    def __add__(self, other: Any) -> Tensor:
        return OPS["add"].of_two(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return OPS["add"].of_two(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return OPS["subtract"].of_two(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return OPS["subtract"].of_two(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return OPS["multiply"].of_two(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return OPS["multiply"].of_two(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return OPS["divide"].of_two(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return OPS["divide"].of_two(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return OPS["pow"].of_two(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return OPS["pow"].of_two(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return OPS["matmul"].of_two(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return OPS["matmul"].of_two(other, self)

    def __abs__(self) -> Tensor:
        return OPS["abs"].of_one(self)

    def __getitem__(self, index: Any) -> Tensor:
        return OPS["getitem"](self, _fixed(index))

    # Comparisons give plain boolean arrays: they carry no gradient.

    def __lt__(self, other: Any) -> Any:
        return self.data < _raw(other)

    def __le__(self, other: Any) -> Any:
        return self.data <= _raw(other)

    def __gt__(self, other: Any) -> Any:
        return self.data > _raw(other)

    def __ge__(self, other: Any) -> Any:
        return self.data >= _raw(other)

    def __eq__(self, other: Any) -> Any:
        return self.data == _raw(other)

    def __ne__(self, other: Any) -> Any:
        return self.data != _raw(other)

    __hash__ = object.__hash__

    # ---- methods

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return OPS["permute_dims"](self, axes=(*range(self.ndim - 2), self.ndim - 1, self.ndim - 2))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Σ over `axis`, all axes for None; with keepdims axes of size 1 stay behind. See `ops.sum`."""
        return OPS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over `axis`, all axes for None; NaN for no elements. See `ops.mean`."""
        return OPS["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The largest element along `axis`; ties share the gradient evenly. ValueError for no elements. See `ops.max`."""
        return OPS["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The smallest element along `axis`; ties share the gradient evenly. ValueError for no elements. See `ops.min`."""
        return OPS["min"](self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same numbers in another shape, a tuple or sizes one by one; -1 is what is left. ValueError if they do not fit."""
        return OPS["reshape"](self, shape=shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def astype(self, dtype: Any) -> Tensor:
        """A copy with another dtype, through which gradients flow: the gradient has this one's dtype. See `ops.astype`."""
        return OPS["astype"](self, dtype=dtype)

    def to(self, device: str) -> Tensor:
        """A copy on `device` ("cpu" or "cuda"); the Tensor itself if it is there already."""
        return self if device == self.device else OPS["to_device"](self, device=device)


def _fixed(index: Any) -> Any:
    """An index without Tensors in it: copies of them, since backward needs it as it is now."""
    if isinstance(index, tuple):
        return tuple(_fixed(i) for i in index)
    return index.data.copy() if isinstance(index, Tensor) else index


def _raw(value: Any) -> Any:
    """A Tensor's array (also inside an index tuple), anything else unchanged."""
    if isinstance(value, tuple):
        return tuple(_raw(v) for v in value)
    return value.data if isinstance(value, Tensor) else value


tape.register_tensor(Tensor)
