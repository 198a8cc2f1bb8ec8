"""The card of `to_device`, on the one device that is always there."""

from __future__ import annotations

from .. import ops
from .card import Draw, OpCard


def _sample(draw: Draw) -> tuple[tuple, dict]:
    return (draw.floats(draw.shape()),), {"device": "cpu"}


OpCard("to_device", ops.to_device, _sample, wrt=(0,), reference=lambda x, device: x, linear=(0,))
