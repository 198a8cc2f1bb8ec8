"""Module: a thing with parameters. Start at `Module.named_parameters`.

    parameter   a Tensor that requires a gradient (a leaf; a result that a module remembers is not one)
    buffer      a Tensor that does not: running statistics
    generator   a random Generator, whose position is part of the state, so that a resumed run drops the same units

They are found wherever they stand: in attributes, in modules within modules, and in lists, tuples and dicts of those.
Nothing has to be registered, so nothing can be forgotten. A name says where a thing stands: "encoder.layers.0.weight".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.backend import assign, move
from ..random import ALGORITHM, Generator


class Module:
    """Base class of layers and models. A subclass sets attributes in __init__ and computes in `forward`."""

    training = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes when it is called: subclasses say. Raises TypeError for one that has not been told."""
        raise TypeError(f"{type(self).__name__} has no forward(): define it, or call the method you mean")

    # ---- what it holds

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of every parameter, depth first in the order of definition, shared ones once."""
        return ((name, t) for name, t in self.named_tensors() if t.requires_grad)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of every parameter and buffer."""
        return ((name, leaf) for name, leaf in _leaves(self) if isinstance(leaf, Tensor))

    def named_generators(self) -> Iterator[tuple[str, Generator]]:
        """(name, Generator) of every generator that the module holds: they are part of its state."""
        return ((name, leaf) for name, leaf in _leaves(self) if isinstance(leaf, Generator))

    def parameters(self) -> list[Tensor]:
        """The Tensors of `named_parameters`, in its order."""
        return [t for _, t in self.named_parameters()]

    def modules(self) -> Iterator[Module]:
        """This module and all modules inside it."""
        yield self
        yield from (leaf for _, leaf in _leaves(self) if isinstance(leaf, Module))

    def num_parameters(self) -> int:
        """How many numbers there are to learn."""
        return sum(p.size for p in self.parameters())

    # ---- modes

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all inside it to training mode: batch statistics, dropout."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to evaluation: running statistics, no dropout."""
        return self.train(False)

    def astype(self, dtype: Any) -> Module:
        """Convert all floating-point parameters and buffers, in this module, to "float32" or "float64".

        Do it before making an optimiser: parameters leave the buffer that an earlier one keeps them in.
        """
        for _, t in self.named_tensors():
            if t.dtype.kind == "f":
                is_parameter, t.requires_grad = t.requires_grad, False
                t.data = t.data.astype(dtype)
                t.requires_grad = is_parameter
        return self

    def to(self, device: str) -> Module:
        """Move all parameters and buffers, in this module, to "cpu" or "cuda", and have its generators draw there.

        Do it before making an optimiser, as with `astype`. Raises DeviceError if there is no usable GPU.
        """
        for _, t in self.named_tensors():
            if t.device != device:
                is_parameter, t.requires_grad = t.requires_grad, False
                t.data = move(t.data, device)
                t.requires_grad = is_parameter
        for _, generator in self.named_generators():
            generator.device = device
        return self

    # ---- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, and the positions of all generators, by name; on the CPU."""
        generators = {name: _position(g) for name, g in self.named_generators()}
        return {name: np.array(move(t.data, "cpu")) for name, t in self.named_tensors()} | generators

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy a state into this module, in place.

        Raises ValueError, before anything is changed, naming missing and unexpected names, or the first array whose shape
        or dtype differs.
        """
        own = self.state_dict()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(f"state does not fit {type(self).__name__}: missing {missing}, unexpected {unexpected}")
        for name, array in own.items():
            given = state[name]
            if not hasattr(given, "dtype"):
                raise ValueError(f"state does not fit {type(self).__name__}: {name} is a {type(given).__name__}, not an array")
            if given.shape != array.shape or given.dtype != array.dtype:
                what = f"{name} is {array.dtype}{array.shape} here, and {given.dtype}{given.shape} in the state"
                raise ValueError(f"state does not fit {type(self).__name__}: {what}")
        generators = [(g, _at_position(name, state[name])) for name, g in self.named_generators()]
        for name, t in self.named_tensors():
            assign(t.data, state[name])
            t.mark_written()
        for generator, position in generators:
            generator.state = position

    # ---- how it looks

    def __repr__(self) -> str:
        """The tree of modules, with the shapes of the parameters and buffers that stand in each."""
        own = [f"{name} {value.shape}" for name, value in vars(self).items() if isinstance(value, Tensor)]
        head = f"{type(self).__name__}({self.extra_repr()})" + ("  " if own else "") + ", ".join(own)
        inside = [f"{path}: {part!r}" for name, value in vars(self).items() for path, part in _modules_in(name, value)]
        return "\n  ".join([head, *(text.replace("\n", "\n  ") for text in inside)])

    def extra_repr(self) -> str:
        """What a subclass wants to say of itself in repr."""
        return ""


class Known:
    """The number in a buffer without axes: `known()`. A GPU is waited for after the buffer was written, not at each call."""

    def __init__(self, buffer: Tensor):
        self.buffer = buffer
        self.version, self.number = -1, math.nan

    def __call__(self) -> float:
        if self.version != self.buffer.version[0]:
            self.version, self.number = self.buffer.version[0], float(self.buffer.data)
        return self.number


def _leaves(module: Module) -> Iterator[tuple[str, Tensor | Module | Generator]]:
    """The parameters, buffers, generators and modules inside a module, each once. Raises ValueError for a name used twice."""
    names: set[str] = set()
    for name, leaf in _inside("", module, set()):
        if name in names:
            raise ValueError(f"two parts of {type(module).__name__} are called {name!r}: change a key of its dicts")
        names.add(name)
        yield name, leaf


def _inside(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Tensor | Module | Generator]]:
    items: Any = ()
    if isinstance(value, Module | Tensor | Generator):
        if id(value) in seen or (isinstance(value, Tensor) and not value.is_leaf):
            return
        seen.add(id(value))
        if name:
            yield name, value
        items = vars(value).items() if isinstance(value, Module) else ()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, set | frozenset) and any(isinstance(item, Module | Tensor) for item in value):
        raise TypeError(f"{name} is a set, whose order changes from run to run: keep layers and parameters in a list or a dict")
    for key, item in items:
        yield from _inside(f"{name}.{key}" if name else str(key), item, seen)


def _modules_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What repr shows below a module: the modules in one of its attributes, and the functions between them."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _modules_in(f"{name}.{key}", _Named(item) if callable(item) and not isinstance(item, Module) else item)
    elif isinstance(value, _Named):
        yield name, value


class _Named:
    """A function, as repr shows it: by its name."""

    def __init__(self, function: Any):
        self.name = getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        return self.name


# ---- a generator's position as an array, so that a state is made of arrays only


def _position(generator: Generator) -> np.ndarray:
    """(4,) uint64: the two halves of the seed, the block, and the number of children."""
    s = generator.state
    seed = int(s["seed"])
    return np.array([seed & (2**64 - 1), seed >> 64, s["block"], s["children"]], np.uint64)


def _at_position(name: str, position: np.ndarray) -> dict[str, int | str]:
    """The inverse: what `Generator.state` takes. Raises ValueError if it takes it not."""
    low, high, block, children = map(int, position)
    state: dict[str, int | str] = {"algorithm": ALGORITHM, "seed": low | high << 64, "block": block, "children": children}
    try:
        Generator(0).state = state
    except ValueError as error:
        raise ValueError(f"state does not fit: {name} is no position of a generator: {error}") from error
    return state
