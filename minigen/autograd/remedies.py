"""NumPy's errors inside an op, explained: the op, what it was given, and what to do about it. Start at `raise_explained`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

# a pattern of NumPy's or Python's message, and the remedy, which may use the pattern's groups and the op's parameters
REMEDIES = [
    (r"axis .* is out of bounds for array of dimension 0", "the array has no axes: reshape it to (1,)"),
    (r"axis .* is out of bounds for array of dimension (\d+)", "an axis is at least -{0} and less than {0}"),
    (r"is out of bounds for axis \d+ with size (\d+)", "an index is at least -{0} and less than {0}"),
    (r"could not be broadcast", "from the last axis on, sizes must be equal, or 1: reshape one of the arrays"),
    (r"got an unexpected keyword argument", "the parameters are {parameters}"),
    (r"did not contain a loop|no callable|unsupported operand", "give numbers, arrays of numbers or Tensors"),
    (r"cannot be interpreted as an integer", "give an integer, or several as a tuple"),
    (r"too many indices .* array is (\d+)-dimensional", "at most {0} axes can be indexed"),
    (r"data type .* not understood", "the dtypes are float32 and float64"),
]


def remedy(message: str, parameters: Sequence[str]) -> str:
    """What to do about an error with this message, as "; ..."; nothing where the message says it, or is unknown."""
    for pattern, text in REMEDIES:
        found = re.search(pattern, message)
        if found:
            return "; " + text.format(*found.groups(), parameters=", ".join(parameters) or "none")
    return ""


def raise_explained(op: Any, raw: Sequence, error: Exception) -> NoReturn:
    """Raise the same kind of error, with the op and what it was given in front; the error itself where it says so already."""
    devices = {device_of(r) for r in raw if hasattr(r, "dtype")}
    if len(devices) > 1:
        where = ", ".join(f"{name or 'input'} on {device_of(r)}" for name, r in zip(op.inputs, raw, strict=False))
        message = f"{op.name}: inputs on different devices ({where}). Move them to one device with .to(device)"
        raise TypeError(message) from error
    said, way_out = str(error).rstrip(), remedy(str(error), [*op.inputs, *op.defaults])
    if said.startswith(op.name) and not way_out:
        raise error
    shown = ", ".join(describe(r) for r in raw)
    message = (said if said.startswith(op.name) else f"{op.name}({shown}): {said}") + way_out
    try:
        explained = type(error)(message)
    except TypeError:  # some of NumPy's errors are made of more than a message
        explained = next(kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind))(message)
    raise explained from error


def device_of(value: Any) -> str:
    """Where an array lives: "cpu" for NumPy, "cuda" for CuPy."""
    return "cpu" if isinstance(value, np.ndarray | np.generic | int | float | complex | bool | list | tuple) else "cuda"


def describe(value: Any) -> str:
    """A short name for an input in an error message: `float32(3, 4)`, or the value of a scalar."""
    return f"{value.dtype}{tuple(value.shape)}" if hasattr(value, "dtype") else repr(value)
