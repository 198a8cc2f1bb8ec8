"""What to do about an error that NumPy raises inside an op, in a few words that are put behind its message."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
