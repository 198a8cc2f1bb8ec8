"""Moving between devices: never silently, only by this op."""

from __future__ import annotations

from ..backend import move
from ..tape import Array, device_of, op


@op(view=True)
def to_device(x: Array, device: str) -> Array:
    """x on "cpu" or "cuda": a copy, or x itself if it is there already. Its gradient is moved back.

    Raises ValueError for another device, DeviceError if there is no usable GPU.
    """
    return move(x, device)


to_device.vjp(x=lambda g, x: to_device(g, device_of(x.data if hasattr(x, "node") else x)))
