"""Module: a thing with parameters. Start at `Module.named_parameters`.

A parameter is any Tensor attribute that requires a gradient; a buffer (running statistics) is any other Tensor attribute.
Both are found wherever they stand: in attributes, in modules within modules, and in plain lists, tuples and dicts of
them. Nothing has to be registered, so nothing can be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import Tensor


class Module:
    """Base class of layers and models. A subclass sets attributes in __init__ and computes in `forward`."""

    training = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no forward(): define it, or call the method you mean")

    # ---- what it holds

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of every parameter and buffer, depth first in the order of definition, shared ones once."""
        seen: set[int] = set()
        for name, leaf in _leaves("", self, seen):
            if isinstance(leaf, Tensor):
                yield name, leaf

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of every parameter, such as ("layers.0.weight", ...)."""
        return ((name, t) for name, t in self.named_tensors() if t.requires_grad)

    def parameters(self) -> list[Tensor]:
        return [t for _, t in self.named_parameters()]

    def modules(self) -> Iterator[Module]:
        """This module and all modules inside it."""
        seen: set[int] = set()
        yield self
        for _, leaf in _leaves("", self, seen):
            if isinstance(leaf, Module):
                yield leaf

    def num_parameters(self) -> int:
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

    # ---- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name."""
        return {name: np.array(t.data) for name, t in self.named_tensors()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Copy a state into this module's parameters and buffers, in place.

        Raises ValueError, before anything is changed, naming missing and unexpected names, or the first array whose shape
        or dtype differs.
        """
        own = dict(self.named_tensors())
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(f"state does not fit {type(self).__name__}: missing {missing}, unexpected {unexpected}")
        for name, t in own.items():
            given = state[name]
            if given.shape != t.shape or given.dtype != t.dtype:
                raise ValueError(f"state does not fit: {name} is {t.dtype}{t.shape}, given {given.dtype}{given.shape}")
        for name, t in own.items():
            t.data[...] = state[name]
            t.mark_written()

    def __repr__(self) -> str:
        """The tree of modules, with the shapes of their own parameters."""
        lines = [f"{type(self).__name__}({self.extra_repr()})"]
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                lines.append(f"  {name}: {'x'.join(map(str, value.shape)) or 'scalar'}")
            for path, module in _modules_in(name, value):
                text = repr(module).replace("\n", "\n  ")
                lines.append(f"  {path}: {text}")
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """What a subclass wants to say of itself in repr."""
        return ""


def _leaves(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Tensor | Module]]:
    """The Tensors and Modules inside `value`, each once."""
    if isinstance(value, Module):
        if id(value) in seen:
            return
        seen.add(id(value))
        if name:
            yield name, value
        for key, attribute in vars(value).items():
            yield from _leaves(f"{name}.{key}" if name else key, attribute, seen)
    elif isinstance(value, Tensor):
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}.{i}", item, seen)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item, seen)


def _modules_in(name: str, value: Any) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _modules_in(f"{name}.{key}", item)
