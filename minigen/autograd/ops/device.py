"""Moving between devices: never silently, only by this op."""

from __future__ import annotations

from ..backend import move
from ..tape import Array, device_of, op


@op
def to_device(x: Array, device: str) -> Array:
    """A copy of x on "cpu" or "cuda". Its gradient is moved back. DeviceError if there is no usable GPU."""
    return move(x, device)


to_device.vjp(x=lambda g, x: to_device(g, device_of(x.data if hasattr(x, "node") else x)))
